"""When trials happen: their start on the clock of the session, and the event that is their zero."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from seqvae.data.containers import plain_numbers
from seqvae.errors import InputError

_SAME = 1e-3  # of a bin


def as_start_times(value: Any, num_trials: int) -> Float64[np.ndarray, " trial"] | None:
    """Return the time at which the first bin of each trial begins; refuse one that is missing."""
    starts = _seconds("start_times", value, num_trials)
    if starts is not None and not np.isfinite(starts).all():
        raise InputError(
            f"start_times[{int(np.argmin(np.isfinite(starts)))}] is missing; give the start of "
            "every trial, or leave start_times out"
        )
    return starts


def as_event_times(value: Any, num_trials: int) -> Float64[np.ndarray, " trial"] | None:
    """Return seconds from the start of each trial to its event; a number stands for all trials."""
    if np.ndim(value) == 0 and value is not None:
        value = [value] * num_trials
    events = _seconds("event_times", value, num_trials)
    if events is not None and np.isinf(events).any():
        raise InputError(
            f"event_times[{int(np.argmax(np.isinf(events)))}] is infinite; give NaN where there is "
            "no event"
        )
    return events


def as_name(name: str, value: Any) -> str | None:
    """Return one text, which a file may hold as a number, or as an array without axes."""
    text = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    if not isinstance(text, str | int | None):
        raise InputError(f"{name} must be one text, got {value!r}")
    return None if text is None else str(text)


def bin_centres(
    event_times: Float[np.ndarray, " trial"] | None, bin_width: float | None, num_bins: int
) -> Float64[np.ndarray, " time"] | None:
    """Return the centre of each bin, in seconds from the event.

    None where no event is known, or where it falls into other bins in other trials, so that no one
    axis of time is that of all trials.
    """
    if event_times is None or bin_width is None or not np.isfinite(event_times).all():
        return None
    if np.ptp(event_times) > _SAME * bin_width:
        return None
    steps: Float64[np.ndarray, " time"] = np.arange(num_bins) + 0.5
    digits = 9  # what sums and products of seconds have lost
    return np.round(steps * bin_width - np.median(event_times), digits)


def _seconds(name: str, value: Any, num_trials: int) -> Float64[np.ndarray, " trial"] | None:
    if value is None:
        return None
    numbers = plain_numbers(name, value)
    if numbers.dtype.kind == "b" or numbers.size != num_trials:
        raise InputError(
            f"{name} has shape {numbers.shape}; it must hold a time in seconds for each of the "
            f"{num_trials} trials"
        )
    return numbers.reshape(num_trials).astype(np.float64)
