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


class RecurrentEncoder(Encoder):
    """An encoder that reads the trial by a GRU.

    Args:
        hidden_dim: GRU units of each direction.
        dropout: probability with which a unit of what the head reads is dropped in training.
        head: kind of posterior.
        bidirectional: read backward, too.
    """

    def __init__(
        self,
        input_dim: int,
        latent_dim: int,
        *,
        hidden_dim: int,
        dropout: float,
        head: Callable[[int, int], Head],
        bidirectional: bool = True,
    ) -> None:
        super().__init__()
        self.gru = SequenceGRU(input_dim, hidden_dim, bidirectional=bidirectional)
        self.dropout = Dropout(dropout)
        self.head = head(self.gru.output_dim, latent_dim)


class TrialGRU(RecurrentEncoder):
    """q(z | x_1..T), one latent a trial, from the last states of a bidirectional GRU.

    Args:
        num_bins: read only the first bins of each trial (for causal inference); None reads all.
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
        super().__init__(input_dim, latent_dim, hidden_dim=hidden_dim, dropout=dropout, head=head)
        if num_bins is not None and num_bins < 1:
            raise InputError(f"num_bins must be at least 1, got {num_bins}")
        self.num_bins = num_bins

    def forward(
        self, observed: Float[Tensor, "batch encoded_time heldin"], batch: Batch
    ) -> Distribution:
        """Return q(z | x) with shape (batch, latent)."""
        return self.head(self.dropout(self.gru.last(observed[:, : self.num_bins], batch.lengths)))


class BinGRU(RecurrentEncoder):
    """q(z_t | x_1..T) (or x_1..t if causal), one latent a time bin, from the states of a GRU.

    Args:
        causal: read forward only, so that z_t depends on no later bin.
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
        super().__init__(
            input_dim,
            latent_dim,
            hidden_dim=hidden_dim,
            dropout=dropout,
            head=head,
            bidirectional=not causal,
        )

    def forward(
        self, observed: Float[Tensor, "batch encoded_time heldin"], batch: Batch
    ) -> Distribution:
        """Return q(z | x) with shape (batch, time, latent)."""
        return self.head(self.dropout(self.gru(observed, batch.lengths).states))
