"""The family of generators: the recurrent cell of the decoder."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class Generator(nn.Module, ABC):
    """One step of the dynamics; built as ``generator(input_dim, state_dim, **own_options)``."""

    @property
    def gru_cell(self) -> nn.GRUCell | None:
        """The cell, where ``forward`` is one step of it and nothing else: then it runs fused."""
        return None

    @abstractmethod
    def forward(
        self, inputs: Float[Tensor, "*leading input"], state: Float[Tensor, "*leading state"]
    ) -> Float[Tensor, "*leading state"]:
        """Return the next state."""

    @property
    @abstractmethod
    def recurrent_kernels(self) -> list[Tensor]:
        """The state-to-state weights, for the optional L2 term."""
