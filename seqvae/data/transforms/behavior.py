"""Behaviour at another time than the activity beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqvae.data.recording import Recording
from seqvae.data.transforms.base import Transform
from seqvae.data.validation import check_number
from seqvae.errors import InputError


def resample_behavior(recording: Recording, lag: float) -> Recording:
    """Return the recording with the behaviour of ``lag`` seconds later beside each bin.

    Between bins it lies on a straight line; beyond the trial, and beside what is missing, it is
    missing.

    Args:
        recording: one with behaviour.
        lag: seconds from activity to behaviour; negative where behaviour comes first.

    Raises:
        InputError: without behaviour or the width of bins, or for a lag beyond the trial.
    """
    check_number("resample_behavior.lag", lag, "a number of seconds")
    behavior, width = recording.behavior, recording.bin_width
    if behavior is None or width is None:
        lacking = "behavior" if behavior is None else "bin_width"
        raise InputError(f"resample_behavior: the recording has no {lacking}; leave it out")
    num_bins = recording.num_time_bins
    if abs(lag) >= num_bins * width:
        raise InputError(
            f"resample_behavior.lag is {lag:g} s, but a trial has {num_bins * width:g} s; take a "
            "shorter one (in seconds)"
        )
    place = np.arange(num_bins) + round(lag / width, 9)
    before = np.floor(place).astype(int)
    share = (place - before).astype(np.float32)[:, None]
    padded = np.pad(behavior, ((0, 0), (0, 1), (0, 0)), constant_values=np.nan)
    inside = (before >= 0) & (before < num_bins)
    now, later = (padded[:, np.where(inside, before + step, num_bins)] for step in (0, 1))
    return recording.changed(behavior=np.where(share > 0, (1 - share) * now + share * later, now))


@dataclass(frozen=True)
class ResampleBehavior(Transform):
    """Behaviour of ``lag`` seconds later beside each bin; see ``resample_behavior``."""

    lag: float

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording with its behaviour moved."""
        return resample_behavior(recording, self.lag)
