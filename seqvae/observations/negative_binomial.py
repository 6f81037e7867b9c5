"""Overdispersed spike counts."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqvae.distributions import NegativeBinomialLogMean
from seqvae.distributions.kinds import Counts
from seqvae.observations.generalized_linear import GeneralizedLinear, LinkResponse
from seqvae.observations.links import Link, check_link, log_mean, mean_and_slope, predictor_at
from seqvae.scores.floors import LEAST_COUNT
from seqvae.types import Moments


class NegativeBinomial(GeneralizedLinear):
    """Overdispersed counts: mean m_tn = g(w_n . f_t + b_n), variance m_tn + alpha_n m_tn^2.

    The dispersion alpha of each neuron is learned; alpha -> 0 is the Poisson model.

    Args:
        factor_dim: number of factors.
        num_neurons: number of neurons.
        link: g, ``exp`` or ``softplus``: log(1 + exp(.)), which a large predictor cannot make
            overflow.

    Raises:
        InputError: for another ``link``.
    """

    kind = Counts()

    def __init__(self, factor_dim: int, num_neurons: int, *, link: Link = "exp") -> None:
        super().__init__()
        check_link(link)
        self.link = link
        self.readout = nn.Linear(factor_dim, num_neurons)
        self.log_dispersion = nn.Parameter(torch.full((num_neurons,), math.log(0.1)))

    def forward(self, factors: Float[Tensor, "*leading factor"]) -> NegativeBinomialLogMean:
        """Return the distribution of counts, batch shape (*leading, neuron)."""
        return NegativeBinomialLogMean(
            log_mean(self.readout(factors), self.link), self.log_dispersion, validate_args=False
        )

    def response(
        self, predictor: Float[Tensor, "*leading chosen"], neurons: list[int]
    ) -> LinkResponse:
        """Return mean, slope and variance of the counts."""
        mean, slope = mean_and_slope(predictor, self.link)
        return LinkResponse(mean, slope, mean + self.log_dispersion[neurons].exp() * mean.square())

    def predictor_of(
        self, mean: Float[Tensor, "*leading chosen"], neurons: list[int]
    ) -> Float[Tensor, "*leading chosen"]:
        """Return the predictor of mean counts above 0."""
        return predictor_at(mean.clamp(min=LEAST_COUNT), self.link)

    @torch.no_grad()
    def initialize(self, moments: Moments) -> None:
        """Start at the mean counts (floored at 1e-9) and the dispersion the variance asks for.

        alpha = (std^2 - mean) / mean^2, held between 0.01 and 100.
        """
        mean = moments.mean.clamp(min=LEAST_COUNT)
        self.readout.bias.copy_(predictor_at(mean, self.link))
        dispersion = (moments.std.square() - mean) / mean.square()
        self.log_dispersion.copy_(dispersion.clamp(0.01, 100.0).log())
