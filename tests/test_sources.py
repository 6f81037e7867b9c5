from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqvae.data import Recording
from seqvae.data.sources import (
    HDF5,
    MAT,
    Arrays,
    Digits,
    Lorenz,
    Npy,
    Npz,
    RecordingSource,
    from_path,
    write_hdf5,
    write_npz,
)
from seqvae.distributions.kinds import Binary, Counts, Real
from seqvae.errors import InputError

FORMATS = [(write_hdf5, HDF5, "a.h5"), (write_npz, Npz, "a.npz")]
SHAPE = (6, 8, 5)
ENCODED = (6, 6, 3)


def counts(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).poisson(2.0, shape).astype(np.uint8)


def split_layout() -> dict[str, np.ndarray]:
    """6 training and 3 validation trials of 8 bins and 5 neurons; 2 bins and 2 neurons hidden."""
    train, valid = counts(6, 8, 5), counts(3, 8, 5, seed=1)
    return {
        "train_encod_data": train[:, :6, :3],
        "train_recon_data": train,
        "valid_encod_data": valid[:, :6, :3],
        "valid_recon_data": valid,
        "bin_width_s": np.array(0.01),
    }


def write(path, entries):
    if path.suffix == ".npz":
        np.savez(path, **entries)
        return
    with h5py.File(path, "w") as h:
        for name, value in entries.items():
            if np.ndim(value) == 0:
                h.attrs[name] = value
            else:
                h[name] = value


def assert_equal(one: Recording, other: Recording) -> None:
    for name in ("activity", "inputs", "behavior", "condition", "rates", "neuron_ids"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    assert one.checksum == other.checksum


@pytest.mark.parametrize(("writer", "source", "name"), FORMATS)
@settings(deadline=None, max_examples=15)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    optional=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_written_recording_reads_back_equal(
    writer, source, name, lengths, optional, seed, tmp_path_factory
):
    generator = np.random.default_rng(seed)

    def series(channels: int) -> list[np.ndarray]:
        return [generator.uniform(size=(length, channels)) for length in lengths]

    recording = Recording.from_trials(series(3), 0.02)
    if optional:
        recording = Recording.from_trials(
            series(3),
            0.02,
            inputs=series(2),
            behavior=series(1),
            rates=series(3),
            condition=np.array([f"réach {i}" for i in range(len(lengths))]),
            neuron_ids=np.array(["a", "bb", "ccc"]),
            trial_ids=np.arange(len(lengths)) + 100,
            split=generator.choice(["train", "val", "test"], len(lengths)),
            heldin=np.array([0, 2]),
            num_encoded_bins=1,
        )
    path = tmp_path_factory.mktemp("round") / name
    writer(recording, path)
    assert_equal(source(path).load(), recording)
    assert_equal(from_path(path).load(), recording)


@pytest.mark.parametrize(("writer", "source", "name"), FORMATS)
def test_a_file_appears_whole_or_not_at_all(
    writer, source, name, toy_recording, tmp_path, monkeypatch
):
    path = tmp_path / name
    writer(toy_recording, path)

    def fail(*_, **__):
        raise RuntimeError("disk full")

    monkeypatch.setattr(h5py.Group, "create_dataset", fail)
    monkeypatch.setattr(np.lib.format, "write_array", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        writer(replace(toy_recording, bin_width=0.5), path)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert_equal(source(path).load(), toy_recording)


@pytest.mark.parametrize("name", ["a.h5", "a.npz"])
def test_heldout_neurons_and_forecast_bins_are_told_by_the_shapes(tmp_path, name):
    entries = split_layout()
    write(tmp_path / name, entries)
    recording = from_path(tmp_path / name).load()
    np.testing.assert_array_equal(recording.activity[:6], entries["train_recon_data"])
    assert recording.split.tolist() == ["train"] * 6 + ["val"] * 3
    assert recording.heldin.tolist() == [0, 1, 2]
    assert recording.num_encoded_bins == 6
    assert recording.bin_width == 0.01


def test_nothing_is_held_out_when_encoded_and_reconstructed_agree(tmp_path):
    entries = split_layout()
    for split in ("train", "valid"):
        entries[f"{split}_encod_data"] = entries[f"{split}_recon_data"]
    write(tmp_path / "a.h5", entries)
    recording = HDF5(tmp_path / "a.h5").load()
    assert recording.heldin is None
    assert recording.num_encoded_bins is None


def test_the_whole_vocabulary_of_the_split_layout_is_read(tmp_path):
    truth = np.full((6, 8, 5), 0.5)
    entries = split_layout() | {
        "train_ext_input": np.ones((6, 8, 2)),
        "valid_ext_input": np.zeros((3, 8, 2)),
        "train_behavior": np.ones((6, 8, 1)),
        "train_condition": np.array([b"left"] * 6),
        "valid_condition": np.array([b"right"] * 3),
        "train_truth": truth,
        "valid_truth": truth[:3],
        "conversion_factor": np.array(0.2),
        "train_inds": np.arange(6) * 2,
        "valid_inds": np.arange(3) * 2 + 1,
        "channel_index": np.arange(5) + 10,
        "train_unheard_of": np.arange(6),
        "test_encod_data": counts(2, 6, 3),
        "test_ext_input": np.zeros((2, 8, 2)),
        "test_condition": np.array([b"left"] * 2),
        "test_inds": np.arange(2) + 50,
    }
    write(tmp_path / "a.h5", entries)
    recording = HDF5(tmp_path / "a.h5").load()
    assert recording.inputs.sum() == 6 * 8 * 2
    assert np.isnan(recording.behavior[6:]).all()
    assert set(recording.condition) == {"left", "right"}
    np.testing.assert_allclose(recording.rates[:9], 0.5 * 0.2 / 0.01, rtol=1e-6)
    assert recording.trial_ids.tolist() == [0, 2, 4, 6, 8, 10, 1, 3, 5, 50, 51]
    assert recording.neuron_ids.tolist() == [10, 11, 12, 13, 14]
    np.testing.assert_array_equal(recording.activity[9:, :6, :3], entries["test_encod_data"])
    assert np.isnan(recording.activity[9:, 6:]).all()
    assert np.isnan(recording.activity[9:, :, 3:]).all()


def test_keys_name_other_entries(tmp_path):
    entries = split_layout()
    renamed = {name.replace("recon_data", "spikes"): value for name, value in entries.items()}
    renamed |= {"train_label": np.arange(6), "valid_label": np.arange(3)}
    write(tmp_path / "a.h5", renamed)
    keys = {"activity": "{split}_spikes", "condition": "{split}_label"}
    recording = HDF5(tmp_path / "a.h5", keys=keys).load()
    assert recording.heldin is None
    assert recording.condition.tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2]
    keys["encoded"] = "{split}_encod_data"
    assert HDF5(tmp_path / "a.h5", keys=keys).load().heldin.tolist() == [0, 1, 2]


def test_keys_reach_into_groups_and_bin_width_can_be_given(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as h:
        h["session/units/binned"] = counts(6, 8, 5)
    source = HDF5(tmp_path / "a.h5", keys={"activity": "session/units/binned"}, bin_width=0.02)
    recording = source.load()
    assert recording.activity.shape == SHAPE
    assert recording.bin_width == 0.02
    assert recording.split is None


def change(**entries):
    return {k: v for k, v in {**split_layout(), **entries}.items() if v is not None}


BAD_FILES = {
    "'train_recon_data'; did you mean 'train_recon_dat'": change(
        train_recon_data=None, train_recon_dat=counts(6, 8, 5)
    ),
    "'train_encod_data'; did you mean 'train_encode_data'": {"train_encode_data": counts(6, 8, 5)},
    "'valid_encod_data'; did you mean 'vaild_encod_data'": change(
        valid_encod_data=None, vaild_encod_data=counts(3, 6, 3)
    ),
    "shapes \\(6, 6, 7\\) and \\(6, 8, 5\\)": change(
        train_encod_data=counts(6, 6, 7), valid_encod_data=counts(3, 6, 7)
    ),
    "shapes \\(5, 6, 3\\) and \\(6, 8, 5\\)": change(train_encod_data=counts(5, 6, 3)),
    "'train_encod_data' and 'valid_encod_data' have shapes": change(
        valid_encod_data=counts(3, 6, 4)
    ),
    "'train_recon_data' and 'valid_recon_data' have shapes": change(
        valid_recon_data=counts(3, 7, 5)
    ),
    "'train_encod_data' and 'train_recon_data' differ at \\[": change(
        train_encod_data=counts(6, 6, 3, seed=9)
    ),
    "(?s)behavior has shape \\(9, 7, 1\\), but activity has \\(9, 8, 5\\)": change(
        train_behavior=np.ones((6, 7, 1)), valid_behavior=np.ones((3, 7, 1))
    ),
    "inputs has shape": change(
        train_ext_input=np.ones((6, 7, 1)), valid_ext_input=np.ones((3, 7, 1))
    ),
    "has 'train_ext_input' but no 'valid_ext_input'": change(train_ext_input=np.ones((6, 8, 1))),
    "rates has shape": change(train_truth=np.ones((6, 8, 4)), valid_truth=np.ones((3, 8, 4))),
    "seconds, got 20; did you mean 0.02": change(bin_width_s=np.array(20.0)),
    "'bin_width_s' must be one number": change(bin_width_s=np.array(b"20 ms")),
    "activity .* has shape \\(0, 8, 5\\)": {"activity": np.zeros((0, 8, 5))},
    "activity is 0 in all 6 trials": {"activity": np.zeros((6, 8, 5))},
    "activity must be \\(trial, time, channel\\), got shape \\(6,\\)": {"activity": np.ones(6)},
    "'train_encod_data' must hold numbers \\(trial, time, neuron\\), got float32 of shape": change(
        train_encod_data=np.ones((6, 8), dtype="f4")
    ),
    "'valid_recon_data' must hold numbers": change(valid_recon_data=np.full((3, 8, 5), "x")),
    "'train_condition' has shape \\(5,\\), but 'train_encod_data' has 6 trials": change(
        train_condition=np.arange(5), valid_condition=np.arange(4)
    ),
    "'train_behavior' has shape \\(\\), but": change(train_behavior=np.array(1.0)),
    "'num_encoded_bins' must hold 1 whole number": {
        "activity": counts(6, 8, 5),
        "num_encoded_bins": np.array(1.5),
    },
    "'image_shape' must hold 2 whole number": {
        "activity": counts(6, 1, 6),
        "image_shape": np.array(["a", "b"]),
    },
    "say which one is the activity, ": {"spikes": counts(6, 8, 5)},
}


@pytest.mark.parametrize("sentence", BAD_FILES)
@pytest.mark.parametrize("name", ["a.h5", "a.npz"])
def test_bad_files_are_refused_in_one_sentence(tmp_path, sentence, name):
    entries = {
        k: v.astype("S") if v.dtype.kind == "U" else v for k, v in BAD_FILES[sentence].items()
    }
    write(tmp_path / name, entries)
    with pytest.raises(InputError, match=sentence) as refused:
        from_path(tmp_path / name).load()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"activty": "x"}, "keys names 'activty', which is no field; did you mean 'activity'"),
        ({"activity": "train_recon_dat"}, "did you mean 'train_recon_data'"),
        ({"condition": "{split}_labl"}, "no entry 'train_labl'"),
        ({"bin_width": "bin_width"}, "no entry 'bin_width'; did you mean 'bin_width_s'"),
    ],
)
def test_keys_that_are_not_there_are_refused_with_the_nearest(tmp_path, keys, sentence):
    write(tmp_path / "a.h5", split_layout())
    with pytest.raises(InputError, match=sentence):
        HDF5(tmp_path / "a.h5", keys=keys).load()


@pytest.mark.parametrize(("writer", "source", "name"), FORMATS)
def test_damaged_missing_and_foreign_files_are_told_apart(
    writer, source, name, toy_recording, tmp_path
):
    path = tmp_path / name
    with pytest.raises(InputError, match="does not exist"):
        source(path).load()
    with pytest.raises(InputError, match="is a folder"):
        source(tmp_path).load()
    path.write_text("trial,neuron\n1,2\n")
    with pytest.raises(InputError, match=r"not an HDF5 file|no whole npz archive"):
        source(path).load()
    writer(toy_recording, path)
    whole = path.read_bytes()
    for share in (0.99, 0.5, 0.1):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=r"truncated|no whole npz archive"):
            source(path).load()
    garbled = bytearray(whole)
    middle = len(whole) // 2
    garbled[middle : middle + 2000] = bytes(2000)
    path.write_bytes(bytes(garbled))
    with pytest.raises(InputError, match="truncated or damaged"):
        source(path).load()


def test_pickles_in_an_archive_are_not_opened(tmp_path):
    np.savez(tmp_path / "a.npz", activity=np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="Python objects"):
        Npz(tmp_path / "a.npz").load()


def test_dangling_links_and_empty_datasets_are_not_there(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as h:
        h["activity"] = h5py.SoftLink("/nowhere")
        h["behavior"] = h5py.Empty("f4")
    with pytest.raises(InputError, match="no entry 'activity'"):
        HDF5(tmp_path / "a.h5", keys={"activity": "activity"}).load()


def test_the_suffix_picks_the_format():
    assert from_path("a.H5") == HDF5("a.H5")
    assert from_path("a.npz") == Npz("a.npz")
    assert from_path("a.npy") == Npy("a.npy")
    assert from_path("a.mat") == MAT("a.mat")
    with pytest.raises(InputError, match=r"ends in '\.csv'"):
        from_path("a.csv")


def test_arrays_take_a_recording_an_array_or_a_list(toy_recording):
    assert Arrays(toy_recording).load() is toy_recording
    assert Arrays(toy_recording, bin_width=0.5).load().bin_width == 0.5
    assert Arrays(counts(4, 5, 3), 0.01, condition=np.arange(4)).load().condition.tolist()[3] == 3
    unequal = Arrays([counts(5, 3), counts(4, 3)], 0.01).load()
    assert unequal.lengths.tolist() == [5, 4]


def test_lorenz_counts_follow_the_rates_it_tells():
    recording = Lorenz(num_trials=400, num_val=50).load()
    mean = recording.rates * recording.bin_width
    np.testing.assert_allclose(mean.mean(), 0.25, rtol=1e-5)
    chi = ((recording.activity - mean) ** 2 / mean).mean(axis=(0, 1))
    np.testing.assert_allclose(chi, 1, atol=0.1)
    spread = np.log(recording.rates).std(axis=(0, 1))
    assert 0.6 < spread.mean() < 0.8
    assert spread.min() > 0.3
    Counts().check(recording.activity)


def test_lorenz_log_rates_are_linear_in_three_coordinates_that_obey_the_equations():
    recording = Lorenz(num_trials=20, num_val=5, bin_width=0.001, num_time_bins=400).load()
    z = recording.behavior.reshape(-1, 3).astype(float)
    design = np.column_stack([z, np.ones(len(z))])
    log_rates = np.log(recording.rates).reshape(len(z), -1)
    residual = np.linalg.lstsq(design, log_rates, rcond=None)[1]
    assert (residual / len(z) < 1e-6).all()
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(z.std(0), 1, atol=1e-4)
    # dz1/dt = 10 (z2 - z1): the velocity of the first coordinate is linear in the first two
    path = recording.behavior.astype(float)
    velocity = ((path[:, 2:, 0] - path[:, :-2, 0]) / 2).reshape(-1)
    middle = path[:, 1:-1].reshape(-1, 3)
    design = np.column_stack([middle, np.ones(len(middle))])
    weights, residual, *_ = np.linalg.lstsq(design, velocity, rcond=None)
    assert residual[0] / (velocity**2).sum() < 1e-4
    assert abs(weights[2]) < 1e-3 * abs(weights[0])
    np.testing.assert_allclose(weights[0], -10 * 6 * 0.001, rtol=0.01)


def test_lorenz_is_given_by_its_seed():
    small = {"num_trials": 6, "num_val": 2, "num_test": 1, "num_time_bins": 10}
    one = Lorenz(**small).load()
    assert one.checksum == Lorenz(**small).load().checksum
    assert one.checksum != Lorenz(**small, seed=1).load().checksum
    assert one.split.tolist() == ["train"] * 3 + ["val"] * 2 + ["test"]
    assert len(one.heldin) == 37


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_val": 200}, "must leave some of the 200 trials"),
        ({"num_heldout": 50}, "num_heldout must be from 0 to 49, got 50"),
        ({"mean_count": 0.0}, "mean_count must be above 0"),
    ],
)
def test_lorenz_refuses_impossible_sizes(options, sentence):
    with pytest.raises(InputError, match=sentence):
        Lorenz(**options)


def test_digits_are_grey_levels_between_zero_and_one():
    recording = Digits().load()
    assert recording.activity.shape == (1797, 1, 64)
    Binary().check(recording.activity)
    assert set(recording.condition) == set(range(10))


def test_sources_are_frozen_members_of_one_family(tmp_path):
    for source in (HDF5(tmp_path), Npz(tmp_path), Lorenz(), Digits(), Arrays(counts(2, 2, 2))):
        assert isinstance(source, RecordingSource)
        with pytest.raises(AttributeError):
            source.path = "b"


def test_naming_a_source_imports_no_heavy_reader():
    code = (
        "import sys, seqvae.data; "
        "print([m for m in ('h5py', 'sklearn', 'scipy', 'matplotlib') if m in sys.modules])"
    )
    before = "import sys, pytorch_lightning; " + code.split("; ", 1)[1]
    runs = [
        subprocess.run([sys.executable, "-c", c], capture_output=True, text=True, check=True)
        for c in (before, code)
    ]
    assert runs[0].stdout == runs[1].stdout


@pytest.mark.parametrize(
    ("name", "kind", "shape", "num_val", "num_heldin"),
    [
        ("mc_maze_large_sub_5ms", Counts(), (129, 100, 162), 27, 162),
        ("mc_maze_large_sub_20ms_cosmooth", Counts(), (129, 25, 162), 27, 122),
        ("rat_motor_taps_20ms", Counts(), (1013, 100, 30), 203, 30),
        ("v1v2_residuals", Real(), (300, 10, 141), 60, 141),
        ("counts_8targets_static", Counts(), (779, 1, 155), 156, 155),
        ("hippocampus_linear_track_50ms", Counts(), (393, 100, 31), 78, 31),
        ("freyfaces", Real(), (1965, 1, 560), 393, 560),
        ("mnist_t10k", Real(), (8000, 1, 784), 1600, 784),
    ],
)
def test_real_recordings_are_read_by_path_alone(
    shared_data, name, kind, shape, num_val, num_heldin
):
    recording = HDF5(shared_data / f"{name}.h5").load()
    kind.check(recording.activity)
    assert recording.activity.shape == shape
    assert (recording.split == "val").sum() == num_val
    heldin = np.arange(shape[2]) if recording.heldin is None else recording.heldin
    assert heldin.tolist() == list(range(num_heldin))
