from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from seqvae.crossvalidation.choice import sum_error
from seqvae.crossvalidation.intervals import gap_words, interval


def test_cells_of_a_fold_of_rows_count_as_one():
    difference = np.array([1.0, 2.0, 4.0, -1.0, 0.5, 3.5])
    rows = np.array([0, 0, 1, 1, 2, 2])
    found = interval(difference, rows)
    each = np.array([3.0, 3.0, 4.0])
    of_mean = each.std(ddof=1) * math.sqrt(1 / 3 + 1 / 2)  # Nadeau & Bengio, scored / trained 1/2
    assert found.mean == pytest.approx(10.0)
    assert found.standard_error == pytest.approx(3 * of_mean)
    assert found.degrees_of_freedom == 2
    reach = stats.t(2).ppf(0.975) * found.standard_error
    assert (found.low, found.high) == pytest.approx((10.0 - reach, 10.0 + reach))


def test_order_of_cells_and_names_of_folds_change_nothing():
    difference, rows = np.array([1.0, 2.0, 4.0, -1.0]), np.array([0, 0, 1, 1])
    order = [2, 0, 3, 1]
    assert interval(difference[order], rows[order] * 5 + 3) == interval(difference, rows)


def test_one_fold_of_rows_has_no_ends_and_says_so():
    found = interval(np.array([1.0, 2.0]), np.array([3, 3]))
    assert (found.low, found.high, found.standard_error) == (-math.inf, math.inf, math.inf)
    told = found.in_unit(2.0)
    assert told["mean"] == 1.5
    assert told["low"] is told["high"] is told["standard_error"] is None
    assert "one trial fold cannot tell" in gap_words(told)


def test_words_tell_the_ends():
    told = interval(np.array([1.0, 2.0, 1.5]), np.arange(3)).in_unit(10.0)
    words = gap_words(told)
    assert words.startswith("0.4500, 95 % interval")
    assert f"{told['low']:.4f} to {told['high']:.4f}" in words
    assert "t of 2" in words


def means_against_zero(num_sets, *, folds, num_rows=60, num_columns=4, signal=0.5):
    """Cross-validated gains, (set, fold, column), of predicting columns by their training mean.

    The columns share most of their noise, as neurons share latents. Also what is expected of the
    sum: in each scored row and column, m^2 less the variance of the training mean.
    """
    generator = np.random.default_rng(0)
    shape = (num_sets, folds, num_rows // folds)
    shared = generator.standard_normal((*shape, 1))
    data = signal + math.sqrt(0.8) * shared
    data = data + math.sqrt(0.2) * generator.standard_normal((*shape, num_columns))
    in_fold = data.sum(axis=2)
    num_trained = num_rows - num_rows // folds
    trained = (in_fold.sum(axis=1, keepdims=True) - in_fold) / num_trained
    gain = data**2 - (data - trained[:, :, None]) ** 2
    return gain.sum(axis=2), num_rows * num_columns * (signal**2 - 1 / num_trained)


@pytest.mark.parametrize(("folds", "signal"), [(5, 0.5), (5, 0.1), (2, 0.5), (10, 0.3)])
def test_interval_holds_the_expected_gain_where_the_error_of_cells_does_not(folds, signal):
    gains, expected = means_against_zero(1500, folds=folds, signal=signal)
    rows = np.repeat(np.arange(folds), gains.shape[2])
    held, by_cells = [], []
    for gain in gains:
        found = interval(gain.ravel(), rows)
        held.append(found.low <= expected <= found.high)
        reach = 1.96 * sum_error(gain.reshape(-1, 1))[0]
        by_cells.append(abs(gain.sum() - expected) <= reach)
    assert 0.9 <= np.mean(held) <= 0.995  # beyond it where there is no signal
    assert np.mean(by_cells) < 0.85
