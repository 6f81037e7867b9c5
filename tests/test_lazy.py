"""Activity that is read when asked for is the same as activity in memory."""

from __future__ import annotations

import warnings
from functools import partial

import numpy as np
import pytest
import torch

import seqvae.data.lazy
import seqvae.data.sizes
from seqvae import EM, InputError, LinearDynamics, NeuralData, evaluate, fit, infer
from seqvae.data import Recording
from seqvae.data.lazy import LazyActivity
from seqvae.data.transforms import align, rebin, select_neurons, zscore


def counts(num_trials=1, num_bins=900, num_neurons=6, seed=0) -> np.ndarray:
    rates = np.linspace(0.2, 1.5, num_neurons)
    slow = np.exp(np.sin(np.arange(num_bins) / 15))[:, None]
    return np.random.default_rng(seed).poisson(slow * rates, (num_trials, num_bins, num_neurons))


@pytest.fixture(params=[1, 4], ids=["one long trial", "trials"])
def both(request, monkeypatch) -> tuple[Recording, Recording]:
    values = counts(request.param, 400).astype(np.uint8)
    beside = {"behavior": np.random.default_rng(1).normal(size=(*values.shape[:2], 2))}
    whole = Recording(values, 0.01, **beside)
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 100)
    lazy = Recording(values, 0.01, **beside)
    monkeypatch.undo()
    assert isinstance(lazy.activity, LazyActivity)
    assert not isinstance(whole.activity, LazyActivity)
    return whole, lazy


def assert_same(one: Recording, other: Recording) -> None:
    assert one.checksum == other.checksum
    np.testing.assert_array_equal(one.read(), other.read())
    assert one.lengths.tolist() == other.lengths.tolist()


def test_a_lazy_recording_equals_one_in_memory(both):
    whole, lazy = both
    assert_same(whole, lazy)
    assert_same(rebin(whole, 0.04), rebin(lazy, 0.04))
    assert rebin(lazy, 0.04).activity._rows.dtype == np.uint8
    assert_same(whole.arrange(np.array([5, 0, 1, 2, 4, 3])),
                lazy.arrange(np.array([5, 0, 1, 2, 4, 3])))  # fmt: skip
    assert_same(select_neurons(whole, min_rate=80.0), select_neurons(lazy, min_rate=80.0))
    assert_same(zscore(whole), zscore(lazy))
    events = [[0.5, 3.0, 3.95]] if whole.num_trials == 1 else [[0.5, -0.05, 3.95, 2.0]]
    assert_same(align(whole, events[0], (-0.1, 0.2)), align(lazy, events[0], (-0.1, 0.2)))
    last = whole.num_trials - 1
    assert isinstance(lazy.select([last, 0]).activity, LazyActivity)
    assert_same(whole.select([last, 0]), lazy.select([last, 0]))
    assert_same(whole.cut([(0, 40), (30, 55)]), lazy.cut([(0, 40), (30, 55)]))


def test_batches_are_read_and_equal(both):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the gap beside short blocks
        one, other = (NeuralData(r, val_fraction=0.3, heldout=[1, 2]) for r in both)
        one.setup()
        other.setup()
    assert (one.split == other.split).all()
    assert isinstance(other.recording.activity, LazyActivity)
    for left, right in zip(one.batches("all", 3), other.batches("all", 3), strict=True):
        for name in ("observed", "observed_mask", "target", "weight", "inputs", "lengths", "trial"):
            assert torch.equal(getattr(left, name), getattr(right, name))
    assert torch.equal(one.train_mean, other.train_mean)


def test_a_fit_does_not_know_whether_its_data_lie_in_memory(both):
    whole, lazy = both
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = [
            fit(NeuralData(r, val_fraction=0.3), partial(LinearDynamics, latent_dim=1),
                EM(max_iterations=2), in_memory=True)
            for r in both
        ]  # fmt: skip
    assert infer(runs[0]).equals(infer(runs[1]))
    assert infer(runs[0], lazy).equals(infer(runs[0], whole))


def test_baselines_of_what_is_large_are_learned_on_a_part_and_it_is_told(both, monkeypatch):
    _, lazy = both
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = fit(NeuralData(lazy, val_fraction=0.3), partial(LinearDynamics, latent_dim=1),
                  EM(max_iterations=1), in_memory=True)  # fmt: skip
    monkeypatch.setattr(seqvae.data.sizes, "HELD", 800)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        scores = evaluate(run)
    sentences = [str(warning.message) for warning in told]
    assert any(
        s.startswith("train: ") and "are learned from, evenly spread" in s for s in sentences
    )
    assert set(scores["baselines"]) == {"mean_rate", "smoothing_glm"}


def test_missing_bins_stay_missing_in_wider_ones(monkeypatch):
    values = counts()[0]
    observed = np.ones((1, 900), dtype=bool)
    observed[0, 100:131] = observed[0, 890:] = False
    lazy = Recording(LazyActivity(values[None].astype(np.uint16), observed=observed), 0.01)
    missing = values[None].astype(float)
    missing[~observed] = np.nan
    assert_same(Recording(missing, 0.01), lazy)
    assert lazy.lengths.tolist() == [890]
    assert_same(rebin(Recording(missing, 0.01), 0.03), rebin(lazy, 0.03))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int8, np.int16])
def test_wide_counts_take_the_type_that_holds_them(dtype):
    values = np.full((1, 60, 2), 100, dtype=dtype)
    values[0, 0, 0] = 0
    values[0, 1, 1] = 0
    lazy = LazyActivity(values)
    wide = seqvae.data.lazy.joined(lazy, 10, counts=True)
    assert wide._rows.dtype == np.uint16
    assert wide[0].max() == 1000


def test_what_is_wrong_with_lazy_counts_is_told_as_of_others(monkeypatch):
    monkeypatch.setattr(seqvae.data.sizes, "LARGE", 100)
    values = counts().astype(np.uint8)
    with pytest.raises(InputError, match="the recording is silent"):
        Recording(0 * values, 0.01)
    twins = values.copy()
    twins[..., 4] = twins[..., 1]
    with pytest.warns(UserWarning, match="neurons 1 and 4 are identical"):
        Recording(twins, 0.01)
    silent = values.copy()
    silent[..., 2] = 0
    with pytest.warns(UserWarning, match="1 of 6 neurons are silent, the first is neuron 2"):
        Recording(silent, 0.01)
    rows = LazyActivity(values, observed=np.zeros((1, 900), dtype=bool))
    with pytest.raises(InputError, match=r"activity\[0\] is missing"):
        Recording(rows, 0.01)
