"""Real-valued signals."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Normal

from seqvae.distributions.kinds.base import DataKind
from seqvae.types import Moments


class Real(DataKind):
    """Any finite number, in the units of the data; alone, and around a mean, it is Gaussian."""

    name = "real"
    need = "finite numbers"
    cure = "leave out what is not"
    counts_events = False

    def outside(self, activity: np.ndarray) -> Bool[np.ndarray, "*shape"]:
        """Return nothing: a recording is finite."""
        return np.broadcast_to(False, activity.shape)

    def is_known(self, moments: Moments) -> Bool[Tensor, " neuron"]:
        """Return which neurons vary."""
        return moments.std > 0

    def around(
        self,
        mean: Float[Tensor, "*leading neuron"],
        moments: Moments,
        *,
        spread: Float[Tensor, " neuron"],
    ) -> Normal:
        """Return Gaussian values with the spread of the training entries about such means."""
        return Normal(mean, spread, validate_args=False)

    def link(self, mean: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return the mean itself."""
        return mean

    def log_partition(
        self, predictor: Float[np.ndarray, "*shape"]
    ) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
        """Return eta^2 / 2, and eta."""
        return 0.5 * predictor**2, predictor

    def variance(self, mean: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
        """Return 1: in units of deviation."""
        return np.ones_like(mean)

    def log_likelihood(
        self,
        target: Float[np.ndarray, "*leading neuron"],
        mean: Float[np.ndarray, "*leading neuron"],
        *,
        unit: Float[np.ndarray, " neuron"],
    ) -> Float[np.ndarray, "*leading neuron"]:
        """Return that of a Gaussian whose standard deviation is the unit."""
        return -0.5 * ((target - mean) / unit) ** 2

    def origin(self, moments: Moments) -> Float[Tensor, " neuron"]:
        """Return the mean."""
        return moments.mean

    def unit(self, moments: Moments) -> Float[Tensor, " neuron"]:
        """Return the standard deviation; 1 for a channel that does not vary."""
        return torch.where(moments.std > 0, moments.std, 1.0)
