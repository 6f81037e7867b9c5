"""Paths run on by switching dynamics, from the last step that is known."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.compute import noise
from seqvae.distributions import DiscreteMarkovChain, StateDensities


class StepMoments(NamedTuple):
    """Mean and covariance of every step."""

    mean: Float[Tensor, "batch time latent"]
    covariance: Float[Tensor, "batch time latent latent"]


def continued_moments(
    densities: StateDensities,
    states: DiscreteMarkovChain,
    *,
    mean: Float[Tensor, "batch time latent"],
    covariance: Float[Tensor, "batch time latent latent"],
) -> StepMoments:
    """Return the moments of paths that run on by the switching prior where the mask ends.

    E[z_t 1(m_t = k)] = A_k sum_j P[j, k] E[z_{t-1} 1(m_{t-1} = j)] + c_tk P(m_t = k), and the like
    for z z': exact, though the path is no longer Gaussian.

    Args:
        densities: of the steps in each state; their mask tells where the moments are known.
        states: of all steps.
        mean: of the steps in the mask.
        covariance: of the steps in the mask.
    """
    mask, step = densities.mask, densities.dynamics
    begin = int(mask.sum(1).min())
    num_steps = mask.shape[1]
    if begin == num_steps:
        return StepMoments(mean, covariance)
    shares = states.probabilities[..., None]
    state_mean = shares * mean[:, :, None]
    square = covariance + mean[..., None] * mean[..., None, :]
    state_square = shares[..., None] * square[:, :, None]
    first, second = list(state_mean.unbind(1)), list(state_square.unbind(1))
    transition = states.log_transition.exp().expand(len(mask), -1, -1, -1)
    for t in range(begin, num_steps):
        share, inside = shares[:, t], mask[:, t, None, None]
        if t == 0:
            center = densities.initial_mean
            one = share * center
            two = share[..., None] * (densities.initial_covariance + center[:, None] * center)
        else:
            before = torch.einsum("bjk,bji->bki", transition[:, t - 1], first[t - 1])
            before_square = torch.einsum("bjk,bjil->bkil", transition[:, t - 1], second[t - 1])
            push = densities.offset[:, t - 1]
            moved = torch.einsum("kij,bkj->bki", step, before)
            one = moved + share * push
            two = step @ before_square @ step.mT + share[..., None] * densities.noise_covariance
            two = two + one[..., None] * push[..., None, :] + push[..., None] * moved[..., None, :]
        first[t] = torch.where(inside, first[t], one)
        second[t] = torch.where(inside[..., None], second[t], two)
    mean = torch.stack(first, 1).sum(2)
    square = torch.stack(second, 1).sum(2)
    return StepMoments(mean, square - mean[..., None] * mean[..., None, :])


def continued_sample(
    densities: StateDensities,
    states: Float[Tensor, "sample batch time state"],
    path: Float[Tensor, "sample batch time latent"],
) -> Float[Tensor, "sample batch time latent"]:
    """Return paths that run on by the dynamics of their states where the mask ends.

    Args:
        densities: of the steps in each state; their mask tells where the path is known.
        states: one-hot, of all steps.
        path: samples of the steps in the mask.
    """
    mask = densities.mask
    begin = int(mask.sum(1).min())
    steps = list(path.unbind(2))
    white = noise.normal(path.shape, like=path, axis=1)
    roots = torch.linalg.cholesky(densities.noise_covariance)
    for t in range(begin, mask.shape[1]):
        if t == 0:
            root = torch.linalg.cholesky(densities.initial_covariance)
            new = densities.initial_mean + white[:, :, t] @ root.mT
        else:
            moved = torch.einsum("kij,sbj->sbki", densities.dynamics, steps[t - 1])
            moved = moved + torch.einsum("kij,sbj->sbki", roots, white[:, :, t])
            new = (states[:, :, t, :, None] * (moved + densities.offset[:, t - 1])).sum(2)
        steps[t] = torch.where(mask[:, t, None], steps[t], new)
    return torch.stack(steps, dim=2)
