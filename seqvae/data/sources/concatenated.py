"""Trials that stand one after another in the rows of one array."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Shaped

from seqvae.data.lazy import LazyActivity
from seqvae.errors import InputError

_FEWEST_TRIALS = 5
_ZERO = 1e-5  # of a standard deviation


def in_trials(
    name: str, series: Any, trial_bins: int
) -> Shaped[np.ndarray, "trial trial_bin channel"] | LazyActivity:
    """Cut the rows of one long trial (1, time, channel) into trials of equal length.

    Args:
        name: of the series, for the errors.
        series: one trial.
        trial_bins: rows of each.

    Raises:
        InputError: if the series has trials already, or its rows fill no whole number of them.
    """
    if isinstance(trial_bins, bool) or not isinstance(trial_bins, int) or trial_bins < 1:
        raise InputError(f"trial_bins must be a whole number of rows above 0, got {trial_bins!r}")
    if not isinstance(series, np.ndarray | LazyActivity) or len(series) != 1:
        raise InputError(
            f"trial_bins: {name} has {len(series)} trials already; give dims [time, neuron]"
        )
    num_rows = series.shape[1]
    if num_rows % trial_bins:
        raise InputError(
            f"trial_bins: the {num_rows} rows of {name} are no whole number of trials of "
            f"{trial_bins}; all trials must be as long"
        )
    if isinstance(series, LazyActivity):
        return series.cut(
            0, [(start, start + trial_bins) for start in range(0, num_rows, trial_bins)]
        )
    return series.reshape(-1, trial_bins, series.shape[2])


def period_of(values: Shaped[np.ndarray, "row channel"]) -> int | None:
    """Return the rows of a trial, where the mean over trials was taken away; else None.

    Then the rows t, t + P, t + 2P, ... sum to zero for each t. P is the longest such period of
    which there are five or more.
    """
    num_rows = len(values)
    spread = values.std()
    if not np.isfinite(spread) or spread == 0:
        return None
    for period in range(num_rows // _FEWEST_TRIALS, 1, -1):
        if num_rows % period == 0:
            means = values.reshape(num_rows // period, period, -1).mean(axis=0)
            if np.abs(means).max() < _ZERO * spread:
                return period
    return None
