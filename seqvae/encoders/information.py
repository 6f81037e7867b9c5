"""Encoders of a chain's posterior: what the data of each bin tell about its latent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from seqvae.compute.views import Chosen, put, view_of
from seqvae.config.arguments import InConfig
from seqvae.encoders.read_in import Direct, ReadIn, Spread
from seqvae.errors import InputError
from seqvae.nn import feed_forward
from seqvae.types import Batch


class Information(NamedTuple):
    """Gaussian factors exp(h_t . z_t - z_t' J_t z_t / 2), one a bin.

    Attributes:
        vector: h_t.
        matrix: J_t, symmetric, no eigenvalue below 0.
    """

    vector: Float[Tensor, "batch time latent"]
    matrix: Float[Tensor, "batch time latent latent"]


class InformationEncoder(nn.Module, ABC):
    """Makes the Gaussian factors of a posterior.

    Built as ``encoder(input_dim, latent_dim, **own_options)``.
    """

    @abstractmethod
    def forward(
        self, observed: Float[Tensor, "batch encoded_time heldin"], batch: Batch
    ) -> Information:
        """Return h and J; bins past the trials' lengths must not change the bins before.

        Args:
            observed: the standardised data, a missing entry 0.
            batch: all else that is known of the trials, such as ``observed_mask``.

        What is answered about bins where all are missing is not used.
        """

    def among(self, chosen: Chosen) -> nn.Module:
        """Return the encoder of some of the held-in neurons; the others are missing."""
        return SpreadInformation(self, chosen)

    def start(
        self,
        gain: Float[Tensor, "heldin latent"],
        offset: Float[Tensor, "heldin latent"],
        root: Float[Tensor, "heldin latent"],
    ) -> None:
        """Start at h_t = sum_n gain_n x_tn + offset_n, J_t = sum_n root_n root_n'.

        The sums go over the neurons observed in a bin: it is what neurons with a linear readout and
        Gaussian noise tell. A member that cannot say this stays as it is.
        """


class SpreadInformation(nn.Module):
    """An encoder that is shown some of the held-in neurons at their places among all.

    Args:
        encoder: of all held-in neurons.
        chosen: which of them.
    """

    def __init__(self, encoder: InformationEncoder, chosen: Chosen) -> None:
        super().__init__()
        self.encoder, self.spread, self.chosen = encoder, Spread(chosen), chosen

    def forward(
        self, observed: Float[Tensor, "batch encoded_time some"], batch: Batch
    ) -> Information:
        """Return h and J of the encoder."""
        mask = self.spread(batch.observed_mask)
        whole = replace(batch, observed=self.spread(batch.observed), observed_mask=mask)
        return self.encoder(self.spread(observed), whole)


class InformationMLP(InformationEncoder):
    """What neurons with a linear readout would tell, and the rest by a feed-forward network.

        h_t = sum_n m_tn (v_n x_tn + b_n) + a(y_t-k .. y_t+k),
        J_t = sum_n m_tn w_n w_n' + R(y_t-k .. y_t+k) R(y_t-k .. y_t+k)',

    with m_tn = 1 where neuron n is observed, else 0, y_t the read-in of x_t, and k = ``window``.
    Without hidden layers
    there is no network: such a posterior can be exact where the readout is linear and Gaussian,
    whichever entries are missing.

    Args:
        input_dim: held-in neurons.
        latent_dim: size of the latent.
        hidden_dims: hidden layers of the network.
        window: bins before t, and bins after it, that the network sees.
        dropout: probability with which a hidden unit is dropped in training.
        read_in: factory (input_dim) -> what the network reads of the neurons.

    Raises:
        InputError: ``window`` is negative.
    """

    def __init__(
        self,
        input_dim: int,
        latent_dim: int,
        *,
        hidden_dims: Sequence[int] = (64, 64),
        window: int = 3,
        dropout: float = 0.0,
        read_in: Annotated[Callable[[int], ReadIn], InConfig(tells_default=False)] = Direct,
    ) -> None:
        super().__init__()
        if window < 0:
            raise InputError(f"window must be at least 0, got {window}")
        self.read_in = read_in(input_dim)
        self.latent_dim = latent_dim
        self.window = window
        size = 0.5 / max(input_dim, 1) ** 0.5
        self.gain = nn.Parameter(size * torch.randn(input_dim, latent_dim))
        self.offset = nn.Parameter(torch.zeros(input_dim, latent_dim))
        self.root = nn.Parameter(size * torch.randn(input_dim, latent_dim))
        self.layers = nn.Sequential()
        self.last: nn.Linear | None = None
        if hidden_dims:
            self.layers = feed_forward(
                (2 * window + 1) * self.read_in.output_dim,
                hidden_dims[-1],
                hidden_dims=hidden_dims[:-1],
                dropout=dropout,
                activate_output=True,
            )
            self.last = nn.Linear(hidden_dims[-1], latent_dim * (1 + latent_dim))
            with torch.no_grad():  # small, but not 0, where R R' has no slope
                self.last.weight.mul_(0.1)
                self.last.bias.mul_(0.1)

    def forward(
        self, observed: Float[Tensor, "batch encoded_time heldin"], batch: Batch
    ) -> Information:
        """Return h and J; see the class."""
        seen = batch.observed_mask.to(observed.dtype)
        observed = torch.where(batch.observed_mask, observed, 0.0)
        square = (self.latent_dim, self.latent_dim)
        squares = (self.root[:, :, None] * self.root[:, None, :]).flatten(1)
        vector = observed @ self.gain + seen @ self.offset
        matrix = (seen @ squares).unflatten(-1, square)
        if self.last is None:
            return Information(vector, matrix)
        features = self.last(self.layers(_windows(self.read_in(observed), self.window)))
        shift, entries = features.tensor_split([self.latent_dim], dim=-1)
        root = entries.unflatten(-1, square)
        return Information(vector + shift, matrix + root @ root.mT)

    def among(self, chosen: Chosen) -> nn.Module:
        """Return the encoder with v, b, w and the read-in of some of the neurons."""
        view = view_of(self)
        for name in ("gain", "offset", "root"):
            put(view, name, getattr(self, name)[chosen.heldin])
        view._modules["read_in"] = self.read_in.among(chosen)
        return view

    @torch.no_grad()
    def start(
        self,
        gain: Float[Tensor, "heldin latent"],
        offset: Float[Tensor, "heldin latent"],
        root: Float[Tensor, "heldin latent"],
    ) -> None:
        """Start at what the linear readout tells; of the network a small R is left."""
        self.gain.copy_(gain)
        self.offset.copy_(offset)
        self.root.copy_(root)
        if self.last is not None:
            self.last.weight[: self.latent_dim] = 0.0
            self.last.bias[: self.latent_dim] = 0.0


def _windows(
    observed: Float[Tensor, "batch time heldin"], window: int
) -> Float[Tensor, "batch time entries"]:
    """Return the entries of the bins around each bin, 0 where there is no bin."""
    if window == 0:
        return observed
    padded = functional.pad(observed, (0, 0, window, window))
    return padded.unfold(1, 2 * window + 1, 1).flatten(2)
