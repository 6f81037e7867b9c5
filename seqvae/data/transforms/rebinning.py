"""Wider bins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from seqvae.data.binning import grouped
from seqvae.data.lazy import LazyActivity, joined, parts
from seqvae.data.recording import Recording
from seqvae.data.transforms.base import Transform
from seqvae.data.validation import are_counts, check_number
from seqvae.errors import InputError


def rebin(recording: Recording, bin_width: float) -> Recording:
    """Return the recording in wider bins: counts are summed, all else is averaged.

    Bins at the end that fill no wider one are left out. A wider bin of the activity is missing if
    one of its bins is; of behaviour it is the mean of what is there.

    Args:
        recording: its bins are of any width that divides the new one.
        bin_width: seconds.

    Raises:
        InputError: if the widths do not divide, or a trial (or what is encoded) fills no bin.
    """
    factor = num_joined(recording, bin_width)
    if factor == 1:
        return recording
    activity: Any = recording.activity
    counts = all(are_counts(values) for values in parts(activity, range(len(activity))))
    if isinstance(activity, LazyActivity):
        activity = joined(activity, factor, counts=counts)
    else:
        activity = grouped(activity, factor, axis=1)
        activity = activity.sum(axis=2) if counts else activity.mean(axis=2)
    lengths = recording.lengths // factor
    if (lengths == 0).any():
        raise InputError(
            f"rebin: trial {int(np.argmin(lengths))} is shorter than a bin of {bin_width:g} s; "
            "take a smaller bin_width"
        )
    behavior, inputs, rates = recording.behavior, recording.inputs, recording.rates
    return recording.changed(
        activity=activity,
        bin_width=recording.bin_width and factor * recording.bin_width,
        behavior=None if behavior is None else present_mean(grouped(behavior, factor, axis=1)),
        inputs=None if inputs is None else grouped(inputs, factor, axis=1).mean(axis=2),
        rates=None if rates is None else grouped(rates, factor, axis=1).mean(axis=2),
        num_encoded_bins=_encoded_bins(recording, factor),
    )


def num_joined(recording: Recording, bin_width: float) -> int:
    """Return how many bins make one of ``bin_width`` seconds.

    Raises:
        InputError: if that is no whole number.
    """
    check_number("rebin.bin_width", bin_width, "a number of seconds")
    width = recording.bin_width
    if width is None:
        raise InputError("rebin: the recording has no bin_width; give it beside the data")
    factor = round(bin_width / width)
    if factor < 1 or abs(factor * width - bin_width) > 1e-6 * bin_width:
        raise InputError(
            f"rebin.bin_width must be a multiple of {width:g} s, the bins of the recording, got "
            f"{bin_width:g}; take {max(1, factor) * width:g}"
        )
    if factor > recording.num_time_bins:
        raise InputError(
            f"rebin.bin_width {bin_width:g} is longer than the recording, "
            f"{recording.num_time_bins * width:g} s; take a smaller one"
        )
    return factor


def _encoded_bins(recording: Recording, factor: int) -> int | None:
    encoded = recording.num_encoded_bins
    if encoded is None:
        return None
    if encoded % factor:
        raise InputError(
            f"rebin: inference may see {encoded} bins, which {factor} bins at a time do not fill; "
            "take another bin_width"
        )
    return encoded // factor


def present_mean(
    values: Float32[np.ndarray, "trial wide_time factor channel"],
) -> Float32[np.ndarray, "trial wide_time channel"]:
    """Return the mean of what is there; NaN where nothing is."""
    present = np.isfinite(values)
    total = np.where(present, values, np.float32(0)).sum(axis=2)
    count = present.sum(axis=2)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)


@dataclass(frozen=True)
class Rebin(Transform):
    """Wider bins; see ``rebin``."""

    bin_width: float

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording in wider bins."""
        return rebin(recording, self.bin_width)
