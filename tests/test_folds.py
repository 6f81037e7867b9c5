from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqvae.data.folds import entry_folds, neuron_folds, trial_folds
from seqvae.data.windows import Stretch, autocorrelation_time, block_folds, windows
from seqvae.errors import InputError


@given(
    num=st.integers(2, 60), folds=st.integers(2, 7), kinds=st.integers(1, 5), seed=st.integers(0)
)
def test_trial_folds_are_of_equal_size_and_spread_every_condition(num, folds, kinds, seed):
    if num < folds:
        return
    condition = np.random.default_rng(seed % 2**32).integers(kinds, size=num)
    fold = trial_folds(folds, condition=condition, seed=seed % 1000)
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    for kind in range(kinds):
        spread = np.bincount(fold[condition == kind], minlength=folds)
        assert spread.max() - spread.min() <= 1


@given(num=st.integers(2, 40), folds=st.integers(2, 6), seed=st.integers(0, 1000))
def test_neuron_folds_are_alike_in_rate(num, folds, seed):
    if num < folds:
        return
    mean = np.random.default_rng(seed).exponential(size=num)
    fold = neuron_folds(folds, mean=mean, seed=seed)
    sizes = np.bincount(fold, minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    order = np.argsort(mean)
    for start in range(0, num - folds + 1, folds):  # one of every group of neighbours in each fold
        assert sorted(fold[order[start : start + folds]]) == list(range(folds))


def test_folds_depend_on_the_seed_and_on_nothing_else():
    same = [entry_folds(4, shape=(5, 6, 7), seed=seed) for seed in (0, 0, 1)]
    assert (same[0] == same[1]).all()
    assert (same[0] != same[2]).any()
    assert np.bincount(same[0].ravel()).tolist() == [53, 53, 52, 52]


@given(bins=st.integers(20, 300), folds=st.integers(2, 6), gap=st.integers(0, 5))
def test_blocks_cover_the_recording_once_and_keep_the_gap(bins, folds, gap):
    seen = np.zeros(bins, dtype=int)
    for fold in range(folds):
        train, block = block_folds(bins, folds, fold, gap=gap)
        seen[block.start : block.stop] += 1
        learned = np.concatenate([np.arange(*stretch) for stretch in train])
        distance = np.abs(learned[:, None] - np.arange(*block)).min()
        assert distance == gap + 1
        assert len(learned) + len(np.arange(*block)) >= bins - 2 * gap
    assert (seen == 1).all()


@given(start=st.integers(0, 50), size=st.integers(1, 200), longest=st.integers(1, 60))
def test_windows_cut_a_stretch_into_nearly_equal_parts(start, size, longest):
    cut = windows(Stretch(start, start + size), longest)
    lengths = [stop - begin for begin, stop in cut]
    assert sum(lengths) == size
    assert max(lengths) <= longest
    assert max(lengths) - min(lengths) <= 1
    assert all(one.stop == next_.start for one, next_ in pairwise(cut))


@pytest.mark.parametrize("memory", [0.0, 0.5, 0.9])
def test_autocorrelation_time_of_an_autoregression_is_that_of_theory(memory):
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(40, 1000, 5))
    series = noise.copy()
    for t in range(1, 1000):
        series[:, t] = memory * series[:, t - 1] + np.sqrt(1 - memory**2) * noise[:, t]
    series[:, 0] = np.nan  # missing entries are left out
    series[..., 4] = 3.0  # and so is a channel without variance
    assert autocorrelation_time(series) == pytest.approx((1 + memory) / (1 - memory), rel=0.1)


def test_an_oscillation_remembers_as_long_as_it_lasts():
    """A damped rotation has rho_k = r^k cos(k angle), whose absolute values are summed.

    What has memory also has errors with memory: some lags past the end count, too.
    """
    generator = np.random.default_rng(0)
    radius, angle = 0.95, 0.6
    noise = generator.normal(size=(40, 1200)) + 1j * generator.normal(size=(40, 1200))
    series = noise.copy()
    for t in range(1, 1200):
        series[:, t] = radius * np.exp(1j * angle) * series[:, t - 1] + noise[:, t]
    lags = np.arange(1, 200)
    expected = 1 + 2 * np.abs(radius**lags * np.cos(angle * lags)).sum()
    found = autocorrelation_time(series.real[:, 200:, None])
    assert 0.9 * expected < found < 1.5 * expected


def test_data_without_time_have_no_memory():
    assert autocorrelation_time(np.random.default_rng(0).normal(size=(50, 1, 3))) == 1.0


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: trial_folds(1, condition=np.zeros(4), seed=0), "trial_folds must be at least 2"),
        (lambda: trial_folds(5, condition=np.zeros(4), seed=0), "5 folds of 4 trials"),
        (lambda: neuron_folds(5, mean=np.ones(4), seed=0), "5 folds of 4 neurons"),
        (lambda: block_folds(20, 2, 0, gap=10), "leave nothing of 20 bins"),
    ],
)
def test_folds_that_cannot_be_are_refused(call, sentence):
    with pytest.raises(InputError, match=sentence):
        call()
