"""Gaussian posteriors of the paths: exact, by Laplace's method, and the best Gaussian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqvae.distributions import GaussianMarkovChain
from seqvae.linalg import BlockTridiagonal, Factor
from seqvae.state_space.dynamics import PathMoments
from seqvae.state_space.emissions import LinearEmission
from seqvae.state_space.newton import DECREMENT, factorize_surely, find_mode

MAX_HALVINGS = 12
ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Posterior(PathMoments):
    """Gaussian paths N(mean, H^-1) by their moments.

    Attributes:
        precision: H, block-tridiagonal, of each trial or (batch of 1) of all.
        logdet: log det H.
    """

    precision: BlockTridiagonal
    logdet: Float[Tensor, " #batch"]

    @classmethod
    def of(cls, mean: Float[Tensor, "batch time latent"], factor: Factor) -> Posterior:
        """Return the posterior with a precision that is factorised."""
        inverse = factor.selected_inverse()
        return cls(mean, inverse.diagonal, inverse.lower, factor.matrix, factor.logdet)

    def replaced(self, other: Posterior, *, where: Bool[Tensor, " batch"]) -> Posterior:
        """Return the posterior with some trials taken from another."""

        def pick(one: Tensor, two: Tensor) -> Tensor:
            return torch.where(where.reshape(-1, *[1] * (one.ndim - 1)), two, one)

        return Posterior(
            pick(self.mean, other.mean),
            pick(self.covariance, other.covariance),
            pick(self.cross_covariance, other.cross_covariance),
            BlockTridiagonal(
                pick(self.precision.diagonal, other.precision.diagonal),
                pick(self.precision.lower, other.precision.lower),
            ),
            pick(self.logdet, other.logdet),
        )


class PathBound(NamedTuple):
    """The evidence lower bound of each trial, in nats, by its two terms."""

    log_likelihood: Float[Tensor, " batch"]
    kl: Float[Tensor, " batch"]

    @property
    def elbo(self) -> Float[Tensor, " batch"]:
        """E_q[log p(x | z)] - KL(q || p)."""
        return self.log_likelihood - self.kl

    @property
    def divergences(self) -> dict[str, Float[Tensor, " batch"]]:
        """The KL of each latent by name."""
        return {"latents": self.kl}


EStep: TypeAlias = Callable[..., Posterior]
"""(prior, emission, target=, weight=, last=, decrement_below=) -> posterior.

``last`` is where to begin, or None; ``decrement_below`` tells how exact Newton's method is to be.
"""


@torch.no_grad()
def exact(
    prior: GaussianMarkovChain,
    emission: LinearEmission,
    *,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
    last: Posterior | None = None,
    decrement_below: float = DECREMENT,
) -> Posterior:
    """Return the posterior under a Gaussian emission: one linear solve, the Kalman smoother's.

    H = P + C' W C and H (mean - m) = C' W (x - C m - d) with W = w / sigma^2. Where all trials have
    the same weights they share H, which is factorised and inverted once.

    Args:
        prior: N(m, P^-1).
        emission: the readout; its log-density is quadratic.
        target: the data x.
        weight: w; 0 where the data are missing.
        last: not needed.
        decrement_below: not needed.
    """
    terms = emission.terms(target, emission.predictor(prior.mean), weight.new_zeros(1, 1, 1))
    shared = weight[:1] if bool((weight == weight[:1]).all()) else weight
    information = emission.information(shared * terms.curvature)
    factor = factorize_surely(prior.precision.plus_diagonal(information))
    return Posterior.of(
        prior.mean + factor.solve((weight * terms.slope) @ emission.loadings), factor
    )


@torch.no_grad()
def laplace(
    prior: GaussianMarkovChain,
    emission: LinearEmission,
    *,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
    last: Posterior | None = None,
    decrement_below: float = DECREMENT,
) -> Posterior:
    """Return N(z, H^-1) at the most likely path z, H the negative Hessian of the log joint there.

    [Smith & Brown 2003; Paninski et al. 2010]. Arguments as those of ``exact``.
    """
    start = prior.mean.expand(len(target), -1, -1) if last is None else last.mean
    spread = target.new_zeros(1, 1, 1).expand(1, 1, target.shape[2])
    mode = find_mode(
        prior,
        emission,
        target=target,
        weight=weight,
        spread=spread,
        start=start,
        decrement_below=decrement_below,
    )
    return Posterior.of(mode.path, mode.factor)


@torch.no_grad()
def variational(
    prior: GaussianMarkovChain,
    emission: LinearEmission,
    *,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
    last: Posterior | None = None,
    decrement_below: float = DECREMENT,
) -> Posterior:
    """Return a Gaussian posterior with a bound not below that of ``last``, nor of ``laplace``.

    The best Gaussian N(m, V) has V^-1 = P + C' W C with W the expected curvature of the data at
    (m, V). One pass maximises the bound over m with V held (Newton's method on the rates
    exp(C m + d + diag(C V C') / 2)), then proposes this V. Where the bound of a trial would fall,
    its precision is moved only a part of the way, half as far each time.

    Args:
        prior: N(m, P^-1).
        emission: the readout.
        target: the data x.
        weight: w; 0 where the data are missing.
        last: the posterior to improve, such as that of the EM iteration before; None: ``laplace``.
        decrement_below: of Newton's method, see ``find_mode``.
    """
    if last is None:
        last = laplace(prior, emission, target=target, weight=weight)
    mode = find_mode(
        prior,
        emission,
        target=target,
        weight=weight,
        spread=emission.spread(last.covariance),
        start=last.mean,
        decrement_below=decrement_below,
    )
    held = replace(last, mean=mode.path)
    floor = mode.value - divergence(held, prior)
    floor = floor - ROUNDING * floor.abs()

    def falls(proposal: Posterior) -> Bool[Tensor, " batch"]:
        value = (weight * emission.expected(proposal, target).value).sum((1, 2))
        return ~(value - divergence(proposal, prior) >= floor)

    proposal = Posterior.of(mode.path, mode.factor)
    goal, part = proposal.precision, torch.ones_like(floor)
    for _ in range(MAX_HALVINGS):
        worse = falls(proposal)
        if not bool(worse.any()):
            return proposal
        part = torch.where(worse, 0.5 * part, part)
        factor = factorize_surely(_between(held.precision, goal, part))
        proposal = Posterior.of(mode.path, factor)
    part = torch.where(falls(proposal), 0.0, part)
    return Posterior.of(mode.path, factorize_surely(_between(held.precision, goal, part)))


@torch.no_grad()
def converged(
    e_step: EStep,
    prior: GaussianMarkovChain,
    emission: LinearEmission,
    *,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
    tolerance: float = 1e-4,
    max_passes: int = 20,
) -> Posterior:
    """Return the posterior after passes of ``variational`` until no trial's bound rises.

    A trial that has converged is left alone; the other E-steps need one pass.
    """
    data = {"target": target, "weight": weight}
    posterior = e_step(prior, emission, **data)
    if e_step is not variational:
        return posterior
    elbo = path_bound(posterior, prior, emission, **data).elbo
    rising = torch.ones_like(elbo, dtype=torch.bool)
    for _ in range(max_passes):
        better = variational(prior, emission, target=target, weight=weight, last=posterior)
        posterior = posterior.replaced(better, where=rising)
        now = path_bound(posterior, prior, emission, **data).elbo
        rising = rising & (now - elbo > tolerance)
        if not bool(rising.any()):
            break
        elbo = now
    return posterior


def path_bound(
    posterior: Posterior,
    prior: GaussianMarkovChain,
    emission: LinearEmission,
    *,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
) -> PathBound:
    """Return the evidence lower bound: log p(x) itself, if the posterior is exact."""
    likelihood = expected_log_likelihood(posterior, emission, target=target, weight=weight)
    return PathBound(likelihood, divergence(posterior, prior))


def divergence(posterior: Posterior, prior: GaussianMarkovChain) -> Float[Tensor, " batch"]:
    """Return the KL of a posterior N(m, V) from the prior N(m_p, P^-1), in nats.

    2 KL = tr(P V) + (m - m_p)' P (m - m_p) - log det P + log det H - (time x latent), all sums over
    blocks.
    """
    matrix, deviation = prior.precision, posterior.mean - prior.mean
    trace = (matrix.diagonal * posterior.covariance).sum((1, 2, 3))
    trace = trace + 2 * (matrix.lower * posterior.cross_covariance).sum((1, 2, 3))
    quadratic = (deviation * matrix.matvec(deviation)).sum((1, 2))
    num_values = deviation.shape[1] * deviation.shape[2]
    log_dets = posterior.logdet - prior.factor.logdet
    return 0.5 * (trace + quadratic + log_dets - num_values)


def expected_log_likelihood(
    posterior: PathMoments,
    emission: LinearEmission,
    *,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
) -> Float[Tensor, " batch"]:
    """Return sum w E_q[log p(x | z)] of each trial, in nats."""
    value = emission.expected(posterior, target).value
    return (weight * (value + emission.constant(target))).sum((1, 2))


def _between(
    one: BlockTridiagonal, other: BlockTridiagonal, part: Float[Tensor, " batch"]
) -> BlockTridiagonal:
    part = part[:, None, None, None]
    return BlockTridiagonal(
        torch.lerp(one.diagonal, other.diagonal, part),
        one.lower + part * (other.lower - one.lower),
    )
