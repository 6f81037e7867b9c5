"""Real-valued signals."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqvae.distributions.kinds.base import DataKind
from seqvae.distributions.normal_in_units import NormalInUnits
from seqvae.types import Moments

LEAST_SPREAD = 1e-3
"""Least standard deviation about a prediction, of models and baselines, in units of a channel."""
LEAST_VARIATION = 1e-9
"""Least standard deviation of a channel that varies, in units of its mean: less is rounding."""


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
        """Return which channels vary."""
        return moments.std > LEAST_VARIATION * moments.mean.abs()

    def around(
        self,
        mean: Float[Tensor, "*leading neuron"],
        moments: Moments,
        *,
        spread: Float[Tensor, " neuron"],
    ) -> NormalInUnits:
        """Return Gaussian values with the spread of the training entries about such means.

        It is at least ``LEAST_SPREAD`` units; of a channel that does not vary, a unit.
        """
        origin, unit = self.origin(moments).to(mean), self.unit(moments).to(mean)
        std = (spread.to(mean) / unit).clamp_min(LEAST_SPREAD)
        std = torch.where(self.is_known(moments).to(std.device), std, 1.0)
        return NormalInUnits((mean - origin) / unit, std, origin=origin, unit=unit)

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
        """Return the standard deviation; of a channel that does not vary, that of the others.

        The latter is the root mean square over the channels that do vary, so that all units follow
        those of the data; 1 if there are none.
        """
        varies = self.is_known(moments)
        others = moments.std[varies].double().square().mean().sqrt().to(moments.std)
        return torch.where(varies, moments.std, others if bool(varies.any()) else 1.0)
