"""Deconvolved calcium: events of real size among exact zeros."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqvae.distributions import ZeroInflatedGammaLogScale
from seqvae.distributions.kinds import Nonnegative
from seqvae.distributions.kinds.base import refuse
from seqvae.errors import InputError
from seqvae.observations.base import Observation
from seqvae.types import Moments


class ZeroInflatedGamma(Observation):
    """Zeros and events: x_tn = 0 with probability 1 - q_tn, else x_tn - s ~ Gamma(k_n, theta_tn).

        q_tn = 1 / (1 + exp(-(v_n . f_t + c_n))),   theta_tn = exp(w_n . f_t + b_n),

    with the shape k of each neuron learned and the same at all times [Wei, Zhou, ..., Paninski
    2020, A zero-inflated gamma model for deconvolved calcium imaging traces]. Densities are
    against Lebesgue measure plus a point mass at 0, in the units of the data.

    Args:
        factor_dim: number of factors.
        num_neurons: number of neurons.
        threshold: s, in data units: the least size of an event that the deconvolution answers
            with; no entry may be above 0 and not above it.

    Raises:
        InputError: ``threshold`` is negative.
    """

    kind = Nonnegative()

    def __init__(self, factor_dim: int, num_neurons: int, *, threshold: float = 0.0) -> None:
        super().__init__()
        if not (threshold >= 0 and math.isfinite(threshold)):
            raise InputError(f"threshold must be zero or positive, got {threshold}")
        self.threshold = threshold
        self.readout = nn.Linear(factor_dim, num_neurons)
        self.event_readout = nn.Linear(factor_dim, num_neurons)
        self.log_shape = nn.Parameter(torch.zeros(num_neurons))

    def check_activity(self, activity: np.ndarray, *, first: int = 0) -> None:
        """Refuse what is negative, or an event that is not above the threshold."""
        super().check_activity(activity, first=first)
        wrong = (activity > 0) & (activity <= self.threshold)
        cure = "lower observation.threshold to below the least event"
        need = f"0 or values above {self.threshold:g}"
        refuse(activity, wrong, need=need, cure=cure, first=first)

    def forward(self, factors: Float[Tensor, "*leading factor"]) -> ZeroInflatedGammaLogScale:
        """Return the distribution of values, batch shape (*leading, neuron)."""
        return ZeroInflatedGammaLogScale(
            self.event_readout(factors),
            self.log_shape,
            self.readout(factors),
            threshold=self.threshold,
        )

    @torch.no_grad()
    def initialize(self, moments: Moments) -> None:
        """Start at the share of events, and at mean and variance of their sizes."""
        start = ZeroInflatedGammaLogScale.of_moments(moments, threshold=self.threshold)
        self.event_readout.bias.copy_(start.logits)
        self.log_shape.copy_(start.log_shape)
        self.readout.bias.copy_(start.log_scale)
