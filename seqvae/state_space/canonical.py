"""One member of each family of models that say the same about the data."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.state_space.m_step import LinearStateSpace


def canonical(model: LinearStateSpace, num_steps: int) -> LinearStateSpace:
    """Return the model in coordinates in which two fits can be compared.

    The mean of the prior path over the bins of a trial is 0 (inputs at 0) and the mean of its
    covariances the identity; the columns of the loadings are orthogonal, their lengths descend, and
    the largest entry of each is positive. So a latent is in units of its own standard deviation.

    Args:
        model: any parametrisation.
        num_steps: bins of a trial.
    """
    dynamics = model.dynamics
    mean, covariance = dynamics.initial_mean, dynamics.initial_covariance
    total, spread = mean.clone(), covariance.clone()
    for _ in range(num_steps - 1):
        mean = dynamics.transition @ mean + dynamics.offset
        covariance = dynamics.transition @ covariance @ dynamics.transition.mT
        covariance = covariance + dynamics.noise_covariance
        total, spread = total + mean, spread + covariance
    change = coordinates(spread / num_steps, model.emission.loadings)
    return model.transformed(change, total / num_steps)


def coordinates(
    covariance: Float[Tensor, "latent latent"], loadings: Float[Tensor, "neuron latent"]
) -> Float[Tensor, "latent latent"]:
    """Return the S of the latents S z with covariance I and ordered, orthogonal loadings.

    Args:
        covariance: of z.
        loadings: of z.
    """
    root = torch.linalg.cholesky(covariance)
    scaled = loadings @ root
    lengths, vectors = torch.linalg.eigh(scaled.mT @ scaled)
    rotation = vectors[:, lengths.argsort(descending=True)]
    rotated = scaled @ rotation
    largest = rotated.gather(0, rotated.abs().argmax(0, keepdim=True))[0]
    rotation = rotation * torch.where(largest < 0, -1.0, 1.0)
    inverse = torch.linalg.solve_triangular(root, torch.eye(len(root)).to(root), upper=False)
    return rotation.mT @ inverse
