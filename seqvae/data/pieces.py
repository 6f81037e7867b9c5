"""A recording in pieces that memory bears: of several sessions, session by session."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int

from seqvae.data.recording import Recording
from seqvae.data.splits import members

_NUMBERS_AT_ONCE = 1_000_000


class Piece(NamedTuple):
    """Some trials, and the neurons that were recorded in them.

    Attributes:
        trials: indices, in order.
        neurons: indices; None: all.
        values: of these trials and neurons.
    """

    trials: Int[np.ndarray, " trial"]
    neurons: Int[np.ndarray, " neuron"] | None
    values: Float32[np.ndarray, "trial time neuron"]


def pieces(recording: Recording) -> Iterator[Piece]:
    """Yield all trials, so many at a time that memory is bounded, those of a session together."""
    owners = members(recording.neuron_sessions, recording.num_neurons)
    for name, trials in members(recording.trial_sessions, recording.num_trials).items():
        own = owners.get(name) if len(owners) > 1 else None
        width = recording.num_neurons if own is None else len(own)
        size = max(1, _NUMBERS_AT_ONCE // (recording.num_time_bins * width))
        for start in range(0, len(trials), size):
            some = trials[start : start + size]
            yield Piece(some, own, recording.read(some, own))


def constant_in(recording: Recording) -> Int[np.ndarray, " constant"]:
    """Return which neurons have one value throughout, in two entries or more."""
    least, largest = np.full((2, recording.num_neurons), np.nan, dtype=np.float32)
    count = np.zeros(recording.num_neurons, dtype=np.int64)
    for _, neurons, activity in pieces(recording):
        there = slice(None) if neurons is None else neurons
        least[there] = np.fmin(least[there], np.fmin.reduce(activity, axis=(0, 1)))
        largest[there] = np.fmax(largest[there], np.fmax.reduce(activity, axis=(0, 1)))
        count[there] += np.isfinite(activity).sum((0, 1))
    return np.flatnonzero((least == largest) & (count > 1))
