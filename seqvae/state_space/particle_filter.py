"""Particle filters: estimates of log p(x) without an approximation but that of sampling.

All trials, runs and particles at once. A model is known by a ``Propose``, so that models that are
not linear, or switch, need no more than one of their own: particles may have any axes behind
(particle, run, batch).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqvae.distributions import GaussianMarkovChain
from seqvae.state_space.e_steps import Posterior
from seqvae.state_space.emissions import LinearEmission


class Proposal(NamedTuple):
    """Particles of one time bin and what their weights are multiplied by.

    Attributes:
        particles: the states; axes behind the first three are the model's own.
        log_weight: log of the factor.
    """

    particles: Float[Tensor, "particle run batch ..."]
    log_weight: Float[Tensor, "particle run batch"]


Propose: TypeAlias = Callable[[int, "Tensor | None"], Proposal]
"""(step, particles of the step before; None at step 0) -> proposal."""


class EvidenceEstimate(NamedTuple):
    """An estimate of log p(x) of each trial, in nats.

    Attributes:
        value: log of the mean over runs of the estimates of p(x), each of which is unbiased; so
            ``value`` is too low on average, by half the square of its standard error.
        standard_error: of ``value``, from the spread of the runs; infinite for one run.
        runs: log of the estimate of each run.
    """

    value: Float[Tensor, " batch"]
    standard_error: Float[Tensor, " batch"]
    runs: Float[Tensor, "run batch"]


@torch.no_grad()
def estimate_log_evidence(
    propose: Propose, num_steps: int, *, resample_below: float = 0.5
) -> EvidenceEstimate:
    """Run a particle filter [Gordon, Salmond & Smith 1993; Del Moral 2004].

    Particles are drawn anew, by systematic resampling, in those runs and trials in which the
    effective sample size is low. Draws are torch's: seed them by ``torch.manual_seed``. With the
    parameters of a fitted ``LinearDynamics``::

        dynamics, emission = model.state_space
        prior = dynamics.chain(inputs)
        posterior = laplace(prior, emission, target=counts, weight=weight)
        propose = guided(prior, emission, posterior, target=counts, weight=weight)
        value, error, runs = estimate_log_evidence(propose, num_steps)

    Args:
        propose: draws the particles of a step; see ``bootstrap`` and ``guided``.
        num_steps: time bins.
        resample_below: share of the particles below which the effective sample size is low.
    """
    particles, log_weight = propose(0, None)
    number = len(log_weight)
    total = torch.zeros_like(log_weight[0])
    for step in range(1, num_steps):
        effective = (2 * log_weight.logsumexp(0) - (2 * log_weight).logsumexp(0)).exp()
        low = effective < resample_below * number
        if bool(low.any()):
            stay = torch.arange(number, device=low.device)[:, None, None]
            chosen = torch.where(low, resampled(log_weight), stay)
            chosen = chosen.reshape(chosen.shape + (1,) * (particles.ndim - 3))
            particles = particles.take_along_dim(chosen, dim=0)
            mean = log_weight.logsumexp(0) - math.log(number)
            total = torch.where(low, total + mean, total)
            log_weight = torch.where(low, 0.0, log_weight)
        particles, factor = propose(step, particles)
        log_weight = log_weight + factor
    runs = total + log_weight.logsumexp(0) - math.log(number)
    value = runs.logsumexp(0) - math.log(len(runs))
    error = torch.full_like(value, torch.inf)
    if len(runs) > 1:
        error = (runs - value).exp().std(0) / math.sqrt(len(runs))
    return EvidenceEstimate(value, error, runs)


def resampled(
    log_weight: Float[Tensor, "particle run batch"],
) -> Int[Tensor, "particle run batch"]:
    """Return the particles that replace the weighted ones: systematic resampling.

    The i-th of K is the particle at (i + u) / K of the cumulated weight, with one uniform u for
    all: each is taken K times its weight, rounded up or down, and so often on average.
    """
    cumulated = log_weight.softmax(0).cumsum(0).movedim(0, -1).contiguous()
    number = len(log_weight)
    steps = torch.arange(number).to(cumulated)
    places = (steps + torch.rand_like(cumulated[..., :1])) / number
    return torch.searchsorted(cumulated, places).clamp_max(number - 1).movedim(-1, 0)


def bootstrap(
    prior: GaussianMarkovChain,
    emission: LinearEmission,
    *,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
    num_particles: int = 1000,
    num_runs: int = 10,
) -> Propose:
    """Return the proposal that follows the prior, weighted by p(x_t | z_t).

    Args:
        prior: of the paths, all of the length of ``target``.
        emission: the readout.
        target: the data x.
        weight: w; 0 where the data are missing.
        num_particles: of each run.
        num_runs: independent runs of each trial.
    """
    draw = _drawing(prior, (num_particles, num_runs, len(target)))
    log_likelihood = _log_likelihood(emission, target, weight)

    def propose(step: int, before: Tensor | None) -> Proposal:
        particles = draw(step, before)
        return Proposal(particles, log_likelihood(step, particles))

    return propose


def guided(
    prior: GaussianMarkovChain,
    emission: LinearEmission,
    posterior: Posterior,
    *,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
    num_particles: int = 1000,
    num_runs: int = 10,
) -> Propose:
    """Return the proposal that follows a Gaussian posterior, which knows what comes later.

    The posterior is q(z) = p(z) prod_t g_t(z_t) / G with Gaussian g_t in the place of p(x_t | z_t).
    Particles are drawn from q(z_t | z_{t-1}) and weighted by p(x_t | z_t) / g_t(z_t): their target
    at step t is the distribution of z_1..z_t given all data, by g_{t+1}.. as far as they are still
    to come [a twisted particle filter: Whiteley & Lee 2014, Ann. Stat. 42:115; Guarniero, Johansen
    & Lee 2017]. If q is exact all weights are 1, and the estimate is log p(x).

    Far from the data g_t may fall faster than p(x_t | z_t): rare particles then weigh much, and the
    spread of few runs may tell too small an error.

    Args:
        prior: of the paths, all of the length of ``target``.
        emission: the readout.
        posterior: of any E-step with this prior.
        target: the data x.
        weight: w; 0 where the data are missing.
        num_particles: of each run.
        num_runs: independent runs of each trial.
    """
    chain = GaussianMarkovChain(posterior.mean, posterior.precision, validate_args=False)
    draw = _drawing(chain, (num_particles, num_runs, len(target)))
    log_likelihood = _log_likelihood(emission, target, weight)
    # log g_t(z) = slope_t . (z - m_t) - (z - m_t)' curvature_t (z - m_t) / 2, 0 at the mean
    curvature = posterior.precision.diagonal - prior.precision.diagonal
    slope = prior.precision.matvec(posterior.mean - prior.mean)
    log_scale = prior.log_prob(posterior.mean) - chain.log_prob(posterior.mean)

    def propose(step: int, before: Tensor | None) -> Proposal:
        particles = draw(step, before)
        deviation = particles - posterior.mean[:, step]
        pull = slope[:, step] - 0.5 * _times(curvature[:, step], deviation)
        log_weight = log_likelihood(step, particles) - (pull * deviation).sum(-1)
        return Proposal(particles, log_weight + log_scale if before is None else log_weight)

    return propose


def _log_likelihood(
    emission: LinearEmission,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
) -> Callable[[int, Tensor], Tensor]:
    """Return the function (step, particles) -> sum_n w log p(x_n | z)."""
    constant = (weight * emission.constant(target)).sum(2)

    def log_likelihood(step: int, particles: Tensor) -> Tensor:
        predictor = emission.predictor(particles)
        value = emission.terms(target[:, step], predictor, torch.zeros_like(predictor[:1])).value
        return (weight[:, step] * value).sum(-1) + constant[:, step]

    return log_likelihood


def _drawing(
    chain: GaussianMarkovChain, shape: tuple[int, int, int]
) -> Callable[[int, Tensor | None], Tensor]:
    """Return the function (step, particles before) -> particles of the chain's next step."""
    gain, _, root = chain.conditionals
    mean = chain.mean

    def draw(step: int, before: Tensor | None) -> Tensor:
        noise = torch.randn(*shape, mean.shape[-1], dtype=mean.dtype, device=mean.device)
        particles = mean[:, step] + _times(root[:, step].mT, noise)
        if before is None:
            return particles
        return particles + _times(gain[:, step - 1], before - mean[:, step - 1])

    return draw


def _times(
    matrix: Float[Tensor, "#batch dim dim"], vector: Float[Tensor, "particle run batch dim"]
) -> Float[Tensor, "particle run batch dim"]:
    return torch.einsum("bij,krbj->krbi", matrix.expand(vector.shape[2], -1, -1), vector)
