"""Activity as it is written to a file: counts in the smallest type, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from seqvae.data.lazy import LazyActivity, missing_count

MISSING = "activity_missing_value"
"""Entry beside counts that tells which number stands for what is missing."""
_AT_ONCE = 4_000_000
_EXACT = 2**24  # single precision holds all whole numbers up to here


@dataclass(frozen=True)
class Stored:
    """How activity is written.

    Attributes:
        activity: (trial, time, neuron).
        dtype: of the numbers in the file.
        missing: the number that stands for NaN; None: NaN itself, or nothing is missing.
    """

    activity: Any
    dtype: np.dtype
    missing: int | None

    @classmethod
    def of(cls, activity: Any) -> Stored:
        """Choose the smallest unsigned type that holds counts; other numbers stay as they are."""
        largest, is_missing = 0, False
        for _, _, values in blocks(activity):
            absent = np.isnan(values)
            there = values[~absent] if absent.any() else values
            if (there != np.floor(there)).any() or np.signbit(there).any():
                return cls(activity, np.dtype(np.float32), None)
            largest = max(largest, int(there.max(initial=0)))
            is_missing = is_missing or bool(absent.any())
        if largest > _EXACT:
            return cls(activity, np.dtype(np.float32), None)
        dtype = np.min_scalar_type(largest + is_missing)
        return cls(activity, dtype, missing_count(dtype) if is_missing else None)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sizes of the axes (trial, time, neuron)."""
        num_trials, num_bins, num_neurons = self.activity.shape
        return num_trials, num_bins, num_neurons

    def blocks(self) -> Iterator[tuple[slice, slice, Shaped[np.ndarray, "trial time neuron"]]]:
        """Yield trials, bins and values in the order in which they lie in the file."""
        for trials, bins, values in blocks(self.activity):
            if self.missing is not None:
                values = np.where(np.isnan(values), np.float32(self.missing), values)
            yield trials, bins, values.astype(self.dtype, copy=False)


def blocks(
    activity: Any,
) -> Iterator[tuple[slice, slice, Float32[np.ndarray, "trial time neuron"]]]:
    """Yield trials, bins and values of activity in order, so many at a time as memory bears."""
    if isinstance(activity, LazyActivity):
        for trial, start, values in activity.blocks():
            yield slice(trial, trial + 1), slice(start, start + len(values)), values[None]
        return
    num_trials, num_bins, num_neurons = activity.shape
    step = max(1, _AT_ONCE // max(1, num_bins * num_neurons))
    for start in range(0, num_trials, step):
        yield slice(start, start + step), slice(0, num_bins), activity[start : start + step]


def with_missing(activity: Any, missing: int | None) -> Any:
    """Return activity that was read, in which NaN stands for what is missing."""
    if missing is None:
        return activity
    return np.where(activity == missing, np.float32(np.nan), activity.astype(np.float32))
