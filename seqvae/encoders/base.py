"""The family of encoders: x -> q(z | x)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.distributions import Distribution


class Encoder(nn.Module, ABC):
    """Makes the posterior of a latent; built as ``encoder(input_dim, latent_dim, **own_options)``.

    A per-bin encoder answers with batch shape (batch, time, latent), a per-trial encoder with
    (batch, latent).

    Attributes:
        num_bins: the encoder reads only so many bins at the start of a trial; None: all.
    """

    num_bins: int | None = None

    @abstractmethod
    def forward(
        self,
        observed: Float[Tensor, "batch time heldin"],
        observed_mask: Bool[Tensor, "batch time heldin"],
        lengths: Int[Tensor, " batch"],
    ) -> Distribution:
        """Return q(z | x); bins past ``lengths`` must not change the bins before."""
