"""Activity smoothed over time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from seqvae.data.recording import Recording
from seqvae.data.transforms.base import Transform
from seqvae.data.validation import check_number
from seqvae.errors import InputError


def smooth(recording: Recording, sd: float) -> Recording:
    """Return the recording with its activity smoothed by a Gaussian, trial by trial.

    y_t = sum_s w_s x_s / sum_s w_s over the observed bins s, w_s = exp(-(s - t)^2 / 2 sd^2), within
    four ``sd``. What is missing stays missing. Smoothed counts are real values.

    Args:
        recording: any that has time.
        sd: standard deviation of the Gaussian, in seconds.

    Raises:
        InputError: for an ``sd`` that is not positive, or bins without a width.
    """
    check_number("smooth.sd", sd, "a number of seconds")
    if sd <= 0:
        raise InputError(f"smooth.sd must be above 0 s, got {sd:g}")
    if recording.bin_width is None:
        raise InputError("smooth: the recording has no bin_width; give it beside the data")
    width = sd / recording.bin_width
    smoothed = np.empty(recording.shape, dtype=np.float32)
    for place, trial in enumerate(recording.activity):
        present = np.isfinite(trial)
        total, weight = (
            gaussian_filter1d(values, width, axis=0, mode="constant")
            for values in (np.where(present, trial, 0.0).astype(float), present.astype(float))
        )
        smoothed[place] = np.where(present, total / np.where(present, weight, 1.0), np.nan)
    return recording.changed(activity=smoothed)


@dataclass(frozen=True)
class Smooth(Transform):
    """Activity smoothed by a Gaussian of ``sd`` seconds; see ``smooth``."""

    sd: float

    def __call__(self, recording: Recording) -> Recording:
        """Return the recording with its activity smoothed."""
        return smooth(recording, self.sd)
