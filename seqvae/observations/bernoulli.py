"""Binary data and images."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch import distributions as torch_distributions

from seqvae.distributions.kinds import Binary
from seqvae.distributions.kinds.binary import LEAST_PROBABILITY
from seqvae.observations.generalized_linear import GeneralizedLinear, LinkResponse
from seqvae.types import Moments


class Bernoulli(GeneralizedLinear):
    """Binary values: x_tn ~ Bernoulli(1 / (1 + exp(-(w_n . f_t + b_n)))).

    A grey value between 0 and 1 is scored by the cross-entropy x log p + (1 - x) log(1 - p).

    Args:
        factor_dim: number of factors.
        num_neurons: number of neurons or pixels.
    """

    kind = Binary()

    def __init__(self, factor_dim: int, num_neurons: int) -> None:
        super().__init__()
        self.readout = nn.Linear(factor_dim, num_neurons)

    def forward(self, factors: Float[Tensor, "*leading factor"]) -> torch_distributions.Bernoulli:
        """Return the distribution of values, batch shape (*leading, neuron)."""
        return torch_distributions.Bernoulli(logits=self.readout(factors), validate_args=False)

    def response(
        self, predictor: Float[Tensor, "*leading chosen"], neurons: list[int]
    ) -> LinkResponse:
        """Return p, and p (1 - p) for both slope and variance."""
        mean = torch.sigmoid(predictor).clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)
        return LinkResponse(mean, mean * (1 - mean), mean * (1 - mean))

    def predictor_of(
        self, mean: Float[Tensor, "*leading chosen"], neurons: list[int]
    ) -> Float[Tensor, "*leading chosen"]:
        """Return the logit."""
        return torch.logit(mean, eps=LEAST_PROBABILITY)

    @torch.no_grad()
    def initialize(self, moments: Moments) -> None:
        """Start at the mean, held between 1e-6 and 1 - 1e-6."""
        self.readout.bias.copy_(torch.logit(moments.mean, eps=LEAST_PROBABILITY))
