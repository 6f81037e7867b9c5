"""The checks of activity that is read when it is asked for: one pass in bounded memory."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from seqvae.data.lazy import LazyActivity
from seqvae.data.oddities import OddEntries
from seqvae.errors import InputError

_NUMBERS_AT_ONCE = 1_000_000


def check_lazy(activity: LazyActivity, neuron_ids: Shaped[np.ndarray, " neuron"]) -> None:
    """Refuse and warn of what ``seqvae.data.validation`` does, all blocks once; then no more.

    Raises:
        InputError: for infinite values, a trial without any value, and silence throughout.
    """
    if activity.is_checked:
        return
    if 0 in activity.shape:
        raise InputError(
            f"activity (trial, time, neuron) has shape {activity.shape}; "
            "give at least one trial, one time bin and one neuron"
        )
    num_trials, _, num_neurons = activity.shape
    is_seen = np.zeros(num_trials, dtype=bool)
    least, largest = np.full(num_neurons, np.inf), np.full(num_neurons, -np.inf)
    prints = np.zeros(num_neurons)
    generator, odd = np.random.default_rng(0), OddEntries()
    for trial, start, values in activity.blocks():
        infinite = np.isinf(values)
        if infinite.any():
            bin_, neuron = (int(i[0]) for i in np.nonzero(infinite))
            raise InputError(
                f"activity{[trial, start + bin_, neuron]} is infinite (or above 3e38); mark "
                "missing data by NaN"
            )
        is_seen[trial] |= bool(np.isfinite(values).any())
        least = np.fmin(least, np.fmin.reduce(values, axis=0))
        largest = np.fmax(largest, np.fmax.reduce(values, axis=0))
        odd.add(values, trial, start)
        prints += generator.random(len(values), dtype=np.float32) @ np.nan_to_num(values)
    if not is_seen.all():
        raise InputError(
            f"activity[{int(np.argmin(is_seen))}] is missing (NaN) throughout; leave that trial out"
        )
    if not ((least != 0) | (largest != 0))[np.isfinite(least)].any():
        raise InputError(
            f"activity is 0 in all {num_trials} trials, the recording is silent; "
            "check which array is read"
        )
    silent = np.flatnonzero((least == 0) & (largest == 0))
    if len(silent):
        warnings.warn(
            f"{len(silent)} of {num_neurons} neurons are silent, the first is neuron {silent[0]}",
            stacklevel=4,
        )
    odd.warn(stacklevel=4)
    _warn_of_twins(activity, np.where(least < largest, prints, np.nan))
    activity.is_checked = True


def _warn_of_twins(activity: LazyActivity, prints: Float[np.ndarray, " neuron"]) -> None:
    """Warn of the first two neurons that are identical, among those whose prints are."""
    order = np.argsort(prints, kind="stable")
    for one, other in pairwise(order):
        near = abs(prints[one] - prints[other]) <= 1e-6 * abs(prints[one])
        if near and all(
            np.array_equal(values[:, one], values[:, other], equal_nan=True)
            for _, _, values in activity.blocks()
        ):
            first, second = sorted((int(one), int(other)))
            warnings.warn(
                f"neurons {first} and {second} are identical in every bin; a duplicated neuron "
                "leaks what is held out",
                stacklevel=5,
            )
            return


def add_to(digest: Any, name: str, value: Any) -> None:
    """Add a field to a checksum; lazy activity as an array in memory that holds the same.

    Of several sessions that are kept one by one each trial is that of its own session.
    """
    if isinstance(value, np.ndarray | LazyActivity):
        digest.update(f"{name} {value.dtype.str} {value.shape}".encode())
    if isinstance(value, LazyActivity):
        for stretch in value.stretches():
            digest.update(value.there(*stretch).tobytes())
    elif isinstance(value, np.ndarray):
        flat = value.reshape(-1)
        for start in range(0, len(flat), _NUMBERS_AT_ONCE):
            digest.update(flat[start : start + _NUMBERS_AT_ONCE].tobytes())
    else:
        digest.update(f"{name} {value!r}".encode())
