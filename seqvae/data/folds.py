"""Folds for cross-validation: pure index arithmetic over trials, bins, neurons and entries."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from seqvae.errors import InputError

PATIENCE = 10


class Stretch(NamedTuple):
    """A contiguous piece of one long recording: bins from ``start`` to before ``stop``."""

    start: int
    stop: int


def trial_folds(
    num_folds: int, *, condition: Shaped[np.ndarray, " trial"], seed: int
) -> Int[np.ndarray, " trial"]:
    """Return the fold of each trial: folds of equal size, every condition spread over all.

    The shuffled trials, one condition after the other, are dealt out in turn.

    Args:
        num_folds: folds.
        condition: condition of each trial; all equal if there is none.
        seed: of the shuffle.

    Raises:
        InputError: if there are fewer trials than folds, or fewer than two folds.
    """
    _check(num_folds, len(condition), field="trial_folds", what="trials")
    return _dealt(condition, num_folds, seed=[seed, 0])


def neuron_folds(
    num_folds: int, *, mean: Float[np.ndarray, " neuron"], seed: int
) -> Int[np.ndarray, " neuron"]:
    """Return the fold of each neuron: folds of equal size and alike in firing rate.

    The neurons, sorted by mean activity, are cut into groups of ``num_folds`` neighbours, and each
    group is spread over all folds at random.

    Args:
        num_folds: folds.
        mean: mean activity of each neuron.
        seed: of the shuffle.

    Raises:
        InputError: if there are fewer neurons than folds, or fewer than two folds.
    """
    _check(num_folds, len(mean), field="neuron_folds", what="neurons")
    generator = np.random.default_rng([seed, 1])
    order = np.argsort(mean, kind="stable")
    fold = np.empty(len(mean), dtype=np.int64)
    for start in range(0, len(mean), num_folds):
        group = order[start : start + num_folds]
        fold[group] = generator.permutation(num_folds)[: len(group)]
    return fold


def entry_folds(
    num_folds: int, *, shape: tuple[int, int, int], seed: int
) -> Int[np.ndarray, "trial time neuron"]:
    """Return the fold of each entry (speckled hold-out, Wold 1978): an even share, at random.

    Raises:
        InputError: if there are fewer entries than folds, or fewer than two folds.
    """
    size = int(np.prod(shape))
    _check(num_folds, size, field="trial_folds", what="entries")
    shuffled = np.random.default_rng([seed, 2]).permutation(size)
    return (shuffled % num_folds).reshape(shape)


def block_folds(
    num_bins: int, num_folds: int, fold: int, *, gap: int
) -> tuple[list[Stretch], Stretch]:
    """Return what is left for training, and the block of a fold, of one long recording.

    The recording is cut into ``num_folds`` blocks of equal length. Training leaves ``gap`` bins
    free on either side of the block, so that what is scored is not next to what was learned.

    Raises:
        InputError: if blocks would be empty, or the gap leaves nothing to learn from.
    """
    _check(num_folds, num_bins, field="trial_folds", what="bins")
    edges = np.linspace(0, num_bins, num_folds + 1).round().astype(int)
    block = Stretch(int(edges[fold]), int(edges[fold + 1]))
    around = [Stretch(0, block.start - gap), Stretch(block.stop + gap, num_bins)]
    train = [stretch for stretch in around if stretch.stop > stretch.start]
    if not train:
        raise InputError(
            f"gap: {gap} bins on either side of a block leave nothing of {num_bins} bins to learn "
            "from; lower it"
        )
    return train, block


def windows(stretch: Stretch, longest: int) -> list[Stretch]:
    """Cut a stretch into windows of nearly equal length, none above ``longest``."""
    number = -(-(stretch.stop - stretch.start) // longest)
    edges = np.linspace(stretch.start, stretch.stop, number + 1).round().astype(int).tolist()
    return [Stretch(start, stop) for start, stop in pairwise(edges)]


def autocorrelation_time(activity: Float[np.ndarray, "trial time neuron"]) -> float:
    """Return how many bins the activity takes to forget itself, the median over neurons.

    tau = 1 + 2 sum_k |rho_k| over the lags whose autocorrelation rho exceeds twice its standard
    error without memory, until ten lags in a row have none; 1 for white noise, and for an
    oscillation as long as it lasts. Missing entries are left out, trials are not joined.
    """
    present = np.isfinite(activity)
    count = present.sum((0, 1))
    mean = np.where(present, activity, 0.0).sum((0, 1)) / np.maximum(count, 1)
    deviation = np.where(present, activity - mean, 0.0)
    variance = (deviation**2).sum((0, 1)) / np.maximum(count, 1)
    varies = variance > 0
    if not varies.any() or activity.shape[1] < 2:
        return 1.0
    time, silence = np.ones(activity.shape[2]), np.where(varies, 0, PATIENCE)
    for lag in range(1, activity.shape[1]):
        pairs = np.maximum((present[:, lag:] & present[:, :-lag]).sum((0, 1)), 1)
        product = (deviation[:, lag:] * deviation[:, :-lag]).sum((0, 1))
        rho = np.abs(product / pairs / np.where(varies, variance, 1.0))
        tells = (rho > 2 / np.sqrt(pairs)) & (silence < PATIENCE)
        silence = np.where(tells, 0, np.minimum(silence + 1, PATIENCE))
        if (silence == PATIENCE).all():
            break
        time += np.where(tells, 2 * rho, 0.0)
    return float(np.median(time[varies]))


def _dealt(
    labels: Shaped[np.ndarray, " item"], num_folds: int, *, seed: list[int]
) -> Int[np.ndarray, " item"]:
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(labels))
    _, stratum = np.unique(labels, return_inverse=True)
    order = shuffled[np.argsort(stratum[shuffled], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = np.arange(len(labels)) % num_folds
    return fold


def _check(num_folds: int, num_items: int, *, field: str, what: str) -> None:
    if num_folds < 2:
        raise InputError(f"{field} must be at least 2, got {num_folds}")
    if num_items < num_folds:
        raise InputError(f"{field}: {num_folds} folds of {num_items} {what} leave some empty")
