"""Smooth feed-forward networks that tell their derivative, too."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from seqvae.nn.dropout import Dropout


class Linearized(NamedTuple):
    """A function about a point, f(z') = f(z) + (z' - z) S.

    Attributes:
        value: f(z).
        slopes: S, the derivative by each input of each output.
    """

    value: Float[Tensor, "*leading output"]
    slopes: Float[Tensor, "*#leading input output"]


class SmoothMLP(nn.Module):
    """Linear layers with a tanh after each; acts on the last axis.

    Its derivative is found in the same pass, forwards, layer by layer: cheap where inputs are few.

    Args:
        dims: sizes of the input and of the layers.
        dropout: probability with which a unit is dropped in training.
        trial_axis: of the input, for the noise of the dropout.
    """

    def __init__(self, dims: Sequence[int], *, dropout: float = 0.0, trial_axis: int = 0) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(*pair) for pair in itertools.pairwise(dims)))
        self.dropout = Dropout(dropout, trial_axis=trial_axis)

    def forward(self, inputs: Float[Tensor, "*leading input"]) -> Float[Tensor, "*leading output"]:
        """Return f(z)."""
        return self._through(inputs, self.dropout)

    def whole(self, inputs: Float[Tensor, "*leading input"]) -> Float[Tensor, "*leading output"]:
        """Return f(z), without dropout."""
        return self._through(inputs, nn.Identity())

    def _through(self, inputs: Tensor, after_each: nn.Module) -> Tensor:
        for layer in self.layers:
            inputs = after_each(torch.tanh(layer(inputs)))
        return inputs

    def linearized(self, inputs: Float[Tensor, "*leading input"]) -> Linearized:
        """Return f(z) and its derivative there, without dropout."""
        slopes: Tensor | None = None
        for layer in self.layers:
            assert isinstance(layer, nn.Linear)
            inputs = torch.tanh(layer(inputs))
            ahead = layer.weight.mT if slopes is None else functional.linear(slopes, layer.weight)
            slopes = ahead * (1 - inputs.square())[..., None, :]
        assert slopes is not None
        return Linearized(inputs, slopes)
