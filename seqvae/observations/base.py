"""The family of observation models: factors -> p(x | factors)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution


class Observation(nn.Module, ABC):
    """Maps factors to a distribution of the data, elementwise over neurons; owns its readout.

    A member is built as ``observation(factor_dim, num_neurons, **own_options)``.

    Attributes:
        data_kind: what the data must be: ``"counts"`` (non-negative integers), ``"real"``, or
            ``"binary"`` (values in [0, 1]).
    """

    data_kind: ClassVar[Literal["counts", "real", "binary"]]

    @abstractmethod
    def forward(self, factors: Float[Tensor, "*leading factor"]) -> Distribution:
        """Return the distribution with batch shape (*leading, neuron) and empty event shape."""

    @abstractmethod
    def initialize(self, mean: Float[Tensor, " neuron"], std: Float[Tensor, " neuron"]) -> None:
        """Start at the data: at factors = 0 the distribution has the training mean (and std)."""
