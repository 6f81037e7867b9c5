"""Heads of encoders: features -> posterior. The kind of posterior is a choice of its own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Normal
from torch.nn import functional

from seqvae.distributions import Delta
from seqvae.errors import InputError


class Head(nn.Module, ABC):
    """Makes a posterior of features; built as ``head(feature_dim, latent_dim, **own_options)``."""

    @abstractmethod
    def forward(self, features: Float[Tensor, "*leading feature"]) -> Distribution:
        """Return q(z | features) with shape (*leading, latent)."""


class NormalHead(Head):
    """Diagonal Gaussian: mean = W h + b, std = min_std + softplus(V h + c).

    Args:
        feature_dim: size of the features.
        latent_dim: size of the latent.
        initial_std: standard deviation before learning.
        min_std: floor of the standard deviation.
    """

    def __init__(
        self,
        feature_dim: int,
        latent_dim: int,
        *,
        initial_std: float = 0.5,
        min_std: float = 1e-3,
    ) -> None:
        super().__init__()
        if not initial_std > min_std > 0:
            raise InputError(f"need initial_std > min_std > 0, got {initial_std} and {min_std}")
        self.min_std = min_std
        self.linear = nn.Linear(feature_dim, 2 * latent_dim)
        with torch.no_grad():
            self.linear.weight[latent_dim:] *= 0.1
            self.linear.bias[:latent_dim] = 0.0
            self.linear.bias[latent_dim:] = math.log(math.expm1(initial_std - min_std))

    def forward(self, features: Float[Tensor, "*leading feature"]) -> Normal:
        """Return q(z | features)."""
        mean, raw_std = self.linear(features).chunk(2, dim=-1)
        return Normal(mean, self.min_std + functional.softplus(raw_std), validate_args=False)


class DeltaHead(Head):
    """A point instead of a distribution: z = W h + b. With it a VAE is an autoencoder."""

    def __init__(self, feature_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_dim, latent_dim)

    def forward(self, features: Float[Tensor, "*leading feature"]) -> Delta:
        """Return the point mass."""
        return Delta(self.linear(features))
