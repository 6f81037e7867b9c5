"""The family of encoders: x -> q(z | x)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from seqvae.types import Batch


class Encoder(nn.Module, ABC):
    """Makes the posterior of a latent; built as ``encoder(input_dim, latent_dim, **own_options)``.

    A per-bin encoder answers with batch shape (batch, time, latent), a per-trial encoder with
    (batch, latent).

    Noise, as of dropout, is drawn by ``seqvae.compute.noise`` (or ``seqvae.nn.dropout.Dropout``),
    never by torch's own generator (``torch.nn.Dropout``): a trial must be encoded alike alone and
    in any batch.

    Args:
        input_dim: held-in neurons.
        latent_dim: size of the latent.

    Attributes:
        keeps_trials: whether it has parameters of its own for each trial of the recording.
        num_bins: the encoder reads only so many bins at the start of a trial; None: all.
    """

    keeps_trials: ClassVar[bool] = False
    num_bins: int | None = None

    @abstractmethod
    def forward(
        self, observed: Float[Tensor, "batch encoded_time heldin"], batch: Batch
    ) -> Distribution:
        """Return q(z | x); bins past the trials' lengths must not change the bins before.

        Args:
            observed: the standardised data that inference sees, some dropped out in training; an
                entry that is missing is 0.
            batch: all else that is known of the trials: ``observed_mask``, ``lengths``, ``trial``.
        """

    def make_room(self, *leading: int) -> None:
        """Start anew what is kept for each trial; most encoders keep nothing.

        Args:
            leading: shape of the latent before its last axis: (trials,) of a recording, or (trials,
                bins) where each bin has a latent of its own.
        """
