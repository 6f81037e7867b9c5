"""What data from 0 on have in common: a mean above 0, and the logarithm for a link."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from seqvae.distributions.kinds.base import DataKind

_LARGEST_PREDICTOR = 50.0


class LogLink(DataKind):
    """Data from 0 on, whose variance grows as their mean: Poisson, or quasi-Poisson in units."""

    def link(self, mean: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return log mean."""
        return np.log(mean)

    def log_partition(
        self, predictor: Float[np.ndarray, "*shape"]
    ) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
        """Return exp(eta), twice: it is its own derivative."""
        mean = np.exp(np.minimum(predictor, _LARGEST_PREDICTOR))
        return mean, mean

    def variance(self, mean: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return the mean."""
        return mean

    def features(
        self, smoothed: Float[np.ndarray, "*leading neuron"], unit: Float[np.ndarray, " neuron"]
    ) -> Float[np.ndarray, "*leading neuron"]:
        """Return the square root, whose variance does not grow as the mean."""
        return np.sqrt(smoothed / unit)
