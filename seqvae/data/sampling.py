"""Samples over time as values per bin."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32

_HAIR = 1e-6  # of a bin
_GAP = 2.5  # usual steps between samples, across which a line is drawn


def sampled(
    times: Float[np.ndarray, " sample"],
    values: Float[np.ndarray, "sample channel"],
    starts: Float[np.ndarray, " trial"],
    *,
    bin_width: float,
    num_bins: int,
) -> Float32[np.ndarray, "trial time channel"]:
    """Return the mean of the samples in each bin of each trial, closed on the left.

    Where samples are rarer than bins, a bin without one has the value at its centre on the straight
    line between its neighbours, if these are no more than 2.5 usual steps apart. All else is NaN:
    what is missing in the samples, and what lies before the first or after the last.

    Args:
        times: of the samples in seconds, rising.
        values: NaN = missing.
        starts: of the first bin of each trial, in seconds.
        bin_width: seconds.
        num_bins: of each trial.
    """
    present = np.isfinite(values)
    zero = np.zeros((1, values.shape[1]))
    total = np.concatenate([zero, np.cumsum(np.where(present, values, 0.0), axis=0)])
    count = np.concatenate([zero, np.cumsum(present, axis=0)])
    steps = np.diff(times)
    longest = _GAP * float(np.median(steps)) if len(steps) else 0.0
    result = np.full((len(starts), num_bins, values.shape[1]), np.nan, dtype=np.float32)
    for trial, start in enumerate(starts):
        edges = start + np.arange(num_bins + 1) * bin_width
        places = np.searchsorted(times, edges - _HAIR * bin_width)
        number = count[places[1:]] - count[places[:-1]]
        mean = (total[places[1:]] - total[places[:-1]]) / np.where(number > 0, number, np.nan)
        empty = np.flatnonzero(places[1:] == places[:-1])
        after = places[empty]
        inside = (after > 0) & (after < len(times))
        empty, after = empty[inside], after[inside]
        apart = times[after] - times[after - 1]
        empty, after, apart = (part[apart <= longest] for part in (empty, after, apart))
        centre = edges[empty] + bin_width / 2
        share = ((centre - times[after - 1]) / np.maximum(apart, 1e-300))[:, None]
        mean[empty] = (1 - share) * values[after - 1] + share * values[after]
        result[trial] = mean
    return result
