"""Bins after the end of a trial: where lengths say so, and where silence seems to."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.special import gammaln

from seqvae.data.axes import labels_in_order, series, stand_in
from seqvae.data.containers import plain_numbers
from seqvae.data.lazy import LazyActivity
from seqvae.errors import InputError

_SERIES = ("activity", "behavior", "rates")
_IMPROBABLE = 1e-6
_SHARE = 0.1  # of the trials that end in silence before it is told
_EXCESS = 4  # as many as begin in silence


def without_padding(fields: Mapping[str, Any], lengths: Any) -> dict[str, Any]:
    """Return fields of a recording in which whatever stands after the end of a trial is NaN.

    Args:
        fields: of ``Recording``, by name.
        lengths: bins of each trial.

    Raises:
        InputError: for lengths that are no whole numbers from 1 to the number of bins.
    """
    lazy = fields["activity"] if isinstance(fields["activity"], LazyActivity) else None
    activity = series("activity", fields["activity"]) if lazy is None else stand_in(lazy.shape)
    num_trials, num_time_bins, _ = activity.values.shape
    ids = activity.trials if activity.trials is not None else np.arange(num_trials)
    lengths = labels_in_order("lengths", lengths, ids, are_given=activity.trials is not None)
    ends = as_lengths(lengths, num_trials, num_time_bins)
    beyond = np.arange(num_time_bins) >= ends[:, None]
    values = dict(fields)
    if lazy is not None:
        stretches = [(0, end) for end in ends.tolist()]
        values["activity"] = lazy.cut(np.arange(num_trials), stretches).padded(num_time_bins)
    for name in _SERIES[1:] if lazy is not None else _SERIES:
        if fields.get(name) is not None:
            laid = series(name, fields[name], activity.lengths)
            if laid.values.shape[:2] == beyond.shape:  # else refused with the recording
                padded = laid.values.astype(np.result_type(laid.values.dtype, np.float32))
                padded[beyond] = np.nan
                laid = replace(laid, values=padded)
            values[name] = laid
    return values


def as_lengths(value: Any, num_trials: int, num_time_bins: int) -> Int[np.ndarray, " trial"]:
    """Return the bins of each trial."""
    lengths = plain_numbers("lengths", value)
    if lengths.size != num_trials or max(lengths.shape, default=1) != num_trials:
        raise InputError(
            f"lengths has shape {lengths.shape}; it must hold one number for each of the "
            f"{num_trials} trials"
        )
    lengths = lengths.reshape(num_trials)
    wrong = ~((lengths >= 1) & (lengths <= num_time_bins) & (lengths == np.floor(lengths)))
    if wrong.any() or lengths.dtype.kind == "b":
        index = int(np.argmax(wrong))
        raise InputError(
            f"lengths[{index}] is {lengths[index]}; give whole numbers of bins, from 1 to "
            f"{num_time_bins}"
        )
    return lengths.astype(np.int64)


def warn_of_silent_ends(activity: Float32[np.ndarray, "trial time neuron"]) -> None:
    """Warn of trials that end in a silence of unlike lengths, as those padded with zeros do.

    Of L bins of a trial, b have any activity. Were these spread at random, the last k would be
    empty with probability C(L - k, b) / C(L, b); below 1e-6 the trial ends in silence. Silences
    that are as usual at the beginning are those of the brain.
    """
    bins, last, first = _silence(activity)
    ends, begins = (_log_chance(bins, silent) < np.log(_IMPROBABLE) for silent in (last, first))
    silent = np.flatnonzero(ends)
    enough = max(2, _SHARE * len(activity), _EXCESS * begins.sum())
    if len(silent) < enough or len(np.unique(last[silent])) < 2:
        return
    named = ", ".join(str(trial) for trial in silent[:3])
    more = f", ... ({len(silent)} in all)" if len(silent) > 3 else ""
    start = int(bins[silent[0], 0] - last[silent[0]])
    warnings.warn(
        f"trials {named}{more} end in silence, all neurons are 0 from one bin on (from bin {start} "
        f"in trial {silent[0]}): if that is padding, give the bins of each trial as lengths",
        stacklevel=4,
    )


def _silence(
    activity: Float32[np.ndarray, "trial time neuron"],
) -> tuple[Int[np.ndarray, "trial 2"], Int[np.ndarray, " trial"], Int[np.ndarray, " trial"]]:
    """Return observed bins and active bins, and bins of silence at the end and the beginning."""
    bins, last, first = [], [], []
    for trial in activity:
        observed = np.flatnonzero(~np.isnan(trial).all(axis=1))
        length = int(observed[-1]) + 1
        active = np.flatnonzero((np.nan_to_num(trial) != 0).any(axis=1))
        bins.append((length, len(active)))
        last.append(length - 1 - int(active[-1]) if len(active) else 0)
        first.append(int(active[0]) if len(active) else 0)
    return np.array(bins), np.array(last), np.array(first)


def _log_chance(
    bins: Int[np.ndarray, "trial 2"], silent: Int[np.ndarray, " trial"]
) -> Float[np.ndarray, " trial"]:
    """Return log C(L - k, b) / C(L, b)."""
    length, active = bins.T
    rest = length - silent
    return (
        gammaln(rest + 1)
        - gammaln(rest - active + 1)
        - gammaln(length + 1)
        + gammaln(length - active + 1)
    )
