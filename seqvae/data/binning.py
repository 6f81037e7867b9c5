"""Spike times as counts per bin: bins are closed on the left, [start, start + bin_width).

Times are in double precision, and neither 0.1 + 0.2 nor 3 * 0.1 is 0.3; so that a spike on an edge
is counted in the bin that begins there, one that precedes an edge by less than a millionth of a bin
stands on it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt

from seqvae.data.sizes import check_memory

_HAIR = 1e-6  # of a bin
_NAMED = 3


def bin_spikes(
    spike_times: Sequence[Float[np.ndarray, " _"]],
    starts: Float[np.ndarray, " trial"],
    *,
    bin_width: float,
    num_bins: int,
) -> UInt[np.ndarray, "trial time neuron"]:
    """Count the spikes of each unit in the bins of each trial.

    x_ktn = #{spikes of n in [start_k + t * bin_width, start_k + (t + 1) * bin_width)}

    Trials may overlap, and spikes need no order. A spike counts as often as it stands there; NaN
    and infinite times, with which ragged lists are padded, are no spikes.

    Args:
        spike_times: of each unit, in seconds.
        starts: of the first bin of each trial, in seconds.
        bin_width: seconds.
        num_bins: of each trial.

    Returns:
        Counts of the smallest unsigned type that holds them.

    Raises:
        InputError: if the counts do not fit into the memory of this machine.
    """
    shape = (len(starts), num_bins, len(spike_times))
    check_memory(f"{shape[0]} trials of {num_bins} bins", float(np.prod(shape, dtype=float)))
    counts = np.zeros(shape, dtype=np.uint8)
    begins = starts - _HAIR * bin_width
    ends = begins + num_bins * bin_width
    for unit, times in enumerate(spike_times):
        ordered = np.sort(np.asarray(times, dtype=np.float64))
        first, beyond = np.searchsorted(ordered, begins), np.searchsorted(ordered, ends)
        sizes = beyond - first
        trial = np.repeat(np.arange(len(starts)), sizes)
        place = np.arange(sizes.sum()) + np.repeat(first - (np.cumsum(sizes) - sizes), sizes)
        bins = np.floor((ordered[place] - starts[trial]) / bin_width + _HAIR).astype(np.int64)
        flat = trial * num_bins + np.clip(bins, 0, num_bins - 1)  # rounding at either end
        one = np.bincount(flat, minlength=shape[0] * num_bins)
        counts = counts.astype(np.promote_types(counts.dtype, np.min_scalar_type(one.max())))
        counts[..., unit] = one.reshape(shape[:2])
    return counts


def observed_bins(
    intervals: Float[np.ndarray, "interval 2"],
    starts: Float[np.ndarray, " trial"],
    *,
    bin_width: float,
    num_bins: int,
) -> Bool[np.ndarray, "trial time"]:
    """Tell which bins lie wholly within intervals, of which some may touch or overlap.

    Args:
        intervals: first and last time of each, in seconds.
        starts: of the first bin of each trial, in seconds.
        bin_width: seconds.
        num_bins: of each trial.
    """
    hair = _HAIR * bin_width
    whole = intervals[np.argsort(intervals[:, 0], kind="stable")]
    reach = np.maximum.accumulate(whole[:, 1])
    begins = np.ones(len(whole), dtype=bool)
    begins[1:] = whole[1:, 0] > reach[:-1] + hair
    first = whole[begins, 0]
    last = reach[np.append(begins[1:], True)] if len(whole) else reach
    left = starts[:, None] + np.arange(num_bins) * bin_width
    right = left + bin_width
    within = np.searchsorted(first, left + hair, side="right") - 1
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
