"""Fluorescence as its relative change from a baseline."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Float32

from seqvae.data.recording import Recording
from seqvae.data.transforms.base import Transform
from seqvae.data.validation import check_number
from seqvae.errors import InputError


def dff(recording: Recording, *, percentile: float = 10.0, window: float = 60.0) -> Recording:
    """Return the recording with its fluorescence F as (F - F0) / F0, trial by trial.

    F0 is a percentile of F in stretches of about ``window`` seconds, each placed at the middle of
    its stretch, with straight lines between them. Missing entries are left out and stay missing.

    Args:
        recording: fluorescence of cells; its baseline must be above 0.
        percentile: of F, from 0 to 100.
        window: seconds; longer than events, shorter than bleaching.

    Raises:
        InputError: for settings out of range, or a baseline that is not above 0.
    """
    check_number("dff.percentile", percentile)
    check_number("dff.window", window, "a number of seconds")
    if not 0 <= percentile <= 100:
        raise InputError(f"dff.percentile must be from 0 to 100, got {percentile:g}")
    if recording.bin_width is None:
        raise InputError("dff: the recording has no bin_width; give it beside the data")
    if window < recording.bin_width:
        raise InputError(
            f"dff.window must be at least a bin, {recording.bin_width:g} s, got {window:g}"
        )
    bins = round(window / recording.bin_width)
    change = np.empty(recording.shape, dtype=np.float32)
    for place, trial in enumerate(recording.activity):
        base = _baseline(trial, bins, percentile)
        low = np.flatnonzero((base <= 0).any(axis=0))
        if len(low):
            assert recording.neuron_ids is not None
            raise InputError(
                f"dff: the baseline of neuron {recording.neuron_ids[low[0]]} in trial {place} is "
                f"{float(np.nanmin(base[:, low[0]])):g}; it must be above 0: give raw fluorescence"
            )
        change[place] = trial / base - 1
    return recording.changed(activity=change)


def _baseline(
    trial: Float32[np.ndarray, "time neuron"], bins: int, percentile: float
) -> Float[np.ndarray, "time neuron"]:
    """Return F0 of each bin; NaN throughout for a neuron without a value."""
    num_bins, num_neurons = trial.shape
    edges = np.linspace(0, num_bins, max(1, round(num_bins / bins)) + 1).round().astype(int)
    base = np.full((num_bins, num_neurons), np.nan)
    for neuron in range(num_neurons):
        stretches = [trial[start:stop, neuron] for start, stop in pairwise(edges)]
        present = [place for place, part in enumerate(stretches) if np.isfinite(part).any()]
        if present:
            middles = (edges[:-1] + edges[1:] - 1)[present] / 2
            values = [np.nanpercentile(stretches[place], percentile) for place in present]
            base[:, neuron] = np.interp(np.arange(num_bins), middles, values)
    return base


@dataclass(frozen=True)
class DFF(Transform):
    """Fluorescence as its relative change from a baseline; see ``dff``."""

    percentile: float = 10.0
    window: float = 60.0

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording with (F - F0) / F0."""
        return dff(recording, percentile=self.percentile, window=self.window)
