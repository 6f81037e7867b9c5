"""The one home of divergences: KL(q || p) of a latent, by closed form wherever there is one.

============================  ===============  =================================================
posterior q                   prior p          terms
============================  ===============  =================================================
``Delta``                     any              0 by definition
``GaussianMarkovChain``       the same         E_q[KL(q(z_t | z_{t-1}) || p(z_t | z_{t-1}))]
``GaussianMarkovChain``       switching        the same, and over the states of the prior
``GaussianMarkovChain``       nonlinear        KL(q(z_t | z_{t-1}) || p(z_t | z_{t-1})) on the path
``DiscreteMarkovChain``       the same         E_q[KL(q(m_t | m_{t-1}) || p(m_t | m_{t-1}))]
``PathGaussian``              ``GaussianAR1``  KL(q(u_t | u_<t) || p(u_t | u_{t-1})) on the path
``PathGaussian``              ``Normal``       KL(q(u_t | u_<t) || p(u_t)) on the path
``Normal``, one per bin       ``GaussianAR1``  E_q[KL(q(u_t) || p(u_t | u_{t-1}))]
``Normal``                    ``Normal``       KL elementwise
multivariate normal           ``GaussianAR1``  E_q[KL(q(u_t) || p(u_t | u_{t-1}))]
normal, multivariate or not   the same         KL by trace and log-determinant
any                           any              ``torch.distributions.kl_divergence`` of the pair
                                               if registered, else log q - log p on the sample
============================  ===============  =================================================

Multivariate normals, ``MultivariateNormal`` and ``LowRankMultivariateNormal``, are over the last
axis, a ``Normal`` beside one has a diagonal covariance. ``Independent`` is seen through; a
``ContinuedChain`` is its beginning, for the rest of it is the prior.
``torch.distributions.register_kl`` adds a pair of one's own.
A posterior that depends on its own sampled path is scored on that very path, never on a fresh
sample: a fresh sample has lost the correlation between steps, and its KL is biased.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    kl_divergence,
)
from torch.nn import functional

from seqvae.distributions.delta import Delta
from seqvae.distributions.discrete_markov_chain import DiscreteMarkovChain
from seqvae.distributions.gaussian_ar1 import GaussianAR1
from seqvae.distributions.gaussian_markov_chain import GaussianMarkovChain
from seqvae.distributions.nonlinear_markov_chain import NonlinearMarkovChain
from seqvae.distributions.path_gaussian import PathGaussian
from seqvae.distributions.switching_markov_chain import ContinuedChain, SwitchingMarkovChain
from seqvae.errors import InputError
from seqvae.types import Latent

Joint = MultivariateNormal | LowRankMultivariateNormal
"""Normals whose last axis is one event."""


def kl(latent: Latent) -> Float[Tensor, "sample batch"]:
    """Return KL(q || p) of each sample and trial in nats, the sum of ``kl_terms``.

    Its mean over samples is an unbiased estimate of the divergence; where the posterior does not
    depend on the sampled path it is the divergence itself, the same for every sample.
    """
    return _total(kl_terms(latent))


def kl_terms(latent: Latent) -> Float[Tensor, "sample batch ..."]:
    """Return the summands of the KL as far as it separates.

    Shapes, for a Gaussian posterior (factorised or along a path): that of ``latent.sample``, i.e.
    (sample, batch, latent) for one latent a trial and (sample, batch, time, latent) for one a bin.
    A posterior whose latents are coupled (Markov chain, multivariate normal): the same without the
    last axis. Any other registered pair: (sample, batch, ...) with the batch shape of the pair. The
    log-ratio: (sample, batch). Steps where ``latent.mask`` is False contribute 0; with a chain
    prior the rest is the KL of the shorter chain.
    """
    posterior, prior = bare(latent.posterior), bare(latent.prior)
    sample = latent.sample
    shape = sample.shape
    if isinstance(posterior, Delta):
        return torch.zeros_like(sample)
    if isinstance(posterior, PathGaussian) and isinstance(prior, GaussianAR1):
        terms = gaussian_kl(posterior.mean, posterior.stddev, *prior.conditionals(sample))
    elif isinstance(posterior, Normal) and isinstance(prior, GaussianAR1):
        terms = _factorised_against_chain(posterior, prior)
    elif isinstance(posterior, GaussianMarkovChain) and isinstance(prior, GaussianMarkovChain):
        terms, shape = _chain_against_chain(posterior, prior), shape[:-1]
    elif isinstance(posterior, GaussianMarkovChain) and isinstance(prior, SwitchingMarkovChain):
        terms, shape = prior.kl_terms(posterior), shape[:-1]
    elif isinstance(posterior, GaussianMarkovChain) and isinstance(prior, NonlinearMarkovChain):
        terms, shape = prior.kl_terms(posterior, sample), shape[:-1]
    elif isinstance(posterior, DiscreteMarkovChain) and isinstance(prior, DiscreteMarkovChain):
        terms, shape = posterior.kl_terms(prior), shape[:-1]
    elif isinstance(posterior, PathGaussian | Normal) and isinstance(prior, Normal):
        terms = gaussian_kl(posterior.mean, posterior.stddev, prior.mean, prior.stddev)
    elif isinstance(posterior, Joint) and isinstance(prior, GaussianAR1):
        terms, shape = _joint_against_chain(posterior, prior), shape[:-1]
    elif isinstance(posterior, Joint | Normal) and isinstance(prior, Joint | Normal):
        terms = multivariate_gaussian_kl(
            posterior.mean, scale_tril(posterior), prior.mean, scale_tril(prior)
        )
        shape = shape[:-1]
    else:
        try:
            terms = kl_divergence(posterior, _for_each_trial(prior, posterior))
        except NotImplementedError:
            return log_ratio(latent)
        shape = shape[: sample.ndim - len(posterior.event_shape)]
    return _masked(terms.expand(shape), latent)


def kl_by_dimension(latent: Latent) -> Float[Tensor, "sample batch dimension"]:
    """Return the KL of each dimension of the latent, summed over time, in nats.

    One dimension, the whole, where the divergence does not separate.
    """
    terms = kl_terms(latent)
    if terms.shape != latent.sample.shape:
        return _total(terms)[..., None]
    return terms.flatten(2, -2).sum(2) if terms.ndim > 3 else terms


def log_ratio(latent: Latent) -> Float[Tensor, "sample batch"]:
    """Return log q(sample) - log p(sample) in nats, masked steps left out; 0 for a ``Delta``.

    Its mean over samples is the KL too, with more variance; importance weights are made of it.
    """
    if isinstance(bare(latent.posterior), Delta):
        return _total(torch.zeros_like(latent.sample))
    return log_density(latent.posterior, latent) - log_density(latent.prior, latent)


def log_density(distribution: Distribution, latent: Latent) -> Float[Tensor, "sample batch"]:
    """Return the log-density that a posterior or prior gives to the sample, masked, in nats."""
    distribution = bare(distribution)
    stepwise = getattr(distribution, "log_prob_terms", distribution.log_prob)
    return _total(_masked(stepwise(latent.sample), latent))


def entropy(latent: Latent) -> Float[Tensor, "sample batch"]:
    """Return the entropy of the posterior, masked, in nats: closed form where there is one.

    Else -log q of the sample, whose mean it is; along a path the entropies of its conditionals.
    """
    posterior = bare(latent.posterior)
    if isinstance(posterior, PathGaussian):
        conditionals = Normal(posterior.mean, posterior.stddev, validate_args=False)
        return _total(_masked(conditionals.entropy(), latent))
    try:
        terms = getattr(posterior, "entropy_terms", posterior.entropy)()
    except NotImplementedError:
        return -log_density(posterior, latent)
    return _total(_masked(terms.expand(len(latent.sample), *terms.shape), latent))


def gaussian_kl(mean_q: Tensor, std_q: Tensor, mean_p: Tensor, std_p: Tensor) -> Tensor:
    """Return KL(N(mean_q, std_q^2) || N(mean_p, std_p^2)), elementwise.

    With d = log(std_q / std_p) it is [exp(2 d) - 1 - 2 d + ((mean_q - mean_p) / std_p)^2] / 2.
    """
    double = 2 * (std_q.log() - std_p.log())
    return 0.5 * (torch.expm1(double) - double + ((mean_q - mean_p) / std_p).square())


def multivariate_gaussian_kl(
    mean_q: Float[Tensor, "*#leading dim"],
    scale_q: Float[Tensor, "*#leading dim dim"],
    mean_p: Float[Tensor, "*#leading dim"],
    scale_p: Float[Tensor, "*#leading dim dim"],
) -> Float[Tensor, "*leading"]:
    """Return KL(N(mean_q, S_q) || N(mean_p, S_p)) for S = L L', given the Cholesky factors L.

    [tr(S_p^-1 S_q) + (mean_q - mean_p)' S_p^-1 (mean_q - mean_p) - dim + log det S_p - log det S_q]
    / 2, where the trace is the squared norm of L_p^-1 L_q.
    """
    dim = mean_q.shape[-1]
    shift = (mean_q - mean_p)[..., None]
    trace, quadratic = (
        torch.linalg.solve_triangular(scale_p, part, upper=False).square().sum((-2, -1))
        for part in (scale_q, shift)
    )
    return 0.5 * (trace + quadratic - dim) + _half_log_det(scale_p) - _half_log_det(scale_q)


def scale_tril(distribution: Joint | Normal) -> Float[Tensor, "*leading dim dim"]:
    """Return the Cholesky factor of the covariance over the last axis."""
    if isinstance(distribution, Normal):
        return torch.diag_embed(distribution.stddev)
    return distribution.scale_tril


def bare(distribution: Distribution) -> Distribution:
    """See through what adds nothing to a divergence.

    ``Independent`` only says which sums are taken, and here all are; what follows the beginning of
    a ``ContinuedChain`` has the density of the prior.
    """
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution.beginning if isinstance(distribution, ContinuedChain) else distribution


def _factorised_against_chain(
    posterior: Normal, prior: GaussianAR1
) -> Float[Tensor, "*leading time latent"]:
    """Return the terms of KL(prod_t q(u_t) || p(u)) = sum_t E_q[KL(q(u_t) || p(u_t | u_{t-1}))].

    With q(u_t) = N(m_t, v_t) the expectation over u_{t-1} of the KL of a step is the KL at
    u_{t-1} = m_{t-1} plus a^2 v_{t-1} / (2 s^2 (1 - a^2)).
    """
    mean, std = prior.conditionals(posterior.mean)
    terms = gaussian_kl(posterior.mean, posterior.stddev, mean, std)
    spread = (prior.decay * posterior.stddev[..., :-1, :] / prior.innovation_std).square()
    return torch.cat([terms[..., :1, :], terms[..., 1:, :] + 0.5 * spread], dim=-2)


def _joint_against_chain(posterior: Joint, prior: GaussianAR1) -> Float[Tensor, "*leading time"]:
    """Return the terms of KL(prod_t q(u_t) || p(u)) where the dimensions of u_t are coupled in q.

    The dimensions of p are not, so that it is the KL of the marginals of q, plus the divergence of
    q(u_t) from their product, sum_i log std_i - log det(S_t) / 2.
    """
    std = posterior.stddev
    alone = _factorised_against_chain(Normal(posterior.mean, std, validate_args=False), prior)
    return (alone + std.log()).sum(-1) - _half_log_det(scale_tril(posterior))


def _for_each_trial(prior: Distribution, posterior: Distribution) -> Distribution:
    """Return the prior with the batch shape of the posterior, which some of torch's pairs need."""
    if prior.event_shape != posterior.event_shape:
        return prior
    try:
        return prior.expand(torch.broadcast_shapes(posterior.batch_shape, prior.batch_shape))
    except NotImplementedError:
        return prior


def _half_log_det(scale: Float[Tensor, "*leading dim dim"]) -> Float[Tensor, "*leading"]:
    """Return log det(L L') / 2 of a triangular L."""
    return scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _chain_against_chain(
    posterior: GaussianMarkovChain, prior: GaussianMarkovChain
) -> Float[Tensor, "batch time"]:
    """Return the terms of KL(q || p) = sum_t E_q[KL(q(z_t | z_{t-1}) || p(z_t | z_{t-1}))].

    With m the difference of the means, e_t = m_t - A_t m_{t-1}, and A, Lambda of the prior,

        2 KL_t = tr(Lambda_t Cov_q(z_t - A_t z_{t-1})) + e_t' Lambda_t e_t - latent
                 + log det Lambda_t of q - log det Lambda_t of p.
    """
    gain, precision, _ = prior.conditionals
    covariance, cross = posterior.covariance, posterior.cross_covariance
    # products of the prior's blocks, which trials may share, before sums over those of each trial
    weighted = precision[:, 1:] @ gain
    of_last = ((gain.mT @ weighted) * covariance[:, :-1] - 2 * weighted * cross).sum((-2, -1))
    terms = (precision * covariance).sum((-2, -1)) + functional.pad(of_last, (1, 0))
    terms = terms - covariance.shape[-1]
    terms = terms + prior.conditionals.quadratic_terms(posterior.mean - prior.mean)
    terms = 0.5 * (terms + posterior.conditionals.log_det - prior.conditionals.log_det)
    return torch.where(posterior.mask, terms, 0.0)


def _masked(terms: Float[Tensor, "sample batch ..."], latent: Latent) -> Tensor:
    """Set the terms of masked steps to 0; axis 2 is time whenever there is a mask."""
    mask = latent.mask
    if mask is None:
        return terms
    if terms.ndim == 2:
        # over whole paths at once: without ``log_prob_terms`` no step can be left out
        if not bool(mask.all()):
            raise InputError(
                "trials of unequal length need latents whose density separates over time; "
                "give the distribution a method log_prob_terms(path)"
            )
        return terms
    return torch.where(mask.reshape(mask.shape + (1,) * (terms.ndim - 3)), terms, 0.0)


def _total(terms: Float[Tensor, "sample batch ..."]) -> Float[Tensor, "sample batch"]:
    """Sum over all axes but sample and batch."""
    return terms.flatten(2).sum(2) if terms.ndim > 2 else terms
