"""Fractions of the training trials of a cross-validation, each learned from for itself."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from seqvae.crossvalidation.division import Division
from seqvae.errors import InputError

LEAST_TRIALS = 4
EXAMPLE = "e.g. [0.25, 0.5, 1]"


def checked_fractions(subsample: Sequence[float] | None) -> list[float]:
    """Return the fractions that are learned from, ascending, the whole last; None: the whole only.

    Raises:
        InputError: for what is no fraction, is not ascending, or leaves nothing to compare.
    """
    if subsample is None:
        return [1.0]
    for fraction in subsample:
        is_number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
        if not is_number or not 0 < fraction <= 1:
            raise InputError(f"subsample must hold fractions above 0 up to 1, got {fraction!r}")
    fractions = [float(fraction) for fraction in subsample]
    for smaller, larger in pairwise(fractions):
        if smaller == larger:
            raise InputError(f"subsample holds {larger:g} twice; give each fraction once")
        if smaller > larger:
            raise InputError(
                f"subsample must ascend, but {larger:g} follows {smaller:g}; sort it, {EXAMPLE}"
            )
    if not fractions or fractions[-1] != 1:
        raise InputError(f"subsample must end with 1, all trials, {EXAMPLE}; got {fractions}")
    if len(fractions) < 3:
        raise InputError(
            f"subsample: a curve needs at least three fractions, {EXAMPLE}; got {fractions}"
        )
    return fractions


def subsampled(division: Division, fractions: Sequence[float]) -> list[Division]:
    """Return the division for each fraction of its training trials.

    Raises:
        InputError: where rows are no trials, or a fraction leaves too few of them.
    """
    if len(fractions) == 1:
        return [division]
    if division.scheme == "speckled" or division.rows != "trials":
        what = "speckled entries" if division.scheme == "speckled" else f"rows {division.rows!r}"
        raise InputError(
            f"subsample takes whole trials, not {what}; use rows='trials' with scheme 'fold_in' or "
            "'gabriel', or leave subsample out"
        )
    divisions = [division.with_fraction(fraction) for fraction in fractions]
    numbers = [one.num_training_trials for one in divisions]
    if numbers[0] < LEAST_TRIALS:
        least = LEAST_TRIALS / numbers[-1]
        cure = (
            f"the least is {least:.2g}" if least < 0.5 else "there are too few trials to subsample"
        )
        raise InputError(
            f"subsample: {fractions[0]:g} of the {numbers[-1]} trials that a fold is learned from "
            f"is {numbers[0]}, and a model needs {LEAST_TRIALS}; {cure}"
        )
    for (one, other), (few, more) in zip(pairwise(fractions), pairwise(numbers), strict=True):
        if few == more:
            raise InputError(
                f"subsample: {one:g} and {other:g} of {numbers[-1]} trials are both {few}; give "
                "fractions that are further apart"
            )
    return divisions
