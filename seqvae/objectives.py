"""The objective: the evidence lower bound, its terms by name, and the warm-up of its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.distributions import Delta, kl, log_ratio
from seqvae.distributions.divergence import bare
from seqvae.errors import InputError
from seqvae.types import Batch, Output


@dataclass(frozen=True)
class Objective:
    """What training minimises: -(log-likelihood - beta KL) + recurrent_l2 * mean W^2, per trial.

    The warm-ups are counted in optimiser steps, so the batch size does not change them. The
    defaults end at beta = 1: the true evidence lower bound. Validation always uses beta = 1.

    Attributes:
        beta: final weight of the KL; other values than 1 make a beta-VAE (Higgins et al. 2017).
        beta_start: step at which beta begins to rise from 0.
        beta_steps: steps over which beta rises; 0 for the final value at once.
        recurrent_l2: final weight (nats per trial) of the mean squared recurrent weight.
        recurrent_l2_start: step at which this weight begins to rise from 0.
        recurrent_l2_steps: steps over which it rises.
    """

    beta: float = 1.0
    beta_start: int = 0
    beta_steps: int = 300
    recurrent_l2: float = 0.0
    recurrent_l2_start: int = 0
    recurrent_l2_steps: int = 300

    def __post_init__(self) -> None:
        for name in ("beta", "recurrent_l2", "beta_start", "beta_steps", "recurrent_l2_start",
                     "recurrent_l2_steps"):  # fmt: skip
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} must be finite and at least 0, got {getattr(self, name)}")

    def beta_at(self, step: int) -> float:
        """Return the weight of the KL at an optimiser step."""
        return self.beta * ramp(step, start=self.beta_start, steps=self.beta_steps)

    def recurrent_l2_at(self, step: int) -> float:
        """Return the weight of the L2 term at an optimiser step."""
        return self.recurrent_l2 * ramp(
            step, start=self.recurrent_l2_start, steps=self.recurrent_l2_steps
        )

    @property
    def ramp_end(self) -> int:
        """First step at which every weight has its final value."""
        ends = [self.beta_start + self.beta_steps]
        if self.recurrent_l2 > 0:
            ends.append(self.recurrent_l2_start + self.recurrent_l2_steps)
        return max(ends)


def ramp(step: int, *, start: int, steps: int) -> float:
    """Rise linearly from 0 at ``start`` to 1 at ``start + steps``."""
    if step < start:
        return 0.0
    return 1.0 if step >= start + steps else (step - start) / steps


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
    """Return sum over (t, n) of weight_tn log p(x_tn | f_t), in nats, for each sample and trial.

    An emission may have a method ``weighted_log_prob(value, weight)`` that answers with this very
    sum in less time than ``log_prob`` takes, as ``PoissonLogRate`` has.
    """
    if hasattr(output.emission, "weighted_log_prob"):
        return output.emission.weighted_log_prob(batch.target, batch.weight)
    return (batch.weight * output.emission.log_prob(batch.target)).sum(dim=(-2, -1))


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
    """Return whether every posterior has a density, so that there is a bound to report."""
    posteriors = [bare(latent.posterior) for latent in output.latents.values()]
    return not any(isinstance(posterior, Delta) for posterior in posteriors)


def importance_weighted_bound(
    output: Output, batch: Batch, *, likelihood: Float[Tensor, "sample batch"] | None = None
) -> Float[Tensor, " batch"]:
    """Return the importance-weighted bound of Burda et al. 2016, in nats per trial.

    log 1/K sum_k p(x, z_k) / q(z_k | x) with the K samples of ``output``; K = 1 is one-sample
    ELBO, and the bound tightens with K. Arguments as those of ``bound``.
    """
    log_weights = log_likelihood(output, batch) if likelihood is None else likelihood
    for latent in output.latents.values():
        log_weights = log_weights - log_ratio(latent)
    return torch.logsumexp(log_weights, dim=0) - math.log(log_weights.shape[0])
