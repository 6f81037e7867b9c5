"""Heads of encoders: features -> posterior. The kind of posterior is a choice of its own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)
from torch.nn import functional

from seqvae.distributions import Delta
from seqvae.errors import InputError


class Head(nn.Module, ABC):
    """Makes a posterior of features; built as ``head(feature_dim, latent_dim, **own_options)``.

    Args:
        feature_dim: size of the features.
        latent_dim: size of the latent.
    """

    @abstractmethod
    def forward(self, features: Float[Tensor, "*leading feature"]) -> Distribution:
        """Return q(z | features) with shape (*leading, latent)."""


class NormalHead(Head):
    """Diagonal Gaussian: mean = W h + b, std = min_std + softplus(V h + c).

    Args:
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


class FullNormalHead(Head):
    """Gaussian with any covariance over the latent dimensions: S = L L'.

    mean = W h + b, diag(L) = min_std + softplus(V h + c), and below it L = U h.

    Args:
        initial_std: standard deviation before learning.
        min_std: floor of the diagonal of L.
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
        self.alone = NormalHead(feature_dim, latent_dim, initial_std=initial_std, min_std=min_std)
        self.below = nn.Linear(feature_dim, latent_dim * (latent_dim - 1) // 2)
        _make_small(self.below)
        self.register_buffer("place", torch.tril_indices(latent_dim, latent_dim, -1), False)
        self.place: Tensor

    def forward(self, features: Float[Tensor, "*leading feature"]) -> MultivariateNormal:
        """Return q(z | features), its last axis one event."""
        alone = self.alone(features)
        scale = torch.diag_embed(alone.stddev)
        scale[..., self.place[0], self.place[1]] = self.below(features)
        return MultivariateNormal(alone.mean, scale_tril=scale, validate_args=False)


class LowRankNormalHead(Head):
    """Gaussian whose covariance is diagonal but for a few directions: S = D^2 + U U'.

    mean = W h + b, D = min_std + softplus(V h + c) and U = R h of ``rank`` columns.

    Args:
        rank: number of directions.
        initial_std: D before learning.
        min_std: floor of D.
    """

    def __init__(
        self,
        feature_dim: int,
        latent_dim: int,
        *,
        rank: int = 1,
        initial_std: float = 0.5,
        min_std: float = 1e-3,
    ) -> None:
        super().__init__()
        self.alone = NormalHead(feature_dim, latent_dim, initial_std=initial_std, min_std=min_std)
        if rank < 1:
            raise InputError(f"rank must be at least 1, got {rank}")
        self.shape = (latent_dim, rank)
        self.directions = nn.Linear(feature_dim, latent_dim * rank)
        _make_small(self.directions)

    def forward(self, features: Float[Tensor, "*leading feature"]) -> LowRankMultivariateNormal:
        """Return q(z | features), its last axis one event."""
        alone = self.alone(features)
        directions = self.directions(features).unflatten(-1, self.shape)
        return LowRankMultivariateNormal(
            alone.mean, directions, alone.variance, validate_args=False
        )


class DeltaHead(Head):
    """A point instead of a distribution: z = W h + b. With it a VAE is an autoencoder."""

    def __init__(self, feature_dim: int, latent_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(feature_dim, latent_dim)

    def forward(self, features: Float[Tensor, "*leading feature"]) -> Delta:
        """Return the point mass."""
        return Delta(self.linear(features))


def _make_small(linear: nn.Linear) -> None:
    """Start near 0, but not at it, where U U' has no slope."""
    with torch.no_grad():
        linear.weight.mul_(0.1)
        linear.bias.mul_(0.1)
