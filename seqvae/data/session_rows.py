"""Activity of several sessions that is kept session by session, and never as a whole."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from seqvae.data.lazy import LazyActivity, missing_count


class SessionRows:
    """Rows (trial, time, neuron) of several sessions, of which each is kept by itself.

    The trials of a session stand one after the other, as do its neurons. All else is NaN.

    Args:
        sessions: the activity of each.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, sessions: Sequence[LazyActivity]) -> None:
        self._sessions = list(sessions)
        trials, bins, neurons = np.transpose([one.shape for one in sessions])
        self._starts = np.concatenate([[0], np.cumsum(trials)])
        # of each column: the session it is of, and its place there
        self._owner = np.repeat(np.arange(len(neurons)), neurons)
        self._place = np.concatenate([np.arange(number) for number in neurons.tolist()])
        self.shape = (int(self._starts[-1]), int(bins.max()), len(self._owner))

    def own(self, trial: int, place: slice) -> Float32[np.ndarray, "some_time own"]:
        """Read some bins of the neurons of a trial's own session."""
        return self._of(trial, place)[1]

    def __getitem__(self, index: tuple[int, slice]) -> Float32[np.ndarray, "some_time neuron"]:
        """Read some bins of a trial; NaN for the neurons of other sessions."""
        trial, place = index
        session, part = self._of(trial, place)
        first, last, _ = place.indices(self.shape[1])
        values = np.full((max(0, last - first), self.shape[2]), np.nan, dtype=np.float32)
        columns = np.flatnonzero(self._owner == session)
        values[: len(part), columns] = part[:, self._place[columns]]
        return values

    def neurons(self, columns: Int[np.ndarray, " chosen"]) -> SessionRows:
        """Return some columns; -1 stands for one that is missing throughout."""
        other = copy.copy(self)
        other._owner = np.where(columns >= 0, self._owner[columns], -1)
        other._place = self._place[columns]
        other.shape = (*self.shape[:2], len(columns))
        return other

    def _of(self, trial: int, place: slice) -> tuple[int, Float32[np.ndarray, "some_time own"]]:
        session = int(np.searchsorted(self._starts, trial, side="right")) - 1
        activity = self._sessions[session]
        first, last, _ = place.indices(self.shape[1])
        last = max(first, min(last, activity.shape[1]))
        return session, activity.block(trial - int(self._starts[session]), first, last)


class StitchedActivity(LazyActivity):
    """Activity of several sessions, of which nothing is held but what is asked for.

    What reads trial by trial reads of each the neurons of its own session, so that neither time nor
    memory of a trial grows with the number of sessions. The sessions have been checked.

    Args:
        sessions: the activity of each.
    """

    _rows: SessionRows

    def __init__(self, sessions: Sequence[LazyActivity]) -> None:
        super().__init__(SessionRows(sessions))
        self.is_checked = True

    def neurons(self, columns: Int[np.ndarray, " chosen"]) -> StitchedActivity:
        """Return some neurons; -1 stands for one that is missing throughout."""
        other = copy.copy(self)
        other._rows = self._rows.neurons(np.asarray(columns, dtype=np.int64))
        other.shape = (*self.shape[:2], len(columns))
        return other

    def there(self, trial: int, start: int, stop: int) -> Float32[np.ndarray, "some_time own"]:
        """Read some bins of a trial, of the neurons of its own session alone."""
        first, end = int(self._start[trial]), min(stop, int(self._bins[trial]))
        part = self._rows.own(
            int(self._trial[trial]), slice(first + start, first + max(start, end))
        )
        values = np.full((stop - start, part.shape[1]), np.nan, dtype=np.float32)
        values[: len(part)] = part
        return values


def packed(activity: Any) -> LazyActivity:
    """Return activity as it is kept of a session: counts in the smallest type, else as it is."""
    if isinstance(activity, LazyActivity):
        return activity
    absent = np.isnan(activity)
    values = np.where(absent, np.float32(0), activity)
    largest = float(values.max(initial=0))
    kind = np.dtype(np.uint8 if largest < missing_count(np.dtype(np.uint8)) else np.uint16)
    if values.min(initial=0) < 0 or largest >= missing_count(kind):
        return LazyActivity(activity)
    counts = values.astype(kind)
    if not np.array_equal(counts, values):
        return LazyActivity(activity)
    counts[absent] = missing_count(kind)
    return LazyActivity(counts, missing=missing_count(kind) if absent.any() else None)
