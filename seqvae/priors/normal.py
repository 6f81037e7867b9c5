"""Gaussian priors without memory, for one latent a trial or one independent latent a time bin."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Normal

from seqvae.priors.base import Prior
from seqvae.priors.parameters import log_parameter


class StandardNormal(Prior):
    """z ~ N(0, I): nothing to learn, the prior of the variational autoencoder.

    Args:
        latent_dim: size of the last axis of the latent.
    """

    mean: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(latent_dim), persistent=False)

    def forward(self, event_shape: tuple[int, ...], bin_width: float | None = None) -> Normal:
        """Return N(0, 1) of batch shape ``event_shape``; ``bin_width`` is of no concern."""
        return _normal(self.mean, torch.ones_like(self.mean), event_shape)


class LearnableNormal(Prior):
    """z_i ~ N(mu_i, sigma_i^2), mean and standard deviation learned for each dimension.

    The prior of an initial condition; over a time axis the same for every bin.

    Args:
        latent_dim: size of the last axis of the latent.
        std: standard deviation to start from.

    Raises:
        InputError: ``std`` is not positive.
    """

    def __init__(self, latent_dim: int, *, std: float = 1.0) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(latent_dim))
        self.log_std = log_parameter("std", std, latent_dim)

    def forward(self, event_shape: tuple[int, ...], bin_width: float | None = None) -> Normal:
        """Return N(mu, sigma^2) of batch shape ``event_shape``; ``bin_width`` is of no concern."""
        return _normal(self.mean, self.log_std.exp(), event_shape)


class IIDNormal(Prior):
    """u_ti ~ N(0, s_i^2), independent over time, s learned for each dimension.

    The prior of inferred inputs that are pulses without memory.

    Args:
        latent_dim: size of the last axis of the latent.
        std: standard deviation to start from.

    Raises:
        InputError: ``std`` is not positive.
    """

    def __init__(self, latent_dim: int, *, std: float = 0.3) -> None:
        super().__init__()
        self.log_std = log_parameter("std", std, latent_dim)

    def forward(self, event_shape: tuple[int, ...], bin_width: float | None = None) -> Normal:
        """Return N(0, s^2) of batch shape ``event_shape``; ``bin_width`` is of no concern."""
        return _normal(torch.zeros_like(self.log_std), self.log_std.exp(), event_shape)


def _normal(mean: Tensor, std: Tensor, event_shape: tuple[int, ...]) -> Normal:
    return Normal(mean.expand(event_shape), std.expand(event_shape), validate_args=False)
