"""A converted recording is the same recording, in a file that needs no setting."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import seqvae.data.lazy
import seqvae.data.sizes
import seqvae.data.sources.npy_file
from layouts import COUNTS, LAYOUTS, WIDTH, padded
from seqvae import NeuralData
from seqvae.console.main import main
from seqvae.data import Recording
from seqvae.data.lazy import LazyActivity
from seqvae.data.sources import HDF5, from_path, write_hdf5, write_npz
from seqvae.data.survey import outlook
from seqvae.data.transforms import Rebin, ZScore
from seqvae.errors import InputError
from seqvae.verbs.convert import convert

WRITERS = {"a.h5": write_hdf5, "a.npz": write_npz}


def recording(num_trials: int, largest: float, kinds: set[str], seed: int) -> Recording:
    """Counts, or real values, with what ``kinds`` say beside them."""
    generator = np.random.default_rng(seed)
    activity = generator.integers(0, largest, (num_trials, 6, 3), endpoint=True).astype(np.float32)
    activity[0, 0] = largest, 1, 1
    if "real" in kinds:
        activity += 0.5
    if "missing" in kinds:
        activity[0, 1, 2] = np.nan
        activity[1:, 4, :] = np.nan
    if "ragged" in kinds:
        activity[1:, 3:] = np.nan
    beside = {}
    if "beside" in kinds:
        beside = {
            "inputs": generator.normal(size=(num_trials, 6, 2)),
            "behavior": np.where(generator.random((num_trials, 6, 1)) < 0.3, np.nan, 1.5),
            "rates": generator.uniform(1, 9, (num_trials, 6, 3)),
            "condition": np.array([f"réach {i}" for i in range(num_trials)]),
            "neuron_ids": np.array(["a", "bb", "ccc"]),
            "trial_ids": np.arange(num_trials) + 100,
            "split": generator.choice(["train", "val", "test"], num_trials),
            "heldin": np.array([0, 2]),
            "num_encoded_bins": 5,
            "start_times": np.sort(generator.uniform(0, 99, num_trials)),
            "event_times": np.where(np.arange(num_trials) == 1, np.nan, 0.04),
            "event_name": "go cue",
            "segment_ids": np.arange(num_trials) // 2,
            "session_id": "monkey J, 3",
        }
        if "ragged" in kinds:
            for name in ("inputs", "behavior", "rates"):
                beside[name][1:, 3:] = np.nan
    return Recording(activity, 0.02, **beside)


@pytest.mark.filterwarnings("ignore:.* are identical|.* silent|.* ends? ")
@pytest.mark.parametrize("name", WRITERS)
@settings(deadline=None, max_examples=25)
@given(
    num_trials=st.integers(2, 4),
    largest=st.sampled_from([1, 254, 255, 256, 65534, 65535, 2**24 - 1]),
    kinds=st.sets(st.sampled_from(["real", "missing", "ragged", "beside"])),
    seed=st.integers(0, 99),
)
@example(num_trials=2, largest=65535, kinds={"missing"}, seed=0)
@example(num_trials=2, largest=2**24 - 1, kinds={"missing"}, seed=0)
def test_a_written_recording_is_the_same_in_every_field(
    name, num_trials, largest, kinds, seed, tmp_path_factory
):
    whole = recording(num_trials, largest, kinds, seed)
    path = tmp_path_factory.mktemp("round") / name
    WRITERS[name](whole, path)
    again = from_path(path).load()
    assert again.checksum == whole.checksum
    assert again.lengths.tolist() == whole.lengths.tolist()
    for field in ("event_name", "session_id", "num_encoded_bins"):
        assert getattr(again, field) == getattr(whole, field)
    for field in ("start_times", "event_times", "segment_ids", "heldin"):
        np.testing.assert_array_equal(getattr(again, field), getattr(whole, field), err_msg=field)
    if name.endswith("h5") and "real" not in kinds:
        with h5py.File(path) as file:
            absent = bool(np.isnan(whole.read()).any())
            assert file["activity"].dtype == np.min_scalar_type(largest + absent)


LABS = [
    ("NWB", ".h5"),
    ("HDF5, nested", ".npz"),
    ("MATLAB 5, struct array", ".h5"),
    ("npz, triples", ".npz"),
]


@pytest.mark.filterwarnings("ignore:intervals|.*last spike")
@pytest.mark.parametrize(("layout", "ending"), LABS)
def test_a_file_of_a_lab_is_converted_without_a_setting(layout, ending, tmp_path, capsys):
    path = LAYOUTS[layout].write(tmp_path)
    out = str(tmp_path / f"converted{ending}")
    assert main(["convert", str(path), out]) == 0
    told = capsys.readouterr().out
    assert "guessed:\n" in told
    assert "activity: '" in told or "spike_times: '" in told
    assert f"next: seqvae fit {out} --run_dir runs/mine" in told
    source = from_path(path)
    expected = outlook(source).ready(source).load()
    again = from_path(out).load()
    assert again.checksum == expected.checksum
    np.testing.assert_array_equal(again.read(), padded() if layout.startswith("MATLAB") else COUNTS)
    assert again.bin_width == WIDTH
    assert convert(out, str(tmp_path / "again.h5"))["checksum"] == again.checksum


def test_a_file_that_is_there_is_kept_unless_it_may_go(tmp_path, capsys):
    path = LAYOUTS["npz"].write(tmp_path)
    out = tmp_path / "out.h5"
    out.write_text("mine")
    with pytest.raises(InputError, match=r"out: .* is there already; .* or give --overwrite"):
        convert(str(path), str(out))
    assert out.read_text() == "mine"
    assert main(["convert", str(path), str(out), "--overwrite"]) == 0
    assert HDF5(out).load().num_trials == len(COUNTS)
    with pytest.raises(InputError, match=r"out: .* is the file that is read; name another"):
        convert(str(out), str(out), overwrite=True)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["a.npz", "b.nc"], "would be written as .h5 or .hdf5 or .hdf or .npz"),
        (["a.npz"], "out is required: give --out FILE.h5"),
        (["a.npz", "nowhere/b.h5"], "out: the folder 'nowhere' does not exist"),
        (["b.npz", "c.h5"], "'b.npz' does not exist"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_writes_nothing(
    words, sentence, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(LAYOUTS["npz"].write(tmp_path).parent)
    assert main(["convert", *words]) == 2
    told = capsys.readouterr().err
    assert sentence in told
    assert told.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


def test_where_there_is_doubt_nothing_is_written(tmp_path):
    path = LAYOUTS["HDF5, two areas"].write(tmp_path)
    with pytest.raises(InputError, match="which is the activity"):
        convert(str(path), str(tmp_path / "b.h5"))
    assert not (tmp_path / "b.h5").exists()


def test_transforms_are_done_but_for_those_that_learn(toy_recording, tmp_path):
    data = NeuralData(toy_recording, transforms=[Rebin(0.04)])
    convert(data, str(tmp_path / "a.h5"))
    assert HDF5(tmp_path / "a.h5").load().checksum == Rebin(0.04)(toy_recording).checksum
    with pytest.raises(InputError, match="ZScore learns from training trials"):
        convert(NeuralData(toy_recording, transforms=[ZScore()]), str(tmp_path / "b.h5"))


def test_missing_counts_are_missing_also_where_names_are_given(tmp_path):
    whole = recording(3, 4, {"missing"}, 0)
    write_hdf5(whole, tmp_path / "a.h5")
    again = HDF5(tmp_path / "a.h5", keys={"activity": "activity"}, dims=["trial", "time", "neuron"])
    np.testing.assert_array_equal(again.load().read(), whole.read())


@pytest.mark.parametrize("name", WRITERS)
def test_large_counts_are_written_block_by_block(name, tmp_path, monkeypatch):
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 1_000_000)
    monkeypatch.setattr(seqvae.data.lazy, "_AT_ONCE", 100_000)
    monkeypatch.setattr(seqvae.data.sources.npy_file, "_AT_ONCE", 100_000)
    counts = np.random.default_rng(0).poisson(0.5, (100_000, 40)).astype(np.uint8)
    np.save(tmp_path / "long.npy", counts)
    source = NeuralData(str(tmp_path / "long.npy"), bin_width=0.001)
    tracemalloc.start()
    try:
        summary = convert(source, str(tmp_path / name))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6e6  # 16 MB in single precision
    if name == "a.h5":
        again = HDF5(Path(summary["out"])).load()
        assert isinstance(again.activity, LazyActivity)
        assert again.checksum == summary["checksum"]


def test_missing_counts_of_a_large_file_are_read_block_by_block(tmp_path, monkeypatch):
    whole = recording(4, 7, {"missing", "ragged"}, 1)
    write_hdf5(whole, tmp_path / "a.h5")
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 10)
    lazy = HDF5(tmp_path / "a.h5").load()
    assert isinstance(lazy.activity, LazyActivity)
    assert lazy.checksum == whole.checksum
    assert lazy.lengths.tolist() == whole.lengths.tolist()
