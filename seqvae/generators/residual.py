"""The residual generator: a step of a neural ordinary differential equation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqvae.errors import InputError
from seqvae.generators.base import Generator
from seqvae.nn import feed_forward


class ResidualMLP(Generator):
    """g_t = g_{t-1} + step MLP([u_t, g_{t-1}]), an Euler step of a neural ODE.

    A GRU relaxes each unit towards a bounded function of the others, and needs more units than the
    dynamics have dimensions to follow them; the network here may have any velocity at any state, so
    a state of the true dimension is enough (Sedler, Versteeg & Pandarinath 2023). Its hidden units
    are x sigmoid(x) (SiLU): the velocity is smooth, and curved where the state begins, so that the
    products of a flow are learned soon; units of tanh, nearly linear there, take longer.

    Before learning the velocity is near 0, and a state stays where it began. It grows no faster
    than the state, so a run may grow exponentially but does not blow up in finite time.

    Args:
        input_dim: size of u_t; 0 for autonomous dynamics.
        state_dim: size of g_t, the dimension of the dynamics.
        hidden_dims: sizes of the network's hidden layers.
        step: how much of a velocity is added in a bin.
    """

    def __init__(
        self,
        input_dim: int,
        state_dim: int,
        *,
        hidden_dims: Sequence[int] = (64, 64),
        step: float = 0.1,
    ) -> None:
        super().__init__()
        if not step > 0:
            raise InputError(f"step must be above 0, got {step}")
        self.step = step
        self.velocity = feed_forward(
            input_dim + state_dim, state_dim, hidden_dims=hidden_dims, activation=nn.SiLU
        )
        with torch.no_grad():
            for parameter in self.velocity[-1].parameters():
                parameter.mul_(0.1)

    def forward(
        self, inputs: Float[Tensor, "*leading input"], state: Float[Tensor, "*leading state"]
    ) -> Float[Tensor, "*leading state"]:
        """Return the next state."""
        return state + self.step * self.velocity(torch.cat([inputs, state], dim=-1))

    @property
    def recurrent_kernels(self) -> list[Tensor]:
        """The weights of the network, through all of which the state passes."""
        return [layer.weight for layer in self.velocity if isinstance(layer, nn.Linear)]
