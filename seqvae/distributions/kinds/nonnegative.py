"""Real values from 0 on, many of them exactly 0, such as deconvolved calcium."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqvae.distributions.kinds.log_link import LogLink
from seqvae.distributions.zero_inflated_gamma import ZeroInflatedGammaLogScale
from seqvae.types import Moments

LEAST_RATIO = 1e-9
"""A mean is at least so many times the neuron's own, that no event is impossible."""


class Nonnegative(LogLink):
    """Values of 0 or above in any unit; alone, and around a mean, they are zero-inflated gamma.

    Densities are against Lebesgue measure plus a point mass at 0, as those of
    ``ZeroInflatedGammaLogScale``: of all models of such data, so that they compare.
    """

    name = "nonnegative"
    need = "values of 0 or above"
    cure = "use a Gaussian observation model, or set what is below 0 to 0 if it is noise"
    counts_events = False
    mean_range = (torch.finfo(torch.float32).tiny, math.inf)

    def outside(self, activity: np.ndarray) -> Bool[np.ndarray, "*shape"]:
        """Return what is negative."""
        return activity < 0

    def is_known(self, moments: Moments) -> Bool[Tensor, " neuron"]:
        """Return which neurons have an event."""
        return moments.mean > 0

    def around(
        self,
        mean: Float[Tensor, "*leading neuron"],
        moments: Moments,
        *,
        spread: Float[Tensor, " neuron"],
    ) -> ZeroInflatedGammaLogScale:
        """Return the null model of the training moments, moved to another mean.

        A mean r times that of training multiplies the odds of an event by r, and the scale by what
        is left, 1 - q + q r: where events are rare it is their number that changes, where there are
        no zeros it is their size. The shape stays. Nothing but ``r`` and the moments matter, so
        that the unit of the data changes no comparison.
        """
        null = ZeroInflatedGammaLogScale.of_moments(Moments(*(part.to(mean) for part in moments)))
        ratio = (mean / null.mean).clamp_min(LEAST_RATIO)
        left = torch.lerp(torch.ones_like(ratio), ratio, null.logits.sigmoid())
        return ZeroInflatedGammaLogScale(
            null.logits + ratio.log(), null.log_shape, null.log_scale + left.log()
        )

    def log_likelihood(
        self,
        target: Float[np.ndarray, "*leading neuron"],
        mean: Float[np.ndarray, "*leading neuron"],
        *,
        unit: Float[np.ndarray, " neuron"],
    ) -> Float[np.ndarray, "*leading neuron"]:
        """Return the quasi-likelihood x log m - m in units."""
        return (target * np.log(mean / unit) - mean) / unit

    def unit(self, moments: Moments) -> Float[Tensor, " neuron"]:
        """Return the mean; 1 for a neuron without an event."""
        return torch.where(moments.mean > 0, moments.mean, 1.0)
