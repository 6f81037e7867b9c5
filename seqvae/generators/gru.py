"""The GRU generator."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from seqvae.generators.base import Generator
from seqvae.nn.recurrent import gru_step, open_update_gates


class GRU(Generator):
    """g_t = GRU(u_t, g_{t-1}): torch's equation, reset after the recurrent product.

    A state is a convex combination of the last state and a tanh, so |g_t| <= max(|g_0|, 1).
    """

    def __init__(self, input_dim: int, state_dim: int) -> None:
        super().__init__()
        self.cell = nn.GRUCell(input_dim, state_dim)
        open_update_gates(self.cell)

    def forward(
        self, inputs: Float[Tensor, "*leading input"], state: Float[Tensor, "*leading state"]
    ) -> Float[Tensor, "*leading state"]:
        """Return the next state."""
        return gru_step(
            functional.linear(inputs, self.cell.weight_ih, self.cell.bias_ih),
            functional.linear(state, self.cell.weight_hh, self.cell.bias_hh),
            state,
        )

    @property
    def gru_cell(self) -> nn.GRUCell | None:
        """The cell; a subclass may do more than one step of it."""
        return self.cell if type(self) is GRU else None

    @property
    def recurrent_kernels(self) -> list[Tensor]:
        """The state-to-state weights."""
        return [self.cell.weight_hh]
