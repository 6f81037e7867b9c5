from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from seqvae.crossvalidation.choice import allowed_loss, choose
from seqvae.errors import InputError

# five cells that differ much in difficulty, and hardly in what a dimension gains
DIFFICULTY = np.array([0.0, 10.0, -20.0, 30.0, -15.0])
GAIN = {0: 0.0, 1: 5.0, 2: 9.0, 3: 9.5, 4: 9.4}
NOISE = np.array([0.3, -0.2, 0.1, 0.4, -0.5])


def table(**noise):
    columns = [DIFFICULTY + gain for gain in GAIN.values()]
    scores = np.stack(columns, axis=1)
    for dim, size in noise.items():
        scores[:, int(dim[1:])] += size * NOISE
    return scores


def test_min_takes_the_highest_sum():
    assert choose(table(), list(GAIN), rule="min").dim == 3


def test_paired_error_is_that_of_the_difference_and_not_of_the_score():
    scores = table(d2=1.0)
    choice = choose(scores, list(GAIN))
    difference = scores[:, 3] - scores[:, 2]
    error = math.sqrt(5 / 4 * ((difference - difference.mean()) ** 2).sum())
    assert choice.winner == 3
    assert choice.loss[2] == pytest.approx(difference.sum())
    assert choice.loss_se[2] == pytest.approx(error)
    # its variance is that of a sum of 5 independent cells
    assert error == pytest.approx(math.sqrt(5) * difference.std(ddof=1))


def test_paired_rule_takes_a_smaller_dimension_within_the_error_only():
    certain = choose(table(d2=0.01), list(GAIN))  # loses 2.5 for sure
    unsure = choose(table(d2=10.0), list(GAIN))
    assert certain.dim == 3
    assert unsure.dim == 2


def test_classical_rule_goes_by_the_spread_of_the_winner_and_chooses_too_small():
    spread = math.sqrt(5) * DIFFICULTY.std(ddof=1)
    scores = table(d2=0.01)
    choice = choose(scores, list(GAIN), rule="1se")
    total = scores.sum(axis=0)
    expected = next(dim for dim in GAIN if total[3] - total[dim] <= spread)
    assert choice.dim == expected < 3


def test_share_goes_by_what_the_winner_gains_over_the_smallest():
    gains = np.array([0.0, 80.0, 98.9, 99.1, 100.0])
    scores = DIFFICULTY[:, None] + gains  # without any doubt about differences
    assert choose(scores, list(GAIN), rule="within_1pct").dim == 3
    assert choose(scores[:1], list(GAIN), rule="within_1pct").dim == 3
    nothing = choose(-scores, list(GAIN), rule="within_1pct")
    assert (nothing.dim, nothing.winner) == (0, 0)
    with pytest.warns(UserWarning, match="largest of the grid"):
        assert choose(scores, list(GAIN)).dim == 4


def test_fewer_trials_enlarge_the_errors_and_not_the_share():
    scores = table(d2=1.0)
    for rule, factor in {"paired_1se": 2.0, "1se": 2.0, "within_1pct": 1.0, "min": 1.0}.items():
        once, twice = (allowed_loss(scores, 3, rule, error_scale=scale) for scale in (1.0, 2.0))
        np.testing.assert_allclose(twice, factor * once)
    share = allowed_loss(scores, 3, "within_1pct")
    np.testing.assert_allclose(share, 0.01 * 5 * (GAIN[3] - GAIN[0]))


def test_ties_go_to_the_smaller():
    scores = np.tile(np.array([0.0, 1.0, 1.0, 0.5]), (4, 1))
    assert choose(scores, [0, 2, 4, 6]).dim == 2
    assert choose(scores[:, [0, 2, 1, 3]], [0, 4, 2, 6], rule="min").dim == 2


def test_order_of_columns_and_cells_changes_nothing():
    scores = table(d1=2.0, d2=1.0)
    columns, cells = [3, 0, 4, 2, 1], [2, 4, 0, 1, 3]
    one, other = choose(scores[cells][:, columns], columns), choose(scores, list(GAIN))
    assert (one.dim, one.dims) == (other.dim, other.dims)
    assert one.loss_se == pytest.approx(other.loss_se)


def test_a_constant_of_each_cell_changes_nothing():
    scores = table(d2=1.0)
    shifted = choose(scores + 100 * NOISE[:, None], list(GAIN))
    assert shifted.dim == choose(scores, list(GAIN)).dim
    assert shifted.loss_se == pytest.approx(choose(scores, list(GAIN)).loss_se)


def test_a_failed_cell_drops_its_dimension_with_a_warning():
    scores = table()
    scores[2, 3] = np.nan
    with pytest.warns(UserWarning, match="plds: dimension 3 has failed cells"):
        choice = choose(scores[:, :4], list(GAIN)[:4], rule="1se", name="plds")
    assert choice.dropped == (3,)
    assert 3 not in choice.dims


def test_choice_at_the_edge_of_the_grid_warns():
    with pytest.warns(UserWarning, match="largest of the grid"):
        choose(table()[:, :4], list(GAIN)[:4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose(table(), list(GAIN))


def test_one_cell_has_no_error():
    choice = choose(np.array([[0.0, 1.0, 0.9]]), [0, 1, 2])
    assert (choice.dim, choice.loss_se) == (1, (0.0, 0.0, 0.0))


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(InputError, match="no dimension has a score in every cell"):
        choose(np.full((2, 2), np.nan), [0, 1])
