"""The parameters of a linear state-space model as a vector without constraints."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.state_space.dynamics import Dynamics
from seqvae.state_space.m_step import LinearStateSpace


def to_vector(model: LinearStateSpace) -> Float[Tensor, " parameter"]:
    """Return A, B, b, m, the readout, and Q and V by their log-Cholesky factors.

    S = L L' with L lower triangular is told by its entries below the diagonal and the logarithms
    of those on it [Pinheiro & Bates 1996, Stat. Comput. 6:289], so any vector is of a model whose
    covariances are positive definite.
    """
    dynamics, emission = model
    return torch.cat([part.flatten() for part in _parts(dynamics) + emission.unconstrained()])


def from_vector(vector: Float[Tensor, " parameter"], like: LinearStateSpace) -> LinearStateSpace:
    """Return the model of a vector.

    Args:
        vector: as ``to_vector`` returns it.
        like: a model of the same sizes.
    """
    dynamics, emission = like
    shapes = [part.shape for part in _parts(dynamics) + emission.unconstrained()]
    parts = vector.split([shape.numel() for shape in shapes])
    transition, inputs, offset, mean, noise, initial, *readout = (
        part.view(shape) for part, shape in zip(parts, shapes, strict=True)
    )
    return LinearStateSpace(
        replace(
            dynamics,
            transition=transition,
            input_matrix=inputs,
            offset=offset,
            initial_mean=mean,
            noise_covariance=_covariance(noise),
            initial_covariance=_covariance(initial),
        ),
        emission.constrained(readout),
    )


def _parts(dynamics: Dynamics) -> list[Tensor]:
    return [
        dynamics.transition,
        dynamics.input_matrix,
        dynamics.offset,
        dynamics.initial_mean,
        _log_cholesky(dynamics.noise_covariance),
        _log_cholesky(dynamics.initial_covariance),
    ]


def _log_cholesky(covariance: Float[Tensor, "latent latent"]) -> Float[Tensor, "latent latent"]:
    root = torch.linalg.cholesky_ex(covariance).L
    return root.tril(-1) + root.diagonal().log().diag()


def _covariance(log_root: Float[Tensor, "latent latent"]) -> Float[Tensor, "latent latent"]:
    root = log_root.tril(-1) + log_root.diagonal().exp().diag()
    return root @ root.mT
