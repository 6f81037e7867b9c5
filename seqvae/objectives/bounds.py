"""The evidence lower bound in its three forms, and the importance-weighted bound."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, kl_divergence

from seqvae.distributions import Delta, entropy, kl, log_density, log_ratio
from seqvae.distributions.divergence import bare
from seqvae.types import Batch, Output


class Bound(NamedTuple):
    """The terms of the evidence lower bound, in nats, for each trial of a batch.

    Attributes:
        log_likelihood: E_q[sum over bins and neurons of weight * log p(x | f)].
        kl: KL(q || p) of each latent by name.
    """

    log_likelihood: Float[Tensor, " batch"]
    kl: dict[str, Float[Tensor, " batch"]]

    def elbo(self, beta: float = 1.0) -> Float[Tensor, " batch"]:
        """Return log-likelihood - beta * sum of the KLs; beta = 1 is the bound on log p(x)."""
        return self.log_likelihood - beta * sum(
            self.kl.values(), torch.zeros(()).to(self.log_likelihood)
        )


def log_likelihood(output: Output, batch: Batch) -> Float[Tensor, "sample batch"]:
    """Return sum over (t, n) of weight_tn log p(x_tn | f_t), in nats, for each sample and trial."""
    return weighted_log_prob(output.emission, batch.target, batch.weight)


def weighted_log_prob(
    emission: Distribution,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
) -> Float[Tensor, "sample batch"]:
    """Return sum over (t, n) of weight_tn log p(target_tn), in nats, for each sample and trial.

    An emission may have a method ``weighted_log_prob(value, weight)`` that answers with this very
    sum in less time than ``log_prob`` takes, as ``PoissonLogRate`` has.
    """
    if hasattr(emission, "weighted_log_prob"):
        return emission.weighted_log_prob(target, weight)
    return (weight * emission.log_prob(target)).sum(dim=(-2, -1))


def bound(
    output: Output, batch: Batch, *, likelihood: Float[Tensor, "sample batch"] | None = None
) -> Bound:
    """Return the terms of the evidence lower bound, averaged over posterior samples.

    ELBO = E_q[sum_tn weight_tn log p(x_tn | f_t)] - sum over latents of KL(q || p), in nats per
    trial, with exact normalisation of every density (Kingma & Welling 2014).

    Args:
        output: what the model answered.
        batch: what it was asked.
        likelihood: the ``log_likelihood``, where it is known already.
    """
    likelihood = log_likelihood(output, batch) if likelihood is None else likelihood
    return Bound(
        likelihood.mean(dim=0),
        {name: kl(latent).mean(dim=0) for name, latent in output.latents.items()},
    )


def has_elbo(output: Output) -> bool:
    """Return whether there is a bound to report: there are latents, with densities."""
    posteriors = [bare(latent.posterior) for latent in output.latents.values()]
    return bool(posteriors) and not any(isinstance(posterior, Delta) for posterior in posteriors)


def joint_plus_entropy(
    output: Output, batch: Batch, *, likelihood: Float[Tensor, "sample batch"] | None = None
) -> Float[Tensor, " batch"]:
    """Return the evidence lower bound as E_q[log p(x, z)] + H(q), in nats per trial.

    The same number as ``bound(...).elbo()`` where the mean over q is exact; by samples it has the
    noise of log p(z), too. Arguments as those of ``bound``.
    """
    joint = log_likelihood(output, batch) if likelihood is None else likelihood
    for latent in output.latents.values():
        joint = joint + log_density(latent.prior, latent) + entropy(latent)
    return joint.mean(dim=0)


def evidence_minus_kl(
    log_evidence: Float[Tensor, " batch"], posterior: Distribution, truth: Distribution
) -> Float[Tensor, " batch"]:
    """Return the evidence lower bound as log p(x) - KL(q(z | x) || p(z | x)), in nats per trial.

    Args:
        log_evidence: log p(x), where it is known.
        posterior: q(z | x); the first axis is the trial.
        truth: p(z | x), of the same shape.
    """
    return log_evidence - kl_divergence(posterior, truth).flatten(1).sum(1)


def log_weights(
    output: Output,
    batch: Batch,
    *,
    beta: float = 1.0,
    likelihood: Float[Tensor, "sample batch"] | None = None,
) -> Float[Tensor, "sample batch"]:
    """Return log p(x | z) - beta (log q(z | x) - log p(z)) of each sample and trial, in nats.

    At beta = 1 it is log p(x, z) / q(z | x): log p(x) itself, for every sample, where q is the true
    posterior. Other arguments as those of ``bound``.
    """
    log_weight = log_likelihood(output, batch) if likelihood is None else likelihood
    for latent in output.latents.values():
        log_weight = log_weight - beta * log_ratio(latent)
    return log_weight


def importance_weighted_bound(
    output: Output, batch: Batch, *, likelihood: Float[Tensor, "sample batch"] | None = None
) -> Float[Tensor, " batch"]:
    """Return the importance-weighted bound of Burda et al. 2016, in nats per trial.

    log 1/K sum_k p(x, z_k) / q(z_k | x) with the K samples of ``output``; K = 1 is one-sample
    ELBO, and the bound tightens with K. Arguments as those of ``bound``.
    """
    log_weight = log_weights(output, batch, likelihood=likelihood)
    return torch.logsumexp(log_weight, dim=0) - math.log(len(log_weight))
