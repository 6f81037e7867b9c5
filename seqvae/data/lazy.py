"""Activity that is read when it is asked for: windows of counts that stay small, or on disk."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int, Shaped

from seqvae.data import sizes

_AT_ONCE = 4_000_000


@runtime_checkable
class Rows(Protocol):
    """What numbers are read from: an array, in memory or mapped, or a dataset on disk."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes (trial, time, neuron)."""

    @property
    def dtype(self) -> Any:
        """The type of the numbers."""

    def __getitem__(self, index: Any) -> Any:
        """Read a trial and a slice of its bins."""


class LazyActivity:
    """Activity (trial, time, neuron) in single precision, of which nothing is held.

    Each trial is a stretch of bins of a trial of ``rows``; stretches may overlap. A trial, or a
    trial and a slice of bins, is read by its index; a list of trials is lazy activity, too, which
    ``np.asarray`` reads.

    Args:
        rows: the numbers.
        observed: (trial, time) of ``rows``; what is False there is NaN here. None: all is observed.
        missing: the number of ``rows`` that is NaN here.
    """

    ndim = 3
    dtype = np.dtype(np.float32)

    def __init__(
        self,
        rows: Rows,
        *,
        observed: Bool[np.ndarray, "row_trial row_time"] | None = None,
        missing: int | None = None,
    ) -> None:
        num_trials, num_bins, num_columns = rows.shape
        self._rows, self._observed, self._missing = rows, observed, missing
        self._trial = np.arange(num_trials)
        self._start = np.zeros(num_trials, dtype=np.int64)
        self._bins = np.full(num_trials, num_bins)
        self._columns: np.ndarray | None = None
        self.shape = (num_trials, num_bins, num_columns)
        self.is_checked = False

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return math.prod(self.shape)

    def block(self, trial: int, start: int, stop: int) -> Float32[np.ndarray, "some_time neuron"]:
        """Read some bins of a trial; NaN past its end."""
        stop = min(stop, self.shape[1])
        values = np.full((stop - start, self.shape[2]), np.nan, dtype=np.float32)
        end = min(stop, int(self._bins[trial]))
        if end > start:
            first, row = int(self._start[trial]), int(self._trial[trial])
            place = slice(first + start, first + end)
            numbers = np.asarray(self._rows[row, place])
            part = values[: end - start]
            if self._columns is None:
                part[:] = numbers
            else:
                there = self._columns >= 0
                part[:, there] = numbers[:, self._columns[there]]
            if self._missing is not None:
                part[part == self._missing] = np.nan
            if self._observed is not None:
                part[~self._observed[row, place]] = np.nan
        return values

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return self.block(range(len(self))[int(index)], 0, self.shape[1])
        if isinstance(index, tuple) and len(index) == 2:
            trial, place = index
            start, stop, _ = place.indices(self.shape[1])
            return self.block(range(len(self))[int(trial)], start, max(start, stop))
        return self.take(np.arange(len(self))[index])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[trial] for trial in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        whole = np.empty(self.shape, dtype=dtype or np.float32)
        for place, trial in enumerate(self):
            whole[place] = trial
        return whole

    def blocks(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield trial, first bin and values of all, in order, so many at a time as memory bears."""
        for trial, start, stop in self.stretches():
            yield trial, start, self.block(trial, start, stop)

    def there(self, trial: int, start: int, stop: int) -> Float32[np.ndarray, "some_time own"]:
        """Read some bins of a trial, of those neurons alone that may have been observed."""
        return self.block(trial, start, stop)

    def stretches(self) -> Iterator[tuple[int, int, int]]:
        """Yield trial, first bin and that after the last of all, so many as memory bears."""
        step = max(1, _AT_ONCE // self.shape[2])
        for trial in range(len(self)):
            for start in range(0, self.shape[1], step):
                yield trial, start, min(start + step, self.shape[1])

    @property
    def overlaps(self) -> bool:
        """Whether some trials share bins."""
        order = np.lexsort((self._start, self._trial))
        trial, start = self._trial[order], self._start[order]
        ends = start + self._bins[order]
        return bool(((trial[1:] == trial[:-1]) & (start[1:] < ends[:-1])).any())

    @property
    def is_whole(self) -> bool:
        """Whether all is observed up to the end of each trial, as its type tells."""
        are_all = self._observed is None and self._missing is None
        return are_all and np.dtype(self._rows.dtype).kind in "biu"

    def seen(self) -> Bool[np.ndarray, "trial time"]:
        """Tell in which bins anything was observed."""
        seen = np.zeros(self.shape[:2], dtype=bool)
        for trial, start, stop in self.stretches():
            seen[trial, start:stop] = np.isfinite(self.there(trial, start, stop)).any(axis=1)
        return seen

    @property
    def lengths(self) -> Int[np.ndarray, " trial"]:
        """Bins of each trial up to the last one in which anything was observed."""
        if self.is_whole:
            return self._bins.astype(np.int64)
        return np.array([self._length(trial) for trial in range(len(self))], dtype=np.int64)

    def _length(self, trial: int) -> int:
        stop = int(self._bins[trial])
        while stop > 0:
            start = max(0, stop - 1000)
            seen = np.flatnonzero(np.isfinite(self.there(trial, start, stop)).any(axis=1))
            if len(seen):
                return start + int(seen[-1]) + 1
            stop = start
        return 0

    def take(self, trials: Int[np.ndarray, " chosen"]) -> LazyActivity:
        """Return some trials."""
        other = copy.copy(self)
        other._trial, other._start, other._bins = (
            part[trials] for part in (self._trial, self._start, self._bins)
        )
        other.shape = (len(trials), *self.shape[1:])
        return other

    def around(
        self, trial: np.ndarray, first: Int[np.ndarray, " event"], num_bins: int
    ) -> Float32[np.ndarray, "event time neuron"]:
        """Read as many bins from ``first`` on of some trials; NaN beyond these."""
        pieces = np.full((len(first), num_bins, self.shape[2]), np.nan, dtype=np.float32)
        for piece, row, start in zip(pieces, trial.tolist(), first.tolist(), strict=True):
            before = max(0, -start)
            values = self.block(row, start + before, max(start + num_bins, start + before))
            piece[before : before + len(values)] = values
        return pieces

    def cut(self, trial: int | np.ndarray, pieces: Sequence[tuple[int, int]]) -> LazyActivity:
        """Return stretches as trials: the first bin, and that after the last, of each."""
        source = np.broadcast_to(np.asarray(trial), len(pieces))
        edges = np.array(pieces, dtype=np.int64).reshape(-1, 2)
        other = self.take(source)
        other._start = other._start + edges[:, 0]
        other._bins = np.clip(np.minimum(edges[:, 1], other._bins) - edges[:, 0], 0, None)
        longest = int((edges[:, 1] - edges[:, 0]).max())
        other.shape = (len(pieces), longest, self.shape[2])
        return other

    def neurons(self, columns: Int[np.ndarray, " chosen"]) -> LazyActivity:
        """Return some neurons; -1 stands for one that is missing throughout."""
        other = copy.copy(self)
        columns = np.asarray(columns, dtype=np.int64)
        if self._columns is not None:
            columns = np.where(columns >= 0, self._columns[columns], -1)
        other._columns = columns
        other.shape = (*self.shape[:2], len(columns))
        return other

    def padded(self, num_bins: int) -> LazyActivity:
        """Return the same with bins added at the end, in which nothing was observed."""
        other = copy.copy(self)
        other.shape = (len(self), num_bins, self.shape[2])
        return other


def parts(
    activity: Any, trials: Iterable[int] | np.ndarray
) -> Iterator[Float32[np.ndarray, "some_time neuron"]]:
    """Yield the values of some trials, trial by trial, long ones that are not held in pieces."""
    for trial in trials:
        if isinstance(activity, LazyActivity):
            step = max(1, _AT_ONCE // activity.shape[2])
            for start in range(0, activity.shape[1], step):
                yield activity.block(int(trial), start, start + step)
        else:
            yield activity[int(trial)]


def joined(activity: LazyActivity, factor: int, *, counts: bool) -> LazyActivity:
    """Return wider bins, held in the smallest type: sums of counts, else means.

    Args:
        activity: any.
        factor: bins that make one; those at the end that fill none are left out.
        counts: whether to add up.
    """
    num_trials, num_bins, num_neurons = activity.shape
    whole = num_bins // factor
    wide = np.zeros((num_trials, whole, num_neurons), dtype=np.uint8 if counts else np.float32)
    step, is_missing = max(1, _AT_ONCE // (num_neurons * factor)), False
    for trial in range(num_trials):
        for start in range(0, whole, step):
            stop = min(start + step, whole)
            part = activity.block(trial, start * factor, stop * factor)
            part = part.reshape(stop - start, factor, num_neurons)
            values = part.sum(axis=1) if counts else part.mean(axis=1)
            if counts:
                absent = np.isnan(values)
                wide = _holding(wide, int(values.max(initial=0, where=~absent)))
                values[absent] = missing_count(wide.dtype)
                is_missing |= bool(absent.any())
            wide[trial, start:stop] = values
    result = LazyActivity(wide, missing=missing_count(wide.dtype) if is_missing else None)
    result.is_checked = activity.is_checked
    return result


def _holding(
    counts: Shaped[np.ndarray, "trial time neuron"], largest: int
) -> Shaped[np.ndarray, "trial time neuron"]:
    """Return counts in a type in which there is room for the largest, and for the missing one."""
    missing = missing_count(counts.dtype)
    if largest < missing:
        return counts
    wider = counts.astype(np.min_scalar_type(largest + 1))
    wider[counts == missing] = missing_count(wider.dtype)
    return wider


def missing_count(dtype: np.dtype) -> int:
    """Return the number that stands for what is missing in counts of an unsigned type."""
    return min(int(np.iinfo(dtype).max), 2**31)  # single precision holds each of these


def as_lazy(value: Any) -> LazyActivity | None:
    """Return large counts of few bits as they lie; None for all that is read at once.

    What has fewer numbers than ``sizes.LARGE``, or those of more bits, is copied and checked whole.
    """
    if isinstance(value, LazyActivity):
        return value
    is_small_type = isinstance(value, np.ndarray) and value.dtype.kind in "biu"
    if is_small_type and value.dtype.itemsize <= 2 and value.ndim == 3 and value.size > sizes.LARGE:
        return LazyActivity(value.view(np.ndarray))
    return None
