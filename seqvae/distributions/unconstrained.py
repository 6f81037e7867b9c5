"""Gaussians told by free numbers, for whoever optimises a posterior itself."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, Normal


def gaussian_of_root(
    mean: Float[Tensor, "*leading latent"], log_root: Float[Tensor, "*root"]
) -> Normal | MultivariateNormal:
    """Return the Gaussian of a mean and a root of its covariance, any numbers.

    ``log_root`` of the shape of ``mean`` holds the logarithm of the standard deviation; with one
    axis more the Cholesky factor, of its diagonal the logarithm; what stands above is not used.
    """
    if log_root.ndim == mean.ndim:
        return Normal(mean, log_root.exp(), validate_args=False)
    scale = log_root.tril(-1) + torch.diag_embed(log_root.diagonal(dim1=-2, dim2=-1).exp())
    return MultivariateNormal(mean, scale_tril=scale, validate_args=False)


def log_root(
    posterior: Normal | MultivariateNormal | LowRankMultivariateNormal,
) -> Float[Tensor, "*root"]:
    """Return the root that ``gaussian`` makes the same Gaussian of; of low rank becomes full."""
    if isinstance(posterior, Normal):
        return posterior.stddev.log()
    scale = posterior.scale_tril
    return scale.tril(-1) + torch.diag_embed(scale.diagonal(dim1=-2, dim2=-1).log())
