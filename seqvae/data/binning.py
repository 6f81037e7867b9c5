"""The bins in which spikes are counted: they are closed on the left, [start, start + bin_width).

Times are in double precision, and neither 0.1 + 0.2 nor 3 * 0.1 is 0.3; so that a spike on an edge
is counted in the bin that begins there, one that precedes an edge by less than a millionth of a bin
stands on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped

HAIR = 1e-6
"""Of a bin."""
_NAMED = 3


def observed_bins(
    intervals: Float[np.ndarray, "interval 2"],
    starts: Float[np.ndarray, " trial"],
    *,
    bin_width: float,
    num_bins: int,
    first: int = 0,
) -> Bool[np.ndarray, "trial time"]:
    """Tell which bins lie wholly within intervals, of which some may touch or overlap.

    Args:
        intervals: first and last time of each, in seconds.
        starts: of the first bin of each trial, in seconds.
        bin_width: seconds.
        num_bins: of each trial.
        first: of these, counted from its start.
    """
    hair = HAIR * bin_width
    whole = intervals[np.argsort(intervals[:, 0], kind="stable")]
    reach = np.maximum.accumulate(whole[:, 1])
    begins = np.ones(len(whole), dtype=bool)
    begins[1:] = whole[1:, 0] > reach[:-1] + hair
    opens = whole[begins, 0]
    last = reach[np.append(begins[1:], True)] if len(whole) else reach
    left = starts[:, None] + (first + np.arange(num_bins)) * bin_width
    right = left + bin_width
    within = np.searchsorted(opens, left + hair, side="right") - 1
    return (within >= 0) & (right <= np.append(last, -np.inf)[within] + hair)


def warn_of_doubled_spikes(
    spike_times: Sequence[Float[np.ndarray, " _"]], ids: Shaped[np.ndarray, " neuron"]
) -> None:
    """Warn of units in which spikes stand at the very same time, and are counted as often."""
    doubled = []
    for times in spike_times:
        ordered = np.sort(times)
        doubled.append(int((np.diff(ordered[np.isfinite(ordered)]) == 0).sum()))
    units = np.flatnonzero(doubled)
    if len(units) == 0:
        return
    more = f", ... ({len(units)} in all)" if len(units) > _NAMED else ""
    warnings.warn(
        f"units {', '.join(str(ids[unit]) for unit in units[:_NAMED])}{more} have spikes at the "
        f"very same time ({sum(doubled)} of them), each of which counts; drop them if a sorter "
        "wrote them twice",
        stacklevel=3,
    )


def warn_of_overlap(intervals: Float[np.ndarray, "interval 2"]) -> None:
    """Warn of intervals that overlap: what both hold may be learned from and scored."""
    order = np.argsort(intervals[:, 0], kind="stable")
    ends = np.maximum.accumulate(intervals[order, 1])
    meets = np.flatnonzero(intervals[order[1:], 0] < ends[:-1] - 1e-9 * np.abs(ends[:-1]))
    if len(meets):
        later = int(order[meets[0] + 1])
        begin, end = intervals[later]
        warnings.warn(
            f"intervals[{later}] ({begin:g} to {end:g} s) begins before another one ends "
            f"({len(meets)} of {len(intervals)} do): their spikes are counted in both, and may be "
            "learned from and scored; give intervals that do not overlap, or a split",
            stacklevel=5,
        )


def grouped(values: np.ndarray, factor: int, *, axis: int) -> np.ndarray:
    """Return bins that make a wider one side by side: (..., wide, factor, ...).

    Args:
        values: any, bins along ``axis``; those at the end that fill no wider one are left out.
        factor: bins that make one.
        axis: of the bins, counted from the front.
    """
    before, (num_bins, *behind) = values.shape[:axis], values.shape[axis:]
    whole = num_bins // factor
    some = values[(*(slice(None) for _ in before), slice(whole * factor))]
    return some.reshape(*before, whole, factor, *behind)
