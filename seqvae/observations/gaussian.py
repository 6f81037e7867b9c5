"""Real-valued signals with Gaussian noise."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from seqvae.distributions.kinds import Real
from seqvae.distributions.kinds.real import LEAST_SPREAD
from seqvae.distributions.normal_in_units import NormalInUnits
from seqvae.errors import InputError
from seqvae.observations.generalized_linear import GeneralizedLinear, LinkResponse
from seqvae.types import Moments

LEAST_ABOVE = 1e-6
"""What sigma that is learned in closed form stays above its bound, in units."""


class Gaussian(GeneralizedLinear):
    """Real values: x_tn = o_n + u_n (w_n . f_t + b_n + sigma_n e_tn) with e ~ N(0, 1).

    Origin o and unit u are mean and standard deviation of the channel in training, so that the
    units of the data change nothing in learning. The noise sigma_n = min_std + exp(log_std_n) of
    each neuron is learned and the same at all times, as in factor analysis and linear dynamical
    systems.

    A channel that does not vary in training teaches nothing: it is N(o, u^2) whatever the factors,
    with the root mean square of the other channels' units for u, and is not scored.

    Args:
        factor_dim: number of factors.
        num_neurons: number of neurons or channels.
        min_std: lower bound of sigma, in units of each channel's standard deviation in training; a
            floor for channels without noise.

    Attributes:
        origin: o, in data units; 0 until ``initialize``.
        unit: u, in data units; 1 until ``initialize``.
        varies: which channels do.

    Raises:
        InputError: ``min_std`` is negative.
    """

    kind = Real()
    has_units = True
    added_weights = ("origin", "unit", "varies")

    def __init__(self, factor_dim: int, num_neurons: int, *, min_std: float = LEAST_SPREAD) -> None:
        super().__init__()
        if not (min_std >= 0 and math.isfinite(min_std)):
            raise InputError(f"min_std must be zero or positive, got {min_std}")
        self.min_std = min_std
        self.readout = nn.Linear(factor_dim, num_neurons)
        self.log_std = nn.Parameter(torch.zeros(num_neurons))
        self.origin: Tensor
        self.unit: Tensor
        self.varies: Tensor
        self.register_buffer("origin", torch.zeros(num_neurons))
        self.register_buffer("unit", torch.ones(num_neurons))
        self.register_buffer("varies", torch.ones(num_neurons, dtype=torch.bool))

    @property
    def std(self) -> Float[Tensor, " neuron"]:
        """The noise sigma of each neuron, in units."""
        return torch.where(self.varies, self.min_std + self.log_std.exp(), 1.0)

    @property
    def loadings(self) -> Float[Tensor, "neuron factor"]:
        """The w of each neuron; 0 where it does not vary."""
        return self.readout.weight * self.varies[:, None]

    @property
    def bias(self) -> Float[Tensor, " neuron"]:
        """The b of each neuron; 0 where it does not vary."""
        return self.readout.bias * self.varies

    @property
    def scored(self) -> Bool[Tensor, " neuron"]:
        """Which channels are learned from and scored: those that vary."""
        return self.varies

    def forward(self, factors: Float[Tensor, "*leading factor"]) -> NormalInUnits:
        """Return the distribution of values, batch shape (*leading, neuron)."""
        mean = functional.linear(factors, self.loadings, self.bias)
        return NormalInUnits(mean, self.std, origin=self.origin, unit=self.unit)

    def response(
        self, predictor: Float[Tensor, "*leading chosen"], neurons: list[int]
    ) -> LinkResponse:
        """Return mean, slope and variance of the standardised data."""
        return LinkResponse(predictor, torch.ones_like(predictor), self.std[neurons].square())

    def predictor_of(
        self, mean: Float[Tensor, "*leading chosen"], neurons: list[int]
    ) -> Float[Tensor, "*leading chosen"]:
        """Return the standardised mean itself."""
        return mean

    def loadings_of(
        self, neurons: list[int]
    ) -> tuple[Float[Tensor, "chosen factor"], Float[Tensor, " chosen"]]:
        """Return w and b of some channels; 0 where a channel does not vary."""
        return self.loadings[neurons], self.bias[neurons]

    def standardized(
        self, values: Float[Tensor, "*leading chosen"], neurons: list[int]
    ) -> Float[Tensor, "*leading chosen"]:
        """Return (x - o) / u."""
        return (values - self.origin[neurons]) / self.unit[neurons]

    @torch.no_grad()
    def initialize(self, moments: Moments) -> None:
        """Start at mean and standard deviation of the data."""
        self.origin.copy_(self.kind.origin(moments))
        self.unit.copy_(self.kind.unit(moments))
        self.varies.copy_(self.kind.is_known(moments))
        self.readout.bias.zero_()
        self.take_std(torch.ones_like(self.log_std))

    @torch.no_grad()
    def take_std(self, std: Float[Tensor, " neuron"]) -> None:
        """Take the noise sigma, in units; it stays 1e-6 above the bound."""
        self.log_std.copy_((std - self.min_std).clamp_min(LEAST_ABOVE).log())

    def as_here(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return weights that are in data units, as of a version without units, in these units."""
        unit, origin = weights.get("unit"), weights.get("origin")
        if unit is None or origin is None or unit.shape != self.unit.shape:
            return weights
        if bool((unit != 1).any() | (origin != 0).any()):
            return weights
        std = (self.min_std + weights["log_std"].exp()) / self.unit - self.min_std
        return weights | {
            "readout.weight": weights["readout.weight"] / self.unit[:, None],
            "readout.bias": (weights["readout.bias"] - self.origin) / self.unit,
            "log_std": std.clamp_min(LEAST_ABOVE).log(),
        }

    def _load_from_state_dict(
        self, state_dict: MutableMapping[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """Load; weights of a version that had none of ``added_weights`` are in data units."""
        if not any(prefix + name in state_dict for name in self.added_weights):
            defaults = zip(self.added_weights, (0.0, 1.0, True), strict=True)
            for name, value in defaults:
                state_dict[prefix + name] = torch.full_like(getattr(self, name), value)
        super()._load_from_state_dict(state_dict, prefix, *arguments)
