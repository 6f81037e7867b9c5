"""Samples of a posterior by the noise that depends on its trials."""

from __future__ import annotations

import torch
from torch import Size, Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from seqvae.compute import noise


def draw(distribution: Distribution, num_samples: int) -> Tensor:
    """Draw so many samples of a distribution whose first batch axis are trials.

    Torch's Gaussians are drawn by ``seqvae.compute.noise``, as the distributions of this package
    draw themselves; any other by its own method, and so by torch's generator. Differentiable where
    the distribution allows it.
    """
    shape = Size((num_samples,))
    if not noise.is_keyed() or not distribution.has_rsample:
        sampler = distribution.rsample if distribution.has_rsample else distribution.sample
        return sampler(shape)
    if isinstance(distribution, Independent):
        return draw(distribution.base_dist, num_samples)
    if type(distribution) not in (Normal, MultivariateNormal, LowRankMultivariateNormal):
        return distribution.rsample(shape)
    mean = distribution.mean
    white = noise.normal((*shape, *mean.shape), like=mean, axis=1)
    if isinstance(distribution, Normal):
        return mean + distribution.scale * white
    if isinstance(distribution, MultivariateNormal):
        return mean + _product(distribution.scale_tril, white)
    assert isinstance(distribution, LowRankMultivariateNormal)
    factor = distribution.cov_factor
    common = noise.normal((*white.shape[:-1], factor.shape[-1]), like=mean, axis=1)
    return mean + _product(factor, common) + distribution.cov_diag.sqrt() * white


def _product(matrix: Tensor, vector: Tensor) -> Tensor:
    return torch.matmul(matrix, vector[..., None])[..., 0]
