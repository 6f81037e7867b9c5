"""The loss of a training step: the bound, what shapes its KL, and how its gradient is estimated."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.compute.ranks import ALONE, Share
from seqvae.distributions import kl_by_dimension, log_density
from seqvae.errors import InputError
from seqvae.objectives.bounds import Bound, bound, log_likelihood, log_weights
from seqvae.objectives.objective import Objective
from seqvae.types import Batch, Output


class Loss(NamedTuple):
    """What a training step minimises, in nats per trial, and the terms of the bound.

    The gradient of ``value`` is the estimate that the objective asks for.
    """

    value: Float[Tensor, ""]
    terms: Bound


def training_loss(
    objective: Objective, output: Output, batch: Batch, *, step: int, share: Share = ALONE
) -> Loss:
    """Return the loss of a batch at an optimiser step.

    The gradient of E_q[F(z)], F the integrand of the bound, is taken through the sample z, or, by
    the score function, with z held fixed,

        grad E_q[F] = E_q[grad F(z) + (F(z) - b) grad log q(z)],

    with b the mean of F over the other samples of the trial. The KL is a part of F as ``kl`` knows
    it: a closed form is the same for every sample, drops out of F - b, and has its exact gradient;
    one along the path, or a log-ratio, does not. For the importance-weighted bound L of all samples
    F - b is L - L_k, where in L_k the geometric mean of the other weights stands for that of
    sample k. [Ranganath et al. 2014; Mnih & Rezende 2016; Kool et al. 2019]

    Args:
        objective: the settings.
        output: what the model answered; for the score function its samples must be constants.
        batch: what it was asked.
        step: the optimiser step, for the warm-ups.
        share: what this batch is of those of several processes. The average of their gradients is
            then that of all trials.

    Raises:
        InputError: if the score function is asked for and the model draws through its parameters.
    """
    beta, likelihood = objective.beta_at(step), log_likelihood(output, batch)
    terms = bound(output, batch, likelihood=likelihood)
    if objective.bound == "iwae":
        weights = log_weights(output, batch, beta=beta, likelihood=likelihood)
        value = -share.scale * _log_mean_exp(weights).mean()
    elif objective.shapes_kl:
        divergence = share.mean_of_all(_by_dimension(output).mean(dim=(0, 1)))
        value = _penalty(objective, divergence, step)
        value = value - share.scale * terms.log_likelihood.mean()
    else:
        value = -share.scale * terms.elbo(beta).mean()
    if not objective.uses_score:
        return Loss(value, terms)
    score = _score(output)
    with torch.no_grad():
        if objective.bound == "iwae":
            advantage = _log_mean_exp(weights) - _without_each(weights, objective)
        else:
            prices = _kl_weights(objective, output, step, share)
            signal = likelihood - _by_dimension(output) @ prices
            advantage = (signal - _mean_of_others(signal, objective)) / len(signal)
    # worth 0, and only its gradient counts
    surrogate = (advantage * (score - score.detach())).sum(dim=0).mean()
    return Loss(value - share.scale * surrogate, terms)


def _penalty(
    objective: Objective, divergence: Float[Tensor, " dimension"], step: int
) -> Float[Tensor, ""]:
    """Return what the KL of each dimension, averaged over the batch, costs."""
    beta, target = objective.beta_at(step), objective.kl_target_at(step)
    if target is not None:
        return beta * (divergence.sum() - target).abs()
    if objective.free_bits > 0:
        divergence = divergence.clamp_min(objective.free_bits)
    return beta * divergence.sum()


def _kl_weights(
    objective: Objective, output: Output, step: int, share: Share
) -> Float[Tensor, " dimension"]:
    """Return what a nat more of the KL of each dimension costs."""
    with torch.enable_grad():
        local_mean = _by_dimension(output).detach().mean(dim=(0, 1))
        divergence = share.mean_of_all(local_mean).requires_grad_()
        (weights,) = torch.autograd.grad(_penalty(objective, divergence, step), divergence)
    return weights


def _by_dimension(output: Output) -> Float[Tensor, "sample batch dimension"]:
    return torch.cat([kl_by_dimension(latent) for latent in output.latents.values()], dim=-1)


def _score(output: Output) -> Float[Tensor, "sample batch"]:
    """Return log q of the samples, summed over latents."""
    for name, latent in output.latents.items():
        if latent.sample.requires_grad:
            raise InputError(
                f"gradient 'score_function' needs samples drawn as constants, and {name} is drawn "
                "through the parameters by this model; use gradient 'reparameterised'"
            )
    return torch.stack(
        [log_density(latent.posterior, latent) for latent in output.latents.values()]
    ).sum(dim=0)


def _mean_of_others(
    signal: Float[Tensor, "sample batch"], objective: Objective
) -> Float[Tensor, "#sample #batch"]:
    if objective.baseline == "none":
        return signal.new_zeros(1, 1)
    return (signal.sum(dim=0) - signal) / (len(signal) - 1)


def _without_each(
    weights: Float[Tensor, "sample batch"], objective: Objective
) -> Float[Tensor, "#sample #batch"]:
    """Return the bound with, in place of each sample, the geometric mean of the others."""
    if objective.baseline == "none":
        return weights.new_zeros(1, 1)
    is_self = torch.eye(len(weights), dtype=torch.bool, device=weights.device)[..., None]
    replaced = torch.where(is_self, _mean_of_others(weights, objective), weights)
    return torch.logsumexp(replaced, dim=1) - math.log(len(weights))


def _log_mean_exp(weights: Float[Tensor, "sample batch"]) -> Float[Tensor, " batch"]:
    return torch.logsumexp(weights, dim=0) - math.log(len(weights))
