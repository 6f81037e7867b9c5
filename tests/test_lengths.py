"""Bins after the end of a trial: lengths say where it is, and silence is told."""

import warnings

import h5py
import numpy as np
import pytest

from seqvae import check
from seqvae.data import NeuralData, Recording
from seqvae.data.padding import warn_of_silent_ends
from seqvae.data.sources import HDF5, Arrays, Npz
from seqvae.errors import InputError


def test_sparse_data_raise_no_alarm_of_silent_ends():
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(200):
            rate = rng.uniform(0.002, 0.1) * np.exp(rng.normal(size=(30, 40, 1)))
            warn_of_silent_ends(rng.poisson(rate, (30, 40, 8)).astype(np.float32))


def test_trials_padded_with_zeros_are_told():
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.5, (30, 40, 8)).astype(np.float32)
    lengths = rng.integers(15, 35, 30)
    counts[np.arange(40) >= lengths[:, None]] = 0
    with pytest.warns(UserWarning, match="end in silence.*give the bins of each trial as lengths"):
        Recording(counts, 0.02)
    assert Arrays(counts, 0.02, lengths=lengths).load().lengths.tolist() == lengths.tolist()


@pytest.mark.parametrize("lengths", [[3], [0, 3], [3, 9], [1.5, 2], ["a", "b"], [True, True]])
def test_lengths_that_no_trial_can_have_are_refused(lengths):
    with pytest.raises(InputError, match=r"lengths.*(give|must hold)"):
        Arrays(np.ones((2, 4, 2)), lengths=lengths).load()


def test_heldout_neurons_come_in_any_container():
    counts = np.random.default_rng(0).poisson(2.0, (9, 8, 5))
    for heldout in ([1, 3], np.array([1, 3]), (3, 1), np.ma.masked_array([1, 3])):
        data = NeuralData(counts, heldout=heldout)
        assert data.spec.heldin == (0, 2, 4)
        assert isinstance(data.heldout, list)
    with pytest.raises(InputError, match=r"np\.flatnonzero"):
        NeuralData(counts, heldout=np.array([False, True, False, True, False]))


@pytest.mark.parametrize(
    "setting",
    [
        {"val_fraction": "a"},
        {"seed": "a"},
        {"split_seed": 1.5},
        {"heldout": "x"},
        {"forecast_bins": "a"},
        {"speckled_fraction": None},
    ],
)
def test_settings_of_another_type_are_refused_by_name(setting):
    (name,) = setting
    with pytest.raises(InputError, match=f"{name} must be"):
        NeuralData.__init__.__wrapped__(
            NeuralData.__new__(NeuralData), np.ones((9, 8, 5)), **setting
        )


def test_check_counts_padding_as_no_missing_entry():
    trials = [np.ones((5, 2)), np.ones((3, 2))]
    trials[0][2, 1] = np.nan
    data = NeuralData(trials, val_fraction=0.0)
    assert check(data)["missing entries"] == 1


@pytest.mark.parametrize("write", ["npz", "h5"])
@pytest.mark.parametrize("is_flat", [True, False])
def test_lengths_of_a_file_cut_off_its_padding(tmp_path, write, is_flat):
    counts = np.random.default_rng(0).poisson(2.0, (6, 8, 4)).astype(float)
    ends = np.array([8, 3, 5, 8, 6, 7])
    padded = np.where((np.arange(8) < ends[:, None])[..., None], counts, 0.0)
    entries = {"activity": padded, "lengths": ends, "bin_width": 0.02}
    if not is_flat:
        entries = {
            "train_encod_data": padded[:4], "train_recon_data": padded[:4],
            "train_length": ends[:4], "valid_encod_data": padded[4:],
            "valid_recon_data": padded[4:], "valid_length": ends[4:], "bin_width_s": 0.02,
        }  # fmt: skip
    path = tmp_path / f"a.{write}"
    if write == "npz":
        np.savez(path, **entries)
    else:
        with h5py.File(path, "w") as file:
            for name, value in entries.items():
                file[name] = value
    recording = NeuralData(path).recording
    assert recording.lengths.tolist() == ends.tolist()
    assert np.nansum(recording.activity) == padded.sum()
    keys = {"lengths": "lengths" if is_flat else "{split}_length"}
    keyed = NeuralData((HDF5 if write == "h5" else Npz)(path, keys=keys)).recording
    np.testing.assert_array_equal(keyed.activity, recording.activity)


def test_file_without_a_known_name_is_told_of_all_splits(tmp_path):
    np.savez(tmp_path / "a.npz", train_data=np.ones((2, 3, 4)), valid_data=np.ones((2, 3, 4)))
    told = r"it holds 'train_data'.* --data.source.keys \"\{activity: '\{split\}_data'\}\", or"
    with pytest.raises(InputError, match=told):
        Npz(tmp_path / "a.npz").load()
    np.savez(tmp_path / "b.npz", spikes=np.ones((2, 3, 4)))
    with pytest.raises(InputError, match=r"no entry 'activity'.* it holds 'spikes'"):
        Npz(tmp_path / "b.npz").load()


def test_data_print_their_sizes():
    data = NeuralData(np.random.default_rng(0).poisson(2.0, (10, 8, 5)), heldout=[1])
    assert repr(data) == str(data) == "NeuralData(Arrays, not loaded yet)"
    data.setup()
    assert (
        repr(data)
        == "NeuralData(Recording(10 trials, 8 bins, 5 neurons); 8 train, 2 val; 1 held out)"
    )
