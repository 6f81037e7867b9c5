"""Real-valued signals with Gaussian noise."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal

from seqvae.distributions.kinds import Real
from seqvae.errors import InputError
from seqvae.observations.base import Observation
from seqvae.types import Moments


class Gaussian(Observation):
    """Real values: x_tn ~ N(w_n . f_t + b_n, sigma_n^2), in the units of the data.

    The noise sigma_n = min_std + exp(log_std_n) of each neuron is learned and the same at all
    times, as in factor analysis and linear dynamical systems.

    Args:
        factor_dim: number of factors.
        num_neurons: number of neurons or channels.
        min_std: lower bound of sigma, in data units; a floor for channels without noise.

    Raises:
        InputError: ``min_std`` is negative.
    """

    kind = Real()

    def __init__(self, factor_dim: int, num_neurons: int, *, min_std: float = 1e-3) -> None:
        super().__init__()
        if not (min_std >= 0 and math.isfinite(min_std)):
            raise InputError(f"min_std must be zero or positive, got {min_std}")
        self.min_std = min_std
        self.readout = nn.Linear(factor_dim, num_neurons)
        self.log_std = nn.Parameter(torch.zeros(num_neurons))

    @property
    def std(self) -> Float[Tensor, " neuron"]:
        """The noise sigma of each neuron."""
        return self.min_std + self.log_std.exp()

    def forward(self, factors: Float[Tensor, "*leading factor"]) -> Normal:
        """Return the distribution of values, batch shape (*leading, neuron)."""
        return Normal(self.readout(factors), self.std, validate_args=False)

    @torch.no_grad()
    def initialize(self, moments: Moments) -> None:
        """Start at mean and standard deviation of the data; the latter at 1e-6 above the bound."""
        self.readout.bias.copy_(moments.mean)
        self.log_std.copy_((moments.std - self.min_std).clamp(min=1e-6).log())
