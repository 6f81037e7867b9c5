"""Trials cut out around events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from seqvae.data.containers import plain_numbers
from seqvae.data.lazy import LazyActivity
from seqvae.data.recording import Recording
from seqvae.data.transforms.base import Transform
from seqvae.data.validation import check_number
from seqvae.errors import InputError


def align(recording: Recording, events: Any, window: tuple[float, float]) -> Recording:
    """Return the bins around events as trials, all of one length, the event at one bin.

    A trial begins with the bin in which ``event + window[0]`` lies. What lies beyond the recording
    is missing. Events that are NaN, and those around which nothing was recorded, are left out.

    Args:
        recording: one long trial, or trials with one event each.
        events: (event,) times in seconds from the first bin: of one long trial as many as there
            are, else one for each trial, NaN where it has none.
        window: seconds from the event to the first and past the last bin, such as (-0.25, 0.45).

    Raises:
        InputError: for no such numbers, or events of which none is left.
    """
    times = _times(recording, events)
    width, (start, stop) = recording.bin_width, _window(window)
    if width is None:
        raise InputError("align: the recording has no bin_width; give it beside the data")
    num_bins = round((stop - start) / width)
    if num_bins < 1:
        raise InputError(
            f"align.window is {stop - start:g} s long, less than a bin of {width:g} s; widen it"
        )
    is_long = recording.num_trials == 1
    trial = np.zeros(len(times), dtype=int) if is_long else np.arange(len(times))
    first = np.floor(np.nan_to_num(times + start, nan=-np.inf) / width + 1e-6)
    inside = (first + num_bins > 0) & (first < recording.num_time_bins)
    there = np.flatnonzero(inside)
    activity = _cut(recording.activity, trial[there], first[there], num_bins)
    seen = np.isfinite(activity).any(axis=(1, 2))
    there, activity = there[seen], activity[seen]
    if not len(there):
        raise InputError(
            f"align.events: around none of the {len(times)} events anything was recorded, from 0 "
            f"to {recording.num_time_bins * width:g} s; give seconds from the first bin"
        )
    trial, first = trial[there], first[there]
    behavior, inputs, rates = (
        None if values is None else _cut(values, trial, first, num_bins)
        for values in (recording.behavior, recording.inputs, recording.rates)
    )
    if inputs is not None:  # known in every bin: before the first and past the last there are none
        inputs = np.nan_to_num(inputs)
    condition, split, ids = recording.condition, recording.split, recording.trial_ids
    begins, segments = recording.start_times, recording.segment_ids
    sessions = recording.trial_sessions
    assert ids is not None
    return recording.changed(
        activity=activity,
        behavior=behavior,
        inputs=inputs,
        rates=rates,
        condition=None if condition is None else condition[trial],
        split=None if split is None else split[trial],
        trial_ids=there if is_long else ids[trial],
        start_times=None if begins is None else begins[trial] + first * width,
        event_times=times[there] - first * width,
        segment_ids=None if segments is None else segments[trial],
        trial_sessions=None if sessions is None else sessions[trial],
        num_encoded_bins=None,
    )


def _times(recording: Recording, events: Any) -> Float[np.ndarray, " event"]:
    times = np.atleast_1d(plain_numbers("align.events", events)).astype(np.float64)
    if times.ndim != 1 or (recording.num_trials > 1 and len(times) != recording.num_trials):
        raise InputError(
            f"align.events has shape {times.shape}; give one time for each of the "
            f"{recording.num_trials} trials, NaN where there is none"
        )
    return times


def _window(window: Any) -> tuple[float, float]:
    if not isinstance(window, list | tuple) or len(window) != 2:
        raise InputError(f"align.window must be (start, stop) in seconds, got {window!r}")
    for edge in window:
        check_number("align.window", edge)
    return float(window[0]), float(window[1])


def _cut(
    values: Any, trial: np.ndarray, first: np.ndarray, num_bins: int
) -> Float[np.ndarray, "event time channel"]:
    """Return the bins from ``first`` on of each event's trial; NaN beyond it."""
    if isinstance(values, LazyActivity):
        return values.around(trial, first.astype(int), num_bins)
    bins = first.astype(int)[:, None] + np.arange(num_bins)
    beyond = (bins < 0) | (bins >= values.shape[1])
    pieces = values[trial[:, None], np.where(beyond, 0, bins)]
    pieces[beyond] = np.nan
    return pieces


@dataclass(frozen=True)
class Align(Transform):
    """The bins around events as trials; see ``align``."""

    events: list[float]
    window: tuple[float, float]

    def __call__(self, recording: Recording) -> Recording:
        """Return the trials around the events."""
        return align(recording, self.events, self.window)
