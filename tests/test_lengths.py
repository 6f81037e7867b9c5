"""Bins after the end of a trial: lengths say where it is, and silence is told."""

import warnings

import numpy as np
import pytest

from seqvae.data import NeuralData, Recording
from seqvae.data.padding import warn_of_silent_ends
from seqvae.data.sources import Arrays
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
