"""The one home of divergences: KL(q || p) of a latent, by closed form wherever there is one.

============================  ===============  =================================================
posterior q                   prior p          terms
============================  ===============  =================================================
``Delta``                     any              0 by definition
``GaussianMarkovChain``       the same         E_q[KL(q(z_t | z_{t-1}) || p(z_t | z_{t-1}))]
``PathGaussian``              ``GaussianAR1``  KL(q(u_t | u_<t) || p(u_t | u_{t-1})) on the path
``PathGaussian``              ``Normal``       KL(q(u_t | u_<t) || p(u_t)) on the path
``Normal``, one per bin       ``GaussianAR1``  E_q[KL(q(u_t) || p(u_t | u_{t-1}))]
``Normal``                    ``Normal``       KL elementwise
any                           any              ``torch.distributions.kl_divergence`` of the pair
                                               if registered, else log q - log p on the sample
============================  ===============  =================================================

``Independent`` is seen through. ``torch.distributions.register_kl`` adds a pair of one's own.
A posterior that depends on its own sampled path is scored on that very path, never on a fresh
sample: a fresh sample has lost the correlation between steps, and its KL is biased.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, kl_divergence
from torch.nn import functional

from seqvae.distributions.delta import Delta
from seqvae.distributions.gaussian_ar1 import GaussianAR1
from seqvae.distributions.gaussian_markov_chain import GaussianMarkovChain
from seqvae.distributions.path_gaussian import PathGaussian
from seqvae.errors import InputError
from seqvae.types import Latent


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
    A Markov chain, whose latents are coupled: (sample, batch, time). Any other registered pair:
    (sample, batch, ...) with the batch shape of the pair. The log-ratio: (sample, batch). Steps
    where ``latent.mask`` is False contribute 0; with a chain prior the rest is the KL of the
    shorter chain.
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
    elif isinstance(posterior, PathGaussian | Normal) and isinstance(prior, Normal):
        terms = gaussian_kl(posterior.mean, posterior.stddev, prior.mean, prior.stddev)
    else:
        try:
            terms = kl_divergence(posterior, prior)
        except NotImplementedError:
            return log_ratio(latent)
        shape = shape[: sample.ndim - len(posterior.event_shape)]
    return _masked(terms.expand(shape), latent)


def log_ratio(latent: Latent) -> Float[Tensor, "sample batch"]:
    """Return log q(sample) - log p(sample) in nats, masked steps left out; 0 for a ``Delta``.

    Its mean over samples is the KL too, with more variance; importance weights are made of it.
    """
    if isinstance(bare(latent.posterior), Delta):
        return _total(torch.zeros_like(latent.sample))
    return _log_prob(latent.posterior, latent) - _log_prob(latent.prior, latent)


def gaussian_kl(mean_q: Tensor, std_q: Tensor, mean_p: Tensor, std_p: Tensor) -> Tensor:
    """Return KL(N(mean_q, std_q^2) || N(mean_p, std_p^2)), elementwise.

    With d = log(std_q / std_p) it is [exp(2 d) - 1 - 2 d + ((mean_q - mean_p) / std_p)^2] / 2.
    """
    double = 2 * (std_q.log() - std_p.log())
    return 0.5 * (torch.expm1(double) - double + ((mean_q - mean_p) / std_p).square())


def bare(distribution: Distribution) -> Distribution:
    """See through ``Independent``: it only says which sums are taken, and here all are."""
    while isinstance(distribution, Independent):
        distribution = distribution.base_dist
    return distribution


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


def _chain_against_chain(
    posterior: GaussianMarkovChain, prior: GaussianMarkovChain
) -> Float[Tensor, "batch time"]:
    """Return the terms of KL(q || p) = sum_t E_q[KL(q(z_t | z_{t-1}) || p(z_t | z_{t-1}))].

    With m the difference of the means, e_t = m_t - A_t m_{t-1}, and A, Lambda of the prior,

        2 KL_t = tr(Lambda_t Cov_q(z_t - A_t z_{t-1})) + e_t' Lambda_t e_t - latent
                 + log det Lambda_t of q - log det Lambda_t of p.
    """
    gain, precision, log_det = prior.conditionals
    covariance, cross = posterior.covariance, posterior.cross_covariance
    of_last = gain @ (gain @ covariance[:, :-1] - 2 * cross).mT
    spread = covariance + functional.pad(of_last, (0, 0, 0, 0, 1, 0))
    terms = torch.einsum("btij,btij->bt", precision, spread) - spread.shape[-1]
    terms = terms + prior.conditionals.quadratic_terms(posterior.mean - prior.mean)
    terms = 0.5 * (terms + posterior.conditionals.log_det - log_det)
    return torch.where(posterior.mask, terms, 0.0)


def _log_prob(distribution: Distribution, latent: Latent) -> Float[Tensor, "sample batch"]:
    """Return log density of the sample, summed over what separates and is not masked."""
    distribution = bare(distribution)
    stepwise = getattr(distribution, "log_prob_terms", distribution.log_prob)
    return _total(_masked(stepwise(latent.sample), latent))


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
