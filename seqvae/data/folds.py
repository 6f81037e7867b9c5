"""Folds for cross-validation: pure index arithmetic over trials, neurons and entries."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped

from seqvae.errors import InputError


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
    check_folds(num_folds, len(condition), field="trial_folds", what="trials")
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
    check_folds(num_folds, len(mean), field="neuron_folds", what="neurons")
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
    check_folds(num_folds, size, field="trial_folds", what="entries")
    shuffled = np.random.default_rng([seed, 2]).permutation(size)
    return (shuffled % num_folds).reshape(shape)


def subsample(
    fraction: float, *, condition: Shaped[np.ndarray, " trial"], seed: list[int]
) -> Int[np.ndarray, " chosen"]:
    """Return a fraction of the trials, at random, every condition by its share, in their order.

    A smaller fraction is part of a larger one: each trial has a place in the order of its
    condition, and those of the earliest relative places are taken.

    Args:
        fraction: of the trials, rounded.
        condition: condition of each trial; all equal if there is none.
        seed: of the order.
    """
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(len(condition))
    place = np.empty(len(condition))
    for value in np.unique(condition):
        members = shuffled[condition[shuffled] == value]
        place[members] = (np.arange(len(members)) + generator.random()) / len(members)
    number = round(fraction * len(condition))
    return np.sort(np.argsort(place, kind="stable")[:number])


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


def check_folds(num_folds: int, num_items: int, *, field: str, what: str) -> None:
    """Refuse fewer than two folds, and more than there are items."""
    if num_folds < 2:
        raise InputError(f"{field} must be at least 2, got {num_folds}")
    if num_items < num_folds:
        raise InputError(f"{field}: {num_folds} folds of {num_items} {what} leave some empty")
