"""Trials that stand one after another in the rows of one array."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.io
import yaml

from seqvae.config import to_config
from seqvae.data.sources import HDF5, MAT, Npy, Npz
from seqvae.data.sources.concatenated import period_of
from seqvae.data.survey import outlook
from seqvae.errors import InputError

WHOLE = np.random.default_rng(0).normal(size=(30, 8, 5))  # (trial, time, neuron)
RESIDUALS = WHOLE - WHOLE.mean(axis=0)


def write(folder, values=RESIDUALS):
    rows = values.reshape(-1, 5)
    scipy.io.savemat(folder / "a.mat", {"X": rows, "velocity": rows[:, :2], "condition": range(30)})
    return folder / "a.mat"


def test_residuals_tell_their_trials_and_a_warning_says_so(tmp_path):
    path = write(tmp_path)
    view = outlook(MAT(path, bin_width=0.1))
    assert view.plan.trial_bins == 8
    assert view.plan.keys == {"activity": "X", "condition": "condition", "behavior": "velocity"}
    assert any(line.startswith("trial_bins: 8, as every 8th sample") for line in view.guesses)
    recording = view.source.load()
    np.testing.assert_array_equal(recording.read(), RESIDUALS.astype(np.float32))
    np.testing.assert_array_equal(recording.behavior, RESIDUALS[..., :2].astype(np.float32))
    with pytest.warns(UserWarning, match=r"trial_bins 8 \(every 8th sample sums to 0"):
        assert MAT(path, {"activity": "X"}, bin_width=0.1).load().num_trials == 30


def test_the_period_is_the_longest_and_nothing_is_seen_in_other_numbers():
    generator = np.random.default_rng(1)
    assert period_of(RESIDUALS.reshape(-1, 5)) == 8
    assert period_of(RESIDUALS.reshape(-1, 5).astype(np.float32)) == 8
    assert period_of(WHOLE.reshape(-1, 5)) is None
    walk = np.cumsum(generator.normal(size=(240, 5)), axis=0)
    assert period_of(walk - walk.mean(axis=0)) is None
    assert period_of(np.zeros((240, 5))) is None


def test_where_nothing_tells_it_is_said_and_a_setting_cuts_the_rows(tmp_path):
    np.save(tmp_path / "a.npy", WHOLE.reshape(-1, 5))
    view = outlook(Npy(tmp_path / "a.npy", 0.1))
    assert any("one long recording, else give trial_bins" in line for line in view.guesses)
    expected = WHOLE.astype(np.float32)
    with pytest.warns(UserWarning, match="guessed"):
        again = Npy(tmp_path / "a.npy", 0.1, trial_bins=8).load()
    np.testing.assert_array_equal(again.read(), expected)
    np.savez(tmp_path / "a.npz", activity=WHOLE.reshape(-1, 5), bin_width=0.1)
    np.testing.assert_array_equal(Npz(tmp_path / "a.npz", trial_bins=8).load().read(), expected)
    wide = MAT(write(tmp_path), {"activity": "X"}, ["time", "neuron"], 0.2, 0.1, trial_bins=8)
    sums = RESIDUALS.astype(np.float64).reshape(30, 4, 2, 5).sum(axis=2)
    np.testing.assert_allclose(wide.load().read(), sums, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"trial_bins": 7}, "the 240 rows of activity are no whole number of trials of 7"),
        ({"trial_bins": 0}, "must be a whole number of rows above 0, got 0"),
        ({"trial_bins": 8, "dims": ["trial", "neuron"]}, "activity has 240 trials already"),
    ],
)
def test_rows_that_are_no_such_trials_are_refused(settings, sentence, tmp_path):
    with pytest.raises(InputError, match=sentence):
        MAT(write(tmp_path), {"activity": "X"}, **{"dims": ["time", "neuron"]} | settings,
            bin_width=0.1).load()  # fmt: skip


@pytest.mark.parametrize("source", [HDF5, Npz, Npy, MAT])
def test_the_setting_stands_in_no_config_that_does_not_give_it(source):
    assert "trial_bins" not in yaml.safe_dump(to_config(source("a"), key="source"))
