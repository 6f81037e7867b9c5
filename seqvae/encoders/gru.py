"""Recurrent encoders: one latent a trial, or one a time bin."""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from seqvae.encoders.base import Encoder
from seqvae.encoders.heads import Head, NormalHead
from seqvae.errors import InputError
from seqvae.nn import SequenceGRU
from seqvae.nn.dropout import Dropout
from seqvae.types import Batch


class TrialGRU(Encoder):
    """q(z | x_1..T), one latent a trial, from the last states of a bidirectional GRU.

    Args:
        input_dim: held-in neurons.
        latent_dim: size of the latent.
        hidden_dim: GRU units of each direction.
        dropout: probability with which a unit of the last states is dropped in training.
        num_bins: read only the first bins of each trial (for causal inference); None reads all.
        head: kind of posterior.
    """

    def __init__(
        self,
        input_dim: int,
        latent_dim: int,
        *,
        hidden_dim: int = 64,
        dropout: float = 0.0,
        num_bins: int | None = None,
        head: Callable[[int, int], Head] = NormalHead,
    ) -> None:
        super().__init__()
        if num_bins is not None and num_bins < 1:
            raise InputError(f"num_bins must be at least 1, got {num_bins}")
        self.num_bins = num_bins
        self.gru = SequenceGRU(input_dim, hidden_dim)
        self.dropout = Dropout(dropout)
        self.head = head(self.gru.output_dim, latent_dim)

    def forward(
        self, observed: Float[Tensor, "batch encoded_time heldin"], batch: Batch
    ) -> Distribution:
        """Return q(z | x) with shape (batch, latent)."""
        return self.head(self.dropout(self.gru.last(observed[:, : self.num_bins], batch.lengths)))


class BinGRU(Encoder):
    """q(z_t | x_1..T) (or x_1..t if causal), one latent a time bin, from the states of a GRU.

    Args:
        input_dim: held-in neurons.
        latent_dim: size of the latent.
        hidden_dim: GRU units of each direction.
        dropout: probability with which a unit of the states is dropped in training.
        causal: read forward only, so that z_t depends on no later bin.
        head: kind of posterior.
    """

    def __init__(
        self,
        input_dim: int,
        latent_dim: int,
        *,
        hidden_dim: int = 64,
        dropout: float = 0.0,
        causal: bool = False,
        head: Callable[[int, int], Head] = NormalHead,
    ) -> None:
        super().__init__()
        self.gru = SequenceGRU(input_dim, hidden_dim, bidirectional=not causal)
        self.dropout = Dropout(dropout)
        self.head = head(self.gru.output_dim, latent_dim)

    def forward(
        self, observed: Float[Tensor, "batch encoded_time heldin"], batch: Batch
    ) -> Distribution:
        """Return q(z | x) with shape (batch, time, latent)."""
        return self.head(self.dropout(self.gru(observed, batch.lengths).states))
