from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqvae.crossvalidation import choose, gabriel_errors
from seqvae.crossvalidation.division import Division
from seqvae.crossvalidation.gabriel import fold_errors
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays
from seqvae.errors import InputError

sizes = st.integers(0, 10_000)


def low_rank(seed, *, rows=40, columns=12, rank=3, noise=0.0):
    generator = np.random.default_rng(seed)
    left, right = generator.normal(size=(rows, rank)), generator.normal(size=(rank, columns))
    return 5.0 + left @ right + noise * generator.normal(size=(rows, columns))


@given(seed=sizes, rank=st.integers(1, 4))
def test_exact_rank_is_predicted_exactly_from_that_rank_on(seed, rank):
    matrix = low_rank(seed, rank=rank)
    errors = gabriel_errors(matrix[:30], matrix[30:], heldout=[0, 5, 11], dims=list(range(8)))
    scale = errors[0]
    assert (np.sqrt(errors[rank:] / scale) < 1e-10).all()
    assert (np.sqrt(errors[:rank] / scale) > 1e-5).all()


def test_the_formula_of_owen_and_perry():
    matrix = low_rank(0, noise=0.5)
    test, train = matrix[:9], matrix[9:]
    heldout, heldin = [1, 4, 7], [0, 2, 3, 5, 6, 8, 9, 10, 11]
    a, b, c, d = (
        test[:, heldout],
        test[:, heldin],
        train[:, heldout] - train[:, heldout].mean(0),
        train[:, heldin] - train[:, heldin].mean(0),
    )
    left, values, right = np.linalg.svd(d, full_matrices=False)
    for k in range(1, 8):
        pseudo = right[:k].T / values[:k] @ left[:, :k].T
        predicted = train[:, heldout].mean(0) + (b - train[:, heldin].mean(0)) @ pseudo @ c
        found = gabriel_errors(train, test, heldout=heldout, dims=[k])
        np.testing.assert_allclose(found, ((a - predicted) ** 2).sum(), rtol=1e-10)


def test_dimension_zero_is_the_mean_of_each_column():
    matrix = low_rank(1, noise=1.0)
    train, test = matrix[:30], matrix[30:]
    found = gabriel_errors(train, test, heldout=[2, 3], dims=[0])
    residual = test[:, [2, 3]] - train[:, [2, 3]].mean(0)
    np.testing.assert_allclose(found, (residual**2).sum(), rtol=1e-12)


@given(seed=sizes)
def test_more_rows_than_memory_needs_or_fewer_rows_than_columns(seed):
    matrix = low_rank(seed, rows=9, columns=14, noise=0.3)
    errors = gabriel_errors(matrix[:6], matrix[6:], heldout=[0, 1], dims=[0, 1, 2, 3])
    assert np.isfinite(errors).all()


def naive_errors(train, test, dims):
    """Errors of held-out rows from their own projections: what bi-cross-validation mends."""
    mean = train.mean(0)
    _, _, right = np.linalg.svd(train - mean, full_matrices=False)
    centred = test - mean
    return [((centred - centred @ right[:k].T @ right[:k]) ** 2).sum() for k in dims]


@given(seed=sizes)
def test_naive_holdout_of_rows_never_gets_worse_with_size(seed):
    matrix = low_rank(seed, noise=1.0)
    errors = naive_errors(matrix[:30], matrix[30:], range(12))
    assert (np.diff(errors) <= 1e-9).all()


def test_bicross_validation_gets_worse_past_the_rank():
    for seed in range(10):
        matrix = low_rank(seed, noise=1.0)
        errors = gabriel_errors(matrix[:30], matrix[30:], heldout=[0, 1, 2], dims=list(range(9)))
        assert errors.argmin() < 8
        assert errors[8] > errors.min()


def test_unequal_noise_does_not_pass_for_structure():
    """A noisy column looks like a component of its own, unless columns are brought to one scale."""
    generator, rows, columns = np.random.default_rng(0), 400, 40
    left = np.linalg.qr(generator.normal(size=(rows, 2)))[0]
    right = np.linalg.qr(generator.normal(size=(columns, 2)))[0]
    noise = np.exp(0.4 * generator.normal(size=columns))
    signal = left @ np.diag([3.0, 2.5]) @ right.T * (rows * columns) ** 0.25
    matrix = signal + generator.normal(size=(rows, columns)) * noise
    assert chosen_rank(divided(matrix)) == 2


def divided(matrix, *, folds=4):
    data = NeuralData(Arrays(matrix[:, None], bin_width=1.0))
    return Division.of(
        data.recording, scheme="gabriel", rows="auto", trial_folds=folds, neuron_folds=4, gap=None,
        seed=0,
    )  # fmt: skip


def chosen_rank(division, *, folds=4, counts=False):
    dims = list(range(6))
    scores = [
        [-one.error for one in fold_errors(division, fold, dim=dim, counts=counts)]
        for dim in dims
        for fold in range(folds)
    ]
    return choose(np.array(scores).reshape(len(dims), -1).T, dims).dim


@pytest.mark.parametrize("rows", [120, 6400])
@pytest.mark.parametrize("unequal", [False, True])
def test_rank_is_found_however_many_rows_there_are(rows, unequal):
    for seed in range(2):
        generator = np.random.default_rng(seed)
        loadings = 0.7 * generator.normal(size=(3, 24))
        noise = np.exp(0.7 * generator.uniform(-1, 1, size=24)) if unequal else 1.0
        values = generator.normal(size=(rows, 3)) @ loadings
        values += noise * generator.normal(size=values.shape)
        assert chosen_rank(divided(values)) == 3


def test_columns_that_repeat_or_do_not_vary_do_not_stop_the_factor_analysis():
    matrix = low_rank(0, rows=80, noise=1.0)
    matrix[:, 3], matrix[:, 7] = matrix[:, 2], 1.5
    with (
        pytest.warns(UserWarning, match="1 of 12 channels never change"),
        pytest.warns(UserWarning, match="identical"),
    ):
        division = divided(matrix)
    for one in fold_errors(division, 0, dim=2):
        assert np.isfinite(one.error)
        assert one.error < one.null


def test_too_many_components_are_refused_with_both_numbers():
    matrix = low_rank(0)
    with pytest.raises(InputError, match=r"10 components .* 9 and 30"):
        gabriel_errors(matrix[:30], matrix[30:], heldout=[0, 1, 2], dims=[1, 10])
