from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml

from nwb_files import TRIALS, UNITS, nwb_file, spikes, starts, write_nwb
from seqvae.config import from_config
from seqvae.console.main import main
from seqvae.data import NeuralData
from seqvae.data.sampling import sampled
from seqvae.data.sources import NWB, RecordingSource, as_source
from seqvae.data.sources.nwb_file import NWBContents, open_nwb
from seqvae.errors import InputError

EVENTS = starts() + 1


def loaded(tmp_path, file=None, **settings):
    source = NWB(write_nwb(tmp_path / "a.nwb", file), **({"bin_width": 0.02} | settings))
    return source.load()


def histogram(events, window, width, times):
    """Counts of every unit around events, by numpy's histogram."""
    edges = window[0] + np.arange(round((window[1] - window[0]) / width) + 1) * width
    return np.stack([[np.histogram(own, t + edges)[0] for own in times] for t in events]).swapaxes(
        1, 2
    )


def test_counts_around_the_event_are_those_of_a_histogram(tmp_path):
    recording = loaded(tmp_path)
    assert np.array_equal(recording.activity, histogram(EVENTS, (-0.25, 0.45), 0.02, spikes()))
    assert recording.neuron_ids.tolist() == [10, 11, 12, 13, 14]
    assert recording.split.tolist() == ["train"] * 8 + ["val"] * 4
    assert recording.heldin is None
    assert np.allclose(recording.start_times, EVENTS - 0.25)
    assert recording.event_name == "move_onset_time"
    assert np.allclose(recording.times, np.arange(35) * 0.02 - 0.24)
    assert recording.session_id == "small-1"


def test_one_long_trial_where_there_are_none(tmp_path):
    recording = loaded(tmp_path, nwb_file(is_long=True))
    edges = np.arange(recording.num_time_bins + 1) * 0.02
    expected = np.stack([np.histogram(own, edges)[0] for own in spikes()], axis=1)
    assert recording.num_trials == 1
    assert np.array_equal(recording.activity[0], expected)
    assert recording.activity.sum() == sum(map(len, spikes()))
    assert recording.start_times.tolist() == [0]
    assert loaded(tmp_path, trials=None).num_trials == 1


def test_whole_trials_are_as_long_as_they_are(tmp_path):
    stops = starts() + np.linspace(0.5, 2.5, TRIALS)
    file = nwb_file()
    file.trials["stop_time"].data[:] = stops.tolist()
    recording = loaded(tmp_path, file, align_to=None, bin_width=0.1)
    assert recording.lengths.tolist() == np.floor((stops - starts()) / 0.1 + 1e-6).tolist()
    assert recording.times is None
    assert np.array_equal(
        recording.activity[-1], histogram(starts()[-1:], (0, 2.5), 0.1, spikes())[0]
    )


def test_bins_outside_the_intervals_of_a_unit_are_missing(tmp_path):
    intervals = np.stack([EVENTS - 0.25, EVENTS + 0.4], axis=1)
    with pytest.warns(UserWarning, match="12 of 12 trials reach beyond what was recorded"):
        recording = loaded(tmp_path, nwb_file(intervals=intervals), window=(-0.25, 0.45))
    missing = np.isnan(recording.activity)
    assert not missing[:, :32].any()
    assert missing[:, 33:].all()


def test_trials_without_the_event_are_left_out_and_told(tmp_path):
    events = EVENTS.copy()
    events[[1, 7]] = np.nan
    with pytest.warns(UserWarning, match="2 of 12 trials have no move_onset_time"):
        recording = loaded(tmp_path, nwb_file(trials={"move_onset_time": events}))
    assert recording.trial_ids.tolist() == [0, 2, 3, 4, 5, 6, 8, 9, 10, 11]
    assert recording.split.tolist() == ["train"] * 6 + ["val"] * 4


def test_windows_beyond_the_recording_are_missing_there_or_left_out(tmp_path):
    events = EVENTS.copy()
    events[[0, 11]] = 0.1, 500.0
    with (
        pytest.warns(UserWarning, match="1 of 12 trials lie where nothing was recorded"),
        pytest.warns(UserWarning, match="1 of 11 trials reach beyond what was recorded"),
    ):
        recording = loaded(tmp_path, nwb_file(trials={"move_onset_time": events}))
    assert np.isnan(recording.activity[0]).all(1).tolist() == [True] * 8 + [False] * 27
    assert not np.isnan(recording.activity[1:]).any()


def test_overlapping_windows_are_told(tmp_path):
    with pytest.warns(UserWarning, match="11 of 12 trials begin before another ends.* 0 and 1"):
        loaded(tmp_path, window=(-1.35, 1.75))


@pytest.mark.parametrize(
    ("words", "split"),
    [
        (["training"] * 8 + ["Validation"] * 4, ["train"] * 8 + ["val"] * 4),
        (["train"] * 6 + ["valid"] * 3 + ["Test"] * 3, ["train"] * 6 + ["val"] * 3 + ["test"] * 3),
    ],
)
def test_other_words_of_split_are_known(words, split, tmp_path):
    assert loaded(tmp_path, nwb_file(trials={"split": words})).split.tolist() == split


def test_trials_of_no_split_are_left_out_and_told(tmp_path):
    words = ["train"] * 6 + ["none"] * 3 + ["val"] * 3
    with pytest.warns(UserWarning, match="3 of 12 trials are of no split"):
        recording = loaded(tmp_path, nwb_file(trials={"split": words}))
    assert recording.split.tolist() == ["train"] * 6 + ["val"] * 3


def test_neurons_are_held_out_by_their_column_and_left_out_by_a_condition(tmp_path):
    units = {"heldout": [False, True, False, False, True], "quality": ["good"] * 4 + ["mua"]}
    file = nwb_file(units=units)
    recording = loaded(tmp_path, file)
    assert recording.heldin.tolist() == [0, 2, 3]
    recording = loaded(tmp_path, nwb_file(units=units), units_query="quality == 'good'")
    assert recording.neuron_ids.tolist() == [10, 11, 12, 13]
    assert recording.heldin.tolist() == [0, 2, 3]
    assert loaded(tmp_path, nwb_file(units=units), heldout=None).heldin is None


def test_behavior_is_the_mean_of_each_bin_and_later_by_the_lag(tmp_path):
    settings = {"behavior": ["hand_vel"], "condition": ["split", "move_onset_time"]}
    recording = loaded(tmp_path, behavior_lag=0.1, **settings)
    centres = EVENTS[:, None] + recording.times + 0.1 - 0.0005  # samples begin with the bin
    expected = np.stack([np.sin(centres), np.cos(centres)], axis=2)
    assert np.abs(recording.behavior - expected).max() < 1e-4
    assert recording.condition[0] == "train 3.0"
    places = {"velocity": "behavior/hand_vel"}
    again = loaded(tmp_path, behavior_lag=0.1, behavior=places)
    assert np.array_equal(again.behavior, recording.behavior)


def test_samples_per_bin_are_averaged_or_interpolated_and_missing_ones_stay_missing():
    times = np.arange(10) * 0.1
    values = np.stack([times, np.where(times > 0.45, np.nan, 1.0)], axis=1)
    wide = sampled(times, values, np.array([0.0, 0.8]), bin_width=0.2, num_bins=2)
    assert np.allclose(wide[0], [[0.05, 1], [0.25, 1]])
    assert np.allclose(wide[1], [[0.85, np.nan], [np.nan, np.nan]], equal_nan=True)
    narrow = sampled(times, values, np.array([0.0, 0.875]), bin_width=0.05, num_bins=2)
    assert np.allclose(narrow[0], [[0.0, 1], [0.075, 1]])
    assert np.allclose(narrow[1, :, 0], [0.9, np.nan], equal_nan=True)


def test_fluorescence_is_taken_for_activity(tmp_path):
    file = fluorescent()
    recording = loaded(tmp_path, file, series="dff", bin_width=None)
    assert recording.bin_width == pytest.approx(0.1)
    assert np.allclose(recording.activity[0], np.arange(300.0).reshape(100, 3) / 7, rtol=1e-6)
    with pytest.raises(InputError, match="no units with spikes; give series='ophys/Fluo/dff'"):
        NWB(tmp_path / "a.nwb", 0.02).load()
    wide = loaded(tmp_path, fluorescent(), series="dff", bin_width=0.2)
    assert wide.num_time_bins == 50


def fluorescent():
    from pynwb.ophys import Fluorescence, ImageSegmentation, OpticalChannel

    file = nwb_file(times=[], is_long=True)
    device = file.create_device("microscope")
    plane = file.create_imaging_plane(
        name="plane",
        optical_channel=OpticalChannel(name="green", description="", emission_lambda=500.0),
        description="",
        device=device,
        excitation_lambda=600.0,
        indicator="GCaMP",
        location="V1",
    )
    segmentation = ImageSegmentation()
    regions = segmentation.create_plane_segmentation(
        name="rois", description="", imaging_plane=plane
    )
    for pixel in range(3):
        regions.add_roi(pixel_mask=[(pixel, 0, 1.0)])
    module = file.create_processing_module("ophys", "")
    module.add(segmentation)
    fluorescence = Fluorescence(name="Fluo")
    module.add(fluorescence)
    fluorescence.create_roi_response_series(
        name="dff",
        data=np.arange(300.0).reshape(100, 3) / 7,
        rois=regions.create_roi_table_region("all", region=[0, 1, 2]),
        unit="a.u.",
        rate=10.0,
    )
    return file


@pytest.mark.filterwarnings("ignore:.*silent")
def test_spikes_on_edges_unsorted_and_doubled_and_units_without_spikes(tmp_path):
    grid = [EVENTS[0] - 0.26, EVENTS[0] + 0.44, EVENTS[0], EVENTS[0] + 0.02, EVENTS[0]]
    times = [np.array(grid), np.array([]), *spikes()[2:]]
    with pytest.warns(UserWarning, match="units 10 have spikes at the very same time"):
        recording = loaded(tmp_path, nwb_file(times=times), window=(-0.24, 0.46))
    counts = recording.activity[0, :, 0]
    assert np.flatnonzero(counts).tolist() == [12, 13, 34]
    assert counts[[12, 13, 34]].tolist() == [2, 1, 1]
    assert not recording.activity[..., 1].any()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"bin_width": None}, "bin_width: spike times have none; give seconds per bin"),
        ({"bin_width": 20.0}, "bin_width must be in seconds, got 20; did you mean 0.02"),
        ({"window": (0.45, -0.25)}, "window must begin before it ends"),
        ({"window": (-0.25, 0.46)}, r"window is 0.71 s long, no whole .* take \[-0.25, 0.47\]"),
        ({"align_to": "go_cue_time"}, "no column 'go_cue_time'; name one of start_time, stop_time"),
        ({"align_to": "split"}, "align_to: column 'split' of trials holds no times"),
        ({"trials": "trial"}, "trials: the file has no table 'trial'; did you mean 'trials'"),
        ({"split": "splits"}, "split: trials has no column 'splits'; did you mean 'split'"),
        ({"heldout": "hidden"}, "heldout: units has no column 'hidden'"),
        ({"condition": "typ"}, "condition: trials has no column 'typ'"),
        ({"units_query": "id > 99"}, "units_query leaves none of the 5 units"),
        ({"units_query": "rate > 1"}, "units_query"),
        ({"behavior": ["hand_pos"]}, "behavior: the file has no series 'hand_pos'; did you mean"),
        ({"series": "dff"}, "series: the file has no series 'dff'"),
        ({"behavior_lag": 100.0, "behavior": ["hand_vel"]}, "'behavior/hand_vel' has no value"),
    ],
)
def test_settings_that_do_not_fit_the_file_are_refused_in_one_sentence(
    settings, sentence, tmp_path
):
    with pytest.raises(InputError, match=sentence) as refusal:
        loaded(tmp_path, **settings)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ({"trials": {"split": ["seen"] * 12}}, "'seen', which is none of train"),
        ({"trials": {"split": ["none"] * 12}}, "assigns no trial"),
        ({"trials": {"move_onset_time": [np.nan] * 12}}, "none of the 12 trials has move_onset"),
        ({"trials": {"move_onset_time": EVENTS + 900}}, "nothing was recorded in any of the 12"),
        ({"times": []}, "holds no units with spikes; check which file"),
        ({"times": [np.array([])] * UNITS}, "none of the 5 units of .* has a spike"),
        ({"units": {"heldout": [True] * UNITS}}, "holds out all 5 units"),
        ({"units": {"heldout": ["a"] * UNITS}}, "must hold true or false"),
        (
            {"times": [*spikes()[1:], np.array([1e9])], "is_long": True},
            "would last 1e.09 s.*seconds from the start of the session",
        ),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_one_sentence(file, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence) as refusal:
        loaded(tmp_path, nwb_file(**file))
    assert "\n" not in str(refusal.value)


def test_a_trial_whose_end_cannot_be_meant_is_refused(tmp_path):
    file = nwb_file()
    file.trials["stop_time"].data[3] = 1e8
    with pytest.raises(InputError, match=r"trial 3 is 1e\+08 s long"):
        loaded(tmp_path, file, align_to=None)


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = write_nwb(tmp_path / "a.nwb")

    def session_id(self):
        os.utime(path, (0, 0))
        return ""

    monkeypatch.setattr(NWBContents, "session_id", property(session_id))
    with pytest.raises(InputError, match="changed while it was read"):
        NWB(path, 0.02).load()


def test_a_file_with_links_to_others_is_refused(tmp_path):
    path = write_nwb(tmp_path / "a.nwb")
    with h5py.File(path, "a") as h:
        h["acquisition/elsewhere"] = h5py.ExternalLink("other.h5", "/data")
    with pytest.raises(InputError, match=r"'acquisition/elsewhere' .* lies in another file"):
        NWB(path, 0.02).load()


def test_a_file_that_claims_more_texts_than_it_has_bytes_is_refused(tmp_path):
    path = write_nwb(tmp_path / "a.nwb")
    with h5py.File(path, "a") as h:
        del h["file_create_date"]
        h.create_dataset("file_create_date", (10**9,), h5py.string_dtype(), chunks=(1000,))
    with pytest.raises(InputError, match=r"'file_create_date' .* claims 1e\+09 entries"):
        NWB(path, 0.02).load()


def test_without_pynwb_one_sentence_tells_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(InputError, match=r"pip install 'seqvae\[nwb\]'"):
        NWB(tmp_path / "a.nwb", 0.02).load()


def test_a_zarr_folder_gives_what_the_file_gives(tmp_path):
    hdmf_zarr = pytest.importorskip("hdmf_zarr")
    code = (  # the library warns of itself
        "import sys, warnings; warnings.simplefilter('ignore'); sys.path.insert(0, sys.argv[1]);"
        "from nwb_files import nwb_file; from hdmf_zarr import NWBZarrIO\n"
        "with NWBZarrIO(sys.argv[2], 'w') as io: io.write(nwb_file())"
    )
    assert hdmf_zarr
    folder = tmp_path / "a.nwb.zarr"
    here = os.path.dirname(__file__)
    subprocess.run([sys.executable, "-c", code, here, str(folder)], check=True)
    recording = as_source(folder, 0.02).load()
    assert np.array_equal(recording.activity, loaded(tmp_path).activity)
    assert recording.checksum == loaded(tmp_path).checksum


def test_what_a_file_holds_is_told(tmp_path):
    with open_nwb(write_nwb(tmp_path / "a.nwb")) as file:
        assert file.series == {"behavior/hand_vel": "TimeSeries"}
        assert file.interval_tables == ["trials"]
        assert "move_onset_time" in file.intervals("trials").names
        assert file.units.names == ["spike_times"]


@pytest.mark.parametrize(
    ("name", "event", "seen"),
    [
        ("mc_maze", "move_onset_time", (-0.25, 0.45)),
        ("mc_rtt", "start_time", (0.0, 0.6)),
        ("area2_bump", "move_onset_time", (-0.1, 0.5)),
        ("dmfc_rsg", "go_time", (-1.5, 0.0)),
    ],
)
def test_presets_see_the_window_of_the_benchmark_and_forecast_what_follows(name, event, seen):
    config = Path(__file__).parents[1] / f"configs/nlb_{name}.yaml"
    data = yaml.safe_load(config.read_text())["data"]
    source = from_config(data["source"], RecordingSource)
    start, stop = source.window
    assert source.align_to == event
    assert start == seen[0]
    assert stop - data["forecast_bins"] * source.bin_width == pytest.approx(seen[1])


def test_from_the_shell_to_scores(tmp_path, capsys):
    path = write_nwb(tmp_path / "a.nwb")
    words = ["--data.source", "NWB", "--data.source.path", str(path)]
    words += ["--data.source.bin_width", "0.05"]
    run = str(tmp_path / "run")
    model = ["--model", "FactorAnalysis", "--model.latent_dim", "2", "--model.smoothing", "0.1"]
    assert main(["fit", *words, "--data.source.window", "[-0.25, 0.5]", *model,
                 "--run_dir", run]) == 0  # fmt: skip
    assert main(["infer", "--run", run, "--num_samples", "2"]) == 0
    import xarray as xr

    with xr.open_dataset(tmp_path / "run/posterior.nc") as posterior:
        assert posterior.time.attrs["event"] == "move_onset_time"
        assert np.allclose(posterior.time, np.arange(15) * 0.05 - 0.225)


def test_the_recording_of_a_lab_is_counted_as_by_a_histogram(shared_data):
    path = shared_data / "labs/pynapple_A8604-211122.nwb"
    if not path.exists():
        pytest.skip("no lab files")
    recording = NWB(path, 0.02).load()
    with h5py.File(path) as file:
        ends = file["units/spike_times_index"][:-1].astype(int)
        times = np.split(file["units/spike_times"][()], ends)
    micro = [np.rint(own * 1e6).astype(int) for own in times]  # as they were written
    edges = np.arange(recording.num_time_bins + 1) * 20_000
    expected = np.stack([np.bincount(own // 20_000, minlength=len(edges) - 1) for own in micro])
    assert np.array_equal(recording.activity[0], expected.T)
    data = NeuralData(recording)
    data.setup()
    assert data.num_trials["val"] > 0
