"""The times of bins: whether they rise evenly, and the width of the bins that they tell."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from seqvae.errors import InputError

_SECONDS = (None, "s", "sec", "second", "seconds")


class Clock(NamedTuple):
    """The times of the bins of a series or trial.

    Attributes:
        times: numbers, dates or time differences.
        units: of numbers, where they are said.
        what: the times, for errors.
    """

    times: np.ndarray
    units: str | None
    what: str

    def spacing(self, *, is_told: bool) -> float | None:
        """Return the seconds between bins; None for a single one.

        Args:
            is_told: whether ``bin_width`` is given: the order of the bins alone matters then.

        Raises:
            InputError: for times that do not rise, for units other than seconds and uneven bins.
        """
        times, what = self._plain(is_told=is_told), self.what
        if len(times) < 2:
            return None
        steps = np.diff(times)
        if not (steps > 0).all():
            raise InputError(
                f"{what} does not rise after bin {int(np.argmax(~(steps > 0)))}; bins must stand "
                "in the order of time"
            )
        if is_told:
            return None
        usual, step = float(np.median(steps)), float(times[-1] - times[0]) / len(steps)
        kind = self.times.dtype
        rounding = 2 * np.finfo(kind).eps * np.abs(times).max() if kind.kind == "f" else 0.0
        uneven = np.abs(steps - usual) > 1e-3 * usual + rounding
        if uneven.any():
            index = int(np.argmax(uneven))
            raise InputError(
                f"{what} goes on by {steps[index]:g} s after bin {index}, elsewhere by {usual:g} "
                "s; bins must be of one width, which bin_width can tell"
            )
        error = float(rounding / len(steps) / step)
        if error > 1e-2:
            raise InputError(f"{what} is too coarse a {kind} for its bins; give bin_width")
        digits = 9 if error < 1e-9 else int(-np.log10(error))
        return float(f"{step:.{digits}g}")  # what differences of sums of it have lost

    def check_same(self, name: str, activity: Clock) -> None:
        """Refuse a series whose bins lie at other times than those of the activity."""
        ours, theirs = self.times, activity.times
        is_comparable = ours.dtype.kind in "iuf" and theirs.dtype.kind in "iuf"
        is_comparable = is_comparable or ours.dtype.kind == theirs.dtype.kind in "mM"
        if not is_comparable or len(ours) != len(theirs) or len(ours) < 2:
            return
        wrong = np.abs(ours - theirs) > np.abs(theirs[1] - theirs[0]) / 2
        if wrong.any():
            raise InputError(
                f"{name} and activity are not at the same times, first in bin "
                f"{int(np.argmax(wrong))}; bring both to one time axis, or drop its coordinate time"
            )

    def _plain(self, *, is_told: bool) -> np.ndarray:
        """Return the times in double precision, in seconds from the first where they are dates."""
        times, what = self.times, self.what
        if self.units not in _SECONDS and not is_told and times.dtype.kind not in "mM":
            raise InputError(f"{what} is in {self.units!r}; give it in seconds, or bin_width")
        if times.dtype.kind not in "iufmM":
            raise InputError(f"{what} holds {times.dtype}; give it in seconds, or bin_width")
        missing = np.isnat(times) if times.dtype.kind in "mM" else ~np.isfinite(times)
        if missing.any():
            raise InputError(f"{what} is missing in bin {int(np.argmax(missing))}; give every time")
        if times.dtype.kind in "mM":
            return (times - times[0]) / np.timedelta64(1, "s")
        return times.astype(np.float64)


def row_clock(name: str, rows: Any) -> Clock | None:
    """Return the times of a table's rows; None where they only count, or name something else.

    Raises:
        InputError: for rows that were put out of their order.
    """
    times = np.asarray(rows)
    if times.dtype.kind in "fmM":
        return Clock(times, None, f"the index of {name}")
    if times.dtype.kind in "iu" and not (np.diff(times.astype(np.int64)) > 0).all():
        raise InputError(
            f"the rows of {name} are not in the order of their index; sort them, or drop it by "
            "table.reset_index(drop=True)"
        )
    return None
