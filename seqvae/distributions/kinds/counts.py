"""Spike counts."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from seqvae.distributions.kinds.log_link import LogLink
from seqvae.distributions.poisson import PoissonLogRate
from seqvae.scores.floors import LEAST_COUNT
from seqvae.types import Moments

_FIRST_GAP = 2**24


class Counts(LogLink):
    """Numbers of events per bin: 0, 1, 2, ...; alone, and around a mean, they are Poisson."""

    name = "counts"
    need = "counts 0, 1, 2, ... below 2**24"  # above, single precision has gaps
    cure = (
        "use a Gaussian observation model (model.observation Gaussian) or give the counts per bin"
    )
    counts_events = True
    mean_range = (LEAST_COUNT, math.inf)

    def outside(self, activity: np.ndarray) -> Bool[np.ndarray, "*shape"]:
        """Return what is negative, no whole number, or too large."""
        whole = (np.floor(activity) == activity) | np.isnan(activity)
        return (activity < 0) | (activity >= _FIRST_GAP) | ~whole

    def is_known(self, moments: Moments) -> Bool[Tensor, " neuron"]:
        """Return which neurons have a spike."""
        return moments.mean > 0

    def around(
        self,
        mean: Float[Tensor, "*leading neuron"],
        moments: Moments,
        *,
        spread: Float[Tensor, " neuron"],
    ) -> PoissonLogRate:
        """Return Poisson counts; neither moments nor spread matter."""
        return PoissonLogRate(mean.log(), validate_args=False)

    def log_likelihood(
        self,
        target: Float[np.ndarray, "*leading neuron"],
        mean: Float[np.ndarray, "*leading neuron"],
        *,
        unit: Float[np.ndarray, " neuron"],
    ) -> Float[np.ndarray, "*leading neuron"]:
        """Return x log m - m."""
        return target * np.log(mean) - mean

    def features(
        self, smoothed: Float[np.ndarray, "*leading neuron"], unit: Float[np.ndarray, " neuron"]
    ) -> Float[np.ndarray, "*leading neuron"]:
        """Return the square root; counts have no unit."""
        return np.sqrt(smoothed)
