"""Approximations of log p(x) that are no bounds."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.distributions import GaussianMarkovChain
from seqvae.state_space.e_steps import Posterior
from seqvae.state_space.emissions import LinearEmission


@torch.no_grad()
def laplace_evidence(
    prior: GaussianMarkovChain,
    emission: LinearEmission,
    mode: Posterior,
    *,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
) -> Float[Tensor, " batch"]:
    """Return Laplace's approximation of log p(x) of each trial, in nats: not a bound.

        log p(x, z) + (time x latent) / 2 log 2 pi - log det H / 2

    at the most likely path z, with H the negative Hessian of log p(x, z) there: the integral of a
    Gaussian of the same top. Exact for a Gaussian emission; else above log p(x) or below it.

    Args:
        prior: of the paths.
        emission: the readout.
        mode: the answer of ``laplace`` (or ``exact``).
        target: the data x.
        weight: w; 0 where the data are missing.
    """
    predictor = emission.predictor(mode.mean)
    value = emission.terms(target, predictor, torch.zeros_like(predictor[:1, :1])).value
    log_joint = (weight * (value + emission.constant(target))).sum((1, 2))
    log_joint = log_joint + prior.log_prob(mode.mean)
    num_values = mode.mean.shape[1] * mode.mean.shape[2]
    return log_joint + 0.5 * (num_values * math.log(2 * math.pi) - mode.logdet)
