"""Read-ins: from held-in neurons to what encoders read, so that these know no neuron."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqvae.compute.views import Chosen, rows_of
from seqvae.errors import InputError


class ReadIn(nn.Module, ABC):
    """Maps standardised data to the input of an encoder; built as ``read_in(input_dim)``.

    What is learned of the neurons for inference is here alone, so that neurons of several sessions
    are read into one space, and neurons of another session need a read-in only.

    Args:
        input_dim: held-in neurons.

    Attributes:
        output_dim: size of what encoders read.
    """

    output_dim: int

    @abstractmethod
    def forward(
        self, observed: Float[Tensor, "*leading heldin"]
    ) -> Float[Tensor, "*leading read_in"]:
        """Read bins of standardised data, of which an entry that is missing is 0."""

    @abstractmethod
    def among(self, chosen: Chosen) -> nn.Module:
        """Return what reads some of the held-in neurons as all are read, the others missing."""

    def start(self, weight: Float[Tensor, "heldin component"]) -> None:
        """Start where several sessions are aligned, if the member can say it.

        Args:
            weight: of standardised data for ``output_dim`` components.
        """


class Direct(ReadIn):
    """The held-in neurons themselves."""

    def __init__(self, input_dim: int) -> None:
        super().__init__()
        self.output_dim = input_dim

    def forward(
        self, observed: Float[Tensor, "*leading heldin"]
    ) -> Float[Tensor, "*leading read_in"]:
        """Return the data."""
        return observed

    def among(self, chosen: Chosen) -> Spread:
        """Return what puts some of the neurons at their places among all."""
        return Spread(chosen)


class Spread(nn.Module):
    """Some of the held-in neurons at their places among all; the others are missing.

    Args:
        chosen: which neurons.
    """

    def __init__(self, chosen: Chosen) -> None:
        super().__init__()
        self.chosen = chosen

    def forward(self, observed: Float[Tensor, "*leading some"]) -> Float[Tensor, "*leading heldin"]:
        """Return the data of all held-in neurons."""
        whole = observed.new_zeros(*observed.shape[:-1], self.chosen.num_heldin)
        return whole.index_copy(-1, self.chosen.heldin, observed)


class LinearReadIn(ReadIn):
    """y_t = W' x_t, x the standardised held-in neurons: of several sessions W has rows for each.

    With several sessions learning begins where they are aligned (``data.alignment``), as LFADS
    stitches them [Pandarinath et al. 2018, Nat. Methods 15:805].

    Args:
        output_dim: size of y.

    Raises:
        InputError: for a size below 1.
    """

    def __init__(self, input_dim: int, *, output_dim: int = 16) -> None:
        super().__init__()
        if output_dim < 1:
            raise InputError(f"output_dim of a LinearReadIn must be at least 1, got {output_dim}")
        self.output_dim = output_dim
        self.weight = nn.Parameter(torch.randn(input_dim, output_dim) / max(input_dim, 1) ** 0.5)

    def forward(
        self, observed: Float[Tensor, "*leading heldin"]
    ) -> Float[Tensor, "*leading read_in"]:
        """Return W' x."""
        return observed @ self.weight

    def among(self, chosen: Chosen) -> nn.Module:
        """Return the read-in whose W has the rows of some of the neurons."""
        return rows_of(self, chosen.heldin, chosen.num_heldin)

    @torch.no_grad()
    def start(self, weight: Float[Tensor, "heldin component"]) -> None:
        """Take the weights."""
        self.weight.copy_(weight)
