"""Poisson spike counts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqvae.distributions import PoissonLogRate
from seqvae.distributions.kinds import Counts
from seqvae.observations.generalized_linear import GeneralizedLinear, LinkResponse
from seqvae.observations.links import Link, check_link, log_mean, mean_and_slope, predictor_at
from seqvae.scores.floors import LEAST_COUNT
from seqvae.types import Moments


class Poisson(GeneralizedLinear):
    """Poisson counts: x_tn ~ Poisson(g(w_n . f_t + b_n)), expected counts per bin.

    Args:
        factor_dim: number of factors.
        num_neurons: number of neurons.
        link: g, ``exp`` or ``softplus``: log(1 + exp(.)), which a large predictor cannot make
            overflow. Models that learn by EM or a closed form read ``exp`` only.

    Raises:
        InputError: for another ``link``.
    """

    kind = Counts()

    def __init__(self, factor_dim: int, num_neurons: int, *, link: Link = "exp") -> None:
        super().__init__()
        check_link(link)
        self.link = link
        self.readout = nn.Linear(factor_dim, num_neurons)

    def forward(self, factors: Float[Tensor, "*leading factor"]) -> PoissonLogRate:
        """Return the distribution of counts, batch shape (*leading, neuron)."""
        return PoissonLogRate(log_mean(self.readout(factors), self.link), validate_args=False)

    def response(
        self, predictor: Float[Tensor, "*leading chosen"], neurons: list[int]
    ) -> LinkResponse:
        """Return mean, slope and variance of the counts: the variance is the mean."""
        mean, slope = mean_and_slope(predictor, self.link)
        return LinkResponse(mean, slope, mean)

    def predictor_of(
        self, mean: Float[Tensor, "*leading chosen"], neurons: list[int]
    ) -> Float[Tensor, "*leading chosen"]:
        """Return the predictor of mean counts above 0."""
        return predictor_at(mean.clamp(min=LEAST_COUNT), self.link)

    @torch.no_grad()
    def initialize(self, moments: Moments) -> None:
        """Start at the mean counts, floored at 1e-9 for a silent neuron."""
        mean = moments.mean.clamp(min=LEAST_COUNT)
        self.readout.bias.copy_(predictor_at(mean, self.link))
