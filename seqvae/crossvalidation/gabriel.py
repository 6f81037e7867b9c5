"""Bi-cross-validation of a matrix: rows and columns are held out at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from seqvae.crossvalidation.division import Division
from seqvae.distributions.kinds.real import LEAST_VARIATION
from seqvae.errors import InputError
from seqvae.models import FactorAnalysis

ROWS_A_COLUMN = 2
LEAST_NOISE = 1e-3
"""Of a column, of its standard deviation."""

TOLERANCE = 0.1
"""Of the factor analysis: units are good enough long before it has converged."""


def gabriel_errors(
    train: Float[np.ndarray, "train_row column"],
    test: Float[np.ndarray, "test_row column"],
    *,
    heldout: list[int],
    dims: list[int],
) -> Float[np.ndarray, " dim"]:
    """Return the squared error of the held-out block for each number of components.

    With X = [A B; C D], rows A B held out and columns A C held out, D = U S V' centred and cut to
    its k leading singular values is all that the factorisation knows; A is predicted from the
    rest of its row and of its column [Gabriel 2002; Owen & Perry 2009, Ann. Appl. Stat. 3:564]:

        A_hat = mean_C + (B - mean_D) D_k^+ (C - mean_C),    means over the training rows.

    k = 0 is the mean of each column. Singular values that are zero to rounding have inverse zero,
    so a matrix of exact rank r is predicted exactly by every k >= r.

    Args:
        train: rows [C D].
        test: rows [A B].
        heldout: the columns of A and C.
        dims: the k to try.

    Raises:
        InputError: if a k exceeds the rank that D can have.
    """
    heldin = np.setdiff1d(np.arange(train.shape[1]), heldout)
    most = min(len(train) - 1, len(heldin))
    if max(dims) > most:
        raise InputError(
            f"dims: {max(dims)} components need as many held-in neurons and training rows, but "
            f"there are {len(heldin)} and {len(train)}; lower it"
        )
    mean = train.mean(axis=0, dtype=np.float64)
    inner, outer = train[:, heldin] - mean[heldin], train[:, heldout] - mean[heldout]
    # R of [D C]: D^+ C is that of its two blocks, which are small however many rows there are
    triangle = np.asarray(np.linalg.qr(np.hstack([inner, outer]), mode="r"))[: len(heldin)]
    left, values, right = np.linalg.svd(triangle[:, : len(heldin)], full_matrices=False)
    is_nonzero = values > values[0] * max(inner.shape) * np.finfo(np.float64).eps
    inverse = np.where(is_nonzero, 1.0 / np.where(is_nonzero, values, 1.0), 0.0)
    onto = inverse[:, None] * (left.T @ triangle[:, len(heldin) :])
    scores = (test[:, heldin] - mean[heldin]) @ right.T
    residual = test[:, heldout] - mean[heldout]
    errors = {0: float((residual**2).sum())}
    for k in range(1, max(dims) + 1):
        residual = residual - scores[:, [k - 1]] * onto[k - 1]
        errors[k] = float((residual**2).sum())
    return np.array([errors[k] for k in dims])


class FoldError(NamedTuple):
    """Squared error of a held-out block, that of the mean, and the block's number of entries."""

    error: float
    null: float
    entries: int


def fold_errors(
    division: Division, trial_fold: int, *, dim: int, counts: bool = False
) -> list[FoldError]:
    """Return the squared error of a number of components on a trial fold, by fold of columns.

    Rows are time bins, and errors are in units of each column's standard deviation in training.
    Components are found where columns have equal noise, else a neuron of much noise passes for one:
    counts are taken by their square root, whose variance does not grow with the rate, and real
    values in units of the noise that factor analysis of as many factors leaves them [Owen & Wang
    2016, Stat. Sci. 31:119], whose whitened columns have no component beyond the true ones however
    many rows there are. With fewer than twice as many rows as columns, which do not tell noise from
    signal, units are the standard deviations.

    Args:
        division: of the recording.
        trial_fold: rows held out.
        dim: number of components.
        counts: whether to take square roots.

    Raises:
        InputError: if entries are missing.
    """
    train = _rows(division.train(trial_fold).read(), counts)
    test = _rows(division.test(trial_fold).read(), counts)
    std = train.std(axis=0)
    varies = std > LEAST_VARIATION * np.abs(train.mean(axis=0))
    unit = np.where(varies, std, 1.0 if counts else np.inf)
    train, test, noise = train / unit, test / unit, np.ones(len(unit))
    if dim and not counts and len(train) >= ROWS_A_COLUMN * varies.sum():
        noise[varies] = _noise(train[:, varies], dim)
    blocks = []
    for fold in range(division.num_neuron_folds):
        heldin = list(division.heldin(fold))
        scale = np.ones(len(unit))
        scale[heldin] = noise[heldin]
        heldout = np.setdiff1d(np.arange(len(unit)), heldin)
        if not counts:  # a column that does not vary tells nothing, and is not asked for
            heldout = heldout[varies[heldout]]
        errors = gabriel_errors(
            train / scale, test / scale, heldout=heldout.tolist(), dims=[0, dim]
        )
        blocks.append(FoldError(float(errors[1]), float(errors[0]), len(test) * len(heldout)))
    return blocks


def _noise(rows: Float[np.ndarray, "row column"], dim: int) -> Float[np.ndarray, " column"]:
    """Return the standard deviation that factor analysis leaves to columns of unit variance."""
    correlation = np.cov(rows.T) + LEAST_NOISE**2 * np.eye(rows.shape[1])
    size = min(dim, rows.shape[1])
    loadings = FactorAnalysis.factorize(correlation, size, tolerance=TOLERANCE)
    return np.sqrt(loadings.noise.clip(min=LEAST_NOISE**2))


def _rows(
    activity: Float[np.ndarray, "trial time neuron"], counts: bool
) -> Float[np.ndarray, "row column"]:
    rows = activity.reshape(-1, activity.shape[2]).astype(np.float64)
    rows = rows[np.isfinite(rows).any(axis=1)]  # padding is no row
    if not np.isfinite(rows).all():
        raise InputError(
            "activity has missing entries, which scheme 'gabriel' cannot take; use scheme "
            "'speckled' or 'fold_in'"
        )
    return np.sqrt(rows) if counts else rows
