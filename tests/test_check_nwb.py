"""What ``check`` says of an NWB file of which it is told nothing."""

from __future__ import annotations

import os
import runpy
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import yaml

from nwb_files import TRIALS, UNITS, nwb_file, starts, write_nwb
from seqvae.config import from_config
from seqvae.console.main import main
from seqvae.data.sources import NWB, RecordingSource
from seqvae.data.survey import outlook
from seqvae.errors import InputError
from seqvae.verbs.check import check

pynwb = pytest.importorskip("pynwb")
BEGIN = starts()


def guessed(path: Path, **settings) -> dict:
    view = outlook(NWB(path, **settings))
    assert view is not None
    assert view.plan.question is None
    return view.plan.keys


def test_a_file_is_found_whole_without_keys_and_a_config_reads_it(tmp_path, capsys):
    heldout = [False, False, True, False, True]
    file = nwb_file(
        units={"heldout": heldout}, trials={"go_cue": BEGIN + 0.5, "trial_type": [1, 2] * 6}
    )
    path, config = write_nwb(tmp_path / "a.nwb", file), tmp_path / "mine.yaml"
    assert main(["check", str(path), "--write_config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "units/spike_times  5 x unequal  float64, 5 cells" in out
    assert "behavior/hand_vel  38000 x 2  float64, TimeSeries" in out
    assert (
        "align_to: 'move_onset_time', as it holds the onset of a movement; so may 'go_cue'" in out
    )
    assert "neurons held out: 2" in out
    source = from_config(yaml.safe_load(config.read_text())["data"]["source"], RecordingSource)
    assert source == NWB(
        str(path),
        0.02,
        align_to="move_onset_time",
        window=source.window,
        condition="trial_type",
        behavior=["behavior/hand_vel"],
    )
    assert [*source.window] == [-0.25, 0.45]
    recording = source.load()
    assert recording.shape == (TRIALS, 35, UNITS)
    assert recording.split.tolist() == ["train"] * 8 + ["val"] * 4


def test_the_layout_of_the_benchmark_is_found_whole(shared_data, tmp_path, monkeypatch):
    script = shared_data / "labs/make_maze_like_nwb.py"
    if not script.exists():
        pytest.skip("no lab files")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(os.fspath(script))
    keys = guessed(tmp_path / "maze_synth.nwb")
    assert keys == {
        "activity": "units",
        "bin_width": 0.02,
        "heldout": "heldout",
        "trials": "trials",
        "align_to": "move_onset_time",
        "window": (-0.25, 0.45),
        "split": "split",
        "condition": "trial_type",
        "behavior": ["behavior/hand_vel"],
    }


def test_the_window_is_what_trials_hold_in_whole_bins(tmp_path):
    trials = {"move_onset_time": BEGIN + 0.13, "split": ["none"] * TRIALS}
    keys = guessed(write_nwb(tmp_path / "a.nwb", nwb_file(trials=trials)), bin_width=0.05)
    assert keys["window"] == (-0.1, 0.45)
    assert "split" not in keys or keys["split"] is None


def test_another_event_is_found_by_its_name(tmp_path):
    trials = {"stim_on": BEGIN + 0.3, "reward_time": BEGIN + 2, "move_onset_time": BEGIN + 99}
    keys = guessed(write_nwb(tmp_path / "a.nwb", nwb_file(trials=trials)))
    assert keys["align_to"] == "stim_on"


def test_two_events_that_are_as_good_are_asked_about(tmp_path):
    trials = {"a_time": BEGIN + 0.3, "b_time": BEGIN + 0.6, "move_onset_time": BEGIN + 99}
    path = write_nwb(tmp_path / "a.nwb", nwb_file(trials=trials))
    with pytest.raises(
        InputError, match=r"align_to: which event .* 'a_time', 'b_time'\? give .* The file holds"
    ):
        check(path)
    assert guessed(path, align_to="a_time")["window"] == (-0.25, 0.45)


def test_what_was_set_is_no_guess(tmp_path):
    path = write_nwb(tmp_path / "a.nwb")
    keys = guessed(path, trials=None, bin_width=0.1, behavior=["hand_vel"])
    assert keys == {"activity": "units"}


def test_without_trials_it_is_one_long_recording(tmp_path):
    summary = check(write_nwb(tmp_path / "a.nwb", nwb_file(is_long=True)), bin_width=0.05)
    assert any(line.startswith("trials: None, as no table") for line in summary["guessed"])
    assert summary["windows"]["train"] > 0


def fluorescence(names: list[str]) -> pynwb.NWBFile:
    from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel

    file = pynwb.NWBFile("f", "f-1", datetime(2020, 1, 1, tzinfo=timezone.utc))
    device = file.create_device("scope")
    channel = OpticalChannel(name="c", description="c", emission_lambda=500.0)
    plane = file.create_imaging_plane(
        name="plane", optical_channel=channel, description="p", device=device,
        excitation_lambda=600.0, indicator="GCaMP", location="V1",
    )  # fmt: skip
    module = file.create_processing_module("ophys", "ophys")
    segmentation = ImageSegmentation()
    module.add(segmentation)
    rois = segmentation.create_plane_segmentation(
        name="rois", description="r", imaging_plane=plane, reference_images=None
    )
    for _ in range(3):
        rois.add_roi(pixel_mask=[(0, 0, 1.0)])
    region = rois.create_roi_table_region(region=[0, 1, 2], description="all")
    holder = Fluorescence()
    module.add(holder)
    for name in names:
        holder.create_roi_response_series(
            name=name, data=np.random.default_rng(0).gamma(2, size=(200, 3)), rois=region,
            unit="a", rate=20.0,
        )  # fmt: skip
    return file


def test_fluorescence_is_found_or_asked_about(tmp_path):
    keys = guessed(write_nwb(tmp_path / "a.nwb", fluorescence(["RoiResponse", "Neuropil", "dff"])))
    assert keys["series"] == "ophys/Fluorescence/dff"
    assert "bin_width" not in keys
    with pytest.raises(InputError, match=r"series: which is the activity, .*green.*red"):
        check(write_nwb(tmp_path / "b.nwb", fluorescence(["green", "red"])))


def test_neither_units_nor_fluorescence_is_one_sentence(tmp_path):
    file = pynwb.NWBFile("f", "f-1", datetime(2020, 1, 1, tzinfo=timezone.utc))
    with pytest.raises(InputError, match="neither units with spikes nor a RoiResponseSeries"):
        check(write_nwb(tmp_path / "a.nwb", file))
