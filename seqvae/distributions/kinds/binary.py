"""Binary data and grey values."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Bernoulli

from seqvae.distributions.kinds.base import DataKind
from seqvae.types import Moments

LEAST_PROBABILITY = 1e-6
"""A mean stays so far from 0 and from 1."""


class Binary(DataKind):
    """Values in [0, 1]; alone, and around a mean, they are Bernoulli (scored by cross-entropy)."""

    name = "binary"
    need = "values in [0, 1]"
    cure = "rescale the data or use a Gaussian observation model"
    counts_events = False
    mean_range = (LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)

    def outside(self, activity: np.ndarray) -> Bool[np.ndarray, "*shape"]:
        """Return what is below 0 or above 1."""
        return (activity < 0) | (activity > 1)

    def is_known(self, moments: Moments) -> Bool[Tensor, " neuron"]:
        """Return which neurons vary."""
        return moments.std > 0

    def around(
        self,
        mean: Float[Tensor, "*leading neuron"],
        moments: Moments,
        *,
        spread: Float[Tensor, " neuron"],
    ) -> Bernoulli:
        """Return Bernoulli values; neither moments nor spread matter."""
        return Bernoulli(mean, validate_args=False)

    def link(self, mean: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return the log-odds."""
        return np.log(mean / (1 - mean))

    def log_partition(
        self, predictor: Float[np.ndarray, "*shape"]
    ) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
        """Return log(1 + exp(eta)), and the logistic function."""
        normalizer = np.logaddexp(0.0, predictor)
        return normalizer, np.exp(predictor - normalizer)

    def variance(self, mean: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return the mean, which is above the variance m (1 - m)."""
        return mean

    def log_likelihood(
        self,
        target: Float[np.ndarray, "*leading neuron"],
        mean: Float[np.ndarray, "*leading neuron"],
        *,
        unit: Float[np.ndarray, " neuron"],
    ) -> Float[np.ndarray, "*leading neuron"]:
        """Return x log m + (1 - x) log(1 - m)."""
        return target * np.log(mean) + (1 - target) * np.log1p(-mean)
