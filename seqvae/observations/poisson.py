"""Poisson spike counts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqvae.distributions import PoissonLogRate
from seqvae.distributions.kinds import Counts
from seqvae.observations.base import Observation
from seqvae.scores.floors import LEAST_COUNT
from seqvae.types import Moments


class Poisson(Observation):
    """Poisson counts: x_tn ~ Poisson(exp(w_n . f_t + b_n)), expected counts per bin.

    Args:
        factor_dim: number of factors.
        num_neurons: number of neurons.
    """

    kind = Counts()

    def __init__(self, factor_dim: int, num_neurons: int) -> None:
        super().__init__()
        self.readout = nn.Linear(factor_dim, num_neurons)

    def forward(self, factors: Float[Tensor, "*leading factor"]) -> PoissonLogRate:
        """Return the distribution of counts, batch shape (*leading, neuron)."""
        return PoissonLogRate(self.readout(factors), validate_args=False)

    @torch.no_grad()
    def initialize(self, moments: Moments) -> None:
        """Start at the mean counts, floored at 1e-9 for a silent neuron."""
        self.readout.bias.copy_(moments.mean.clamp(min=LEAST_COUNT).log())
