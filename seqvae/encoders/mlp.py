"""The per-bin encoder of the static VAE."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from seqvae.encoders.base import Encoder
from seqvae.encoders.heads import Head, NormalHead
from seqvae.nn import feed_forward
from seqvae.types import Batch


class MLP(Encoder):
    """q(z_t | x_t) by a feed-forward network; each bin on its own.

    Args:
        hidden_dims: hidden layers; none makes the encoder linear.
        dropout: probability with which a hidden unit is dropped in training.
        head: kind of posterior.
    """

    def __init__(
        self,
        input_dim: int,
        latent_dim: int,
        *,
        hidden_dims: Sequence[int] = (128,),
        dropout: float = 0.0,
        head: Callable[[int, int], Head] = NormalHead,
    ) -> None:
        super().__init__()
        *before, last = (input_dim, *hidden_dims)
        self.layers = nn.Sequential()
        if before:
            self.layers = feed_forward(
                input_dim, last, hidden_dims=before[1:], dropout=dropout, activate_output=True
            )
        self.head = head(last, latent_dim)

    def forward(
        self, observed: Float[Tensor, "batch encoded_time heldin"], batch: Batch
    ) -> Distribution:
        """Return q(z | x) with shape (batch, time, latent)."""
        return self.head(self.layers(observed))
