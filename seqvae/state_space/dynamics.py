"""Linear Gaussian dynamics: the prior of a path, and what a posterior says about them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from seqvae.distributions import GaussianMarkovChain


@dataclass(frozen=True, eq=False)
class Dynamics:
    """Linear dynamics with Gaussian noise, driven by external inputs u.

        z_1 ~ N(m, V),    z_t = A z_{t-1} + B u_t + b + w_t,    w_t ~ N(0, Q).

    Dynamics that switch have an A, B, b and Q for each discrete state: a leading axis.

    Attributes:
        transition: A.
        input_matrix: B.
        offset: b.
        noise_covariance: Q.
        initial_mean: m.
        initial_covariance: V.
    """

    transition: Float[Tensor, "*state latent latent"]
    input_matrix: Float[Tensor, "*state latent input"]
    offset: Float[Tensor, "*state latent"]
    noise_covariance: Float[Tensor, "*state latent latent"]
    initial_mean: Float[Tensor, " latent"]
    initial_covariance: Float[Tensor, "latent latent"]

    def chain(
        self,
        inputs: Float[Tensor, "batch time input"],
        *,
        lengths: Int[Tensor, " batch"] | None = None,
    ) -> GaussianMarkovChain:
        """Return the prior of the paths; where all have one length they share its precision.

        Args:
            inputs: u; the first step has none.
            lengths: steps of each trial, where the paths are to end there.
        """
        offset = self.offset
        if inputs.shape[-1]:
            offset = offset + inputs[:, 1:] @ self.input_matrix.mT
        chain = GaussianMarkovChain.from_dynamics(
            self.transition,
            self.noise_covariance,
            initial_mean=self.initial_mean,
            initial_covariance=self.initial_covariance,
            num_steps=inputs.shape[1],
            offset=offset,
            lengths=lengths,
            validate_args=False,
        )
        if lengths is not None:
            return chain
        mean = chain.mean.expand(len(inputs), -1, -1)
        of_all = GaussianMarkovChain(mean, chain.precision, validate_args=False)
        of_all.conditionals = chain.conditionals
        return of_all

    def transformed(
        self, change: Float[Tensor, "latent latent"], shift: Float[Tensor, " latent"]
    ) -> Dynamics:
        """Return the dynamics of S (z - s), with S = ``change`` and s = ``shift``."""
        back = torch.linalg.inv(change)
        return Dynamics(
            transition=change @ self.transition @ back,
            input_matrix=change @ self.input_matrix,
            offset=(self.offset + self.transition @ shift - shift) @ change.mT,
            noise_covariance=change @ self.noise_covariance @ change.mT,
            initial_mean=change @ (self.initial_mean - shift),
            initial_covariance=change @ self.initial_covariance @ change.mT,
        )


@dataclass(frozen=True, eq=False)
class PathMoments:
    """First and second moments of posterior paths, as far as learning needs them.

    Attributes:
        mean: E[z_t].
        covariance: Cov(z_t), of each trial or (batch of 1) of all.
        cross_covariance: Cov(z_{t+1}, z_t).
    """

    mean: Float[Tensor, "batch time latent"]
    covariance: Float[Tensor, "#batch time latent latent"]
    cross_covariance: Float[Tensor, "#batch links latent latent"]


@dataclass(frozen=True, eq=False)
class LinkMoments:
    """What regressing z_t on r_t = (z_{t-1}, u_t, 1) needs: expected sums over steps, weighted.

    Attributes:
        square: sum E[r_t r_t'].
        cross: sum E[z_t r_t'].
        target: sum E[z_t z_t'].
        count: sum of the weights.
    """

    square: Float[Tensor, "regressor regressor"]
    cross: Float[Tensor, "latent regressor"]
    target: Float[Tensor, "latent latent"]
    count: Float[Tensor, ""]

    @classmethod
    def of(
        cls,
        moments: PathMoments,
        *,
        inputs: Float[Tensor, "batch time input"],
        weight: Float[Tensor, "batch links"],
    ) -> LinkMoments:
        """Return the sums over all trials and steps.

        Args:
            moments: of the paths.
            inputs: u.
            weight: of every step but the first.
        """
        mean, covariance = moments.mean, moments.covariance
        constant = torch.ones_like(mean[:, 1:, :1])
        regressors = torch.cat([mean[:, :-1], inputs[:, 1:], constant], dim=-1)
        weighted = (regressors * weight[..., None]).flatten(0, 1)
        after, regressors = mean[:, 1:].flatten(0, 1), regressors.flatten(0, 1)
        others = (0, 1 + inputs.shape[-1])
        square = functional.pad(_pooled(covariance[:, :-1], weight), (*others, *others))
        cross = functional.pad(_pooled(moments.cross_covariance, weight), others)
        target = (after * weight.flatten()[:, None]).mT @ after
        return cls(
            regressors.mT @ weighted + square,
            after.mT @ weighted + cross,
            target + _pooled(covariance[:, 1:], weight),
            weight.sum(),
        )

    def plus(self, other: LinkMoments) -> LinkMoments:
        """Return the sums over these steps and others."""
        return LinkMoments(
            self.square + other.square,
            self.cross + other.cross,
            self.target + other.target,
            self.count + other.count,
        )

    def scaled(self, factor: float) -> LinkMoments:
        """Return the sums with all weights multiplied."""
        square, cross, target = factor * self.square, factor * self.cross, factor * self.target
        return LinkMoments(square, cross, target, factor * self.count)

    def regression(self) -> Float[Tensor, "latent regressor"]:
        """Return (A, B, b) = sum E[z_t r_t'] (sum E[r_t r_t'])^-1."""
        # in units in which each regressor has size one; one that tells nothing new gets 0
        unit = self.square.diagonal().clamp_min(torch.finfo(self.square.dtype).tiny).rsqrt()
        scaled = torch.linalg.pinv(self.square * unit * unit[:, None], rtol=1e-12, hermitian=True)
        return self.cross @ (scaled * unit * unit[:, None])

    def residual(
        self, weights: Float[Tensor, "latent regressor"]
    ) -> Float[Tensor, "latent latent"]:
        """Return sum E[(z_t - W r_t) (z_t - W r_t)'] for W = ``weights``."""
        left = self.target - weights @ self.cross.mT - self.cross @ weights.mT
        return left + weights @ self.square @ weights.mT


def maximize_dynamics(
    dynamics: Dynamics,
    moments: PathMoments,
    *,
    inputs: Float[Tensor, "batch time input"],
    time_mask: Bool[Tensor, "batch time"],
) -> Dynamics:
    """Return the dynamics that maximise E_q[log p(z)], pooled over trials: the closed M-step.

    With r_t = (z_{t-1}, u_t, 1), (A, B, b) = sum E[z_t r_t'] (sum E[r_t r_t'])^-1 and Q the mean
    square of what is left. Where no trial has a second bin, A, B, b and Q stay; with one trial V
    stays, which would shrink to nothing.

    Args:
        dynamics: those the posterior was inferred with.
        moments: of the posterior.
        inputs: u.
        time_mask: the bins that belong to each trial.
    """
    learned = maximize_initial(dynamics, moments, time_mask=time_mask)
    follows = time_mask[:, 1:].to(moments.mean)
    if not bool(follows.any()):
        return learned
    links = LinkMoments.of(moments, inputs=inputs, weight=follows)
    weights, size = links.regression(), moments.mean.shape[-1]
    return replace(
        learned,
        transition=weights[:, :size],
        input_matrix=weights[:, size:-1],
        offset=weights[:, -1],
        noise_covariance=positive(links.residual(weights) / links.count),
    )


def maximize_initial(
    dynamics: Dynamics, moments: PathMoments, *, time_mask: Bool[Tensor, "batch time"]
) -> Dynamics:
    """Return the dynamics with the best distribution of the first step; with one trial V stays.

    Trials of no bin are left out. Arguments as those of ``maximize_dynamics``.
    """
    there = time_mask[:, 0]
    first = moments.mean[there, 0]
    if not len(first):
        return dynamics
    learned = replace(dynamics, initial_mean=first.mean(0))
    if len(first) > 1:
        deviation, covariance = first - first.mean(0), moments.covariance[:, 0]
        spread = (covariance if len(covariance) == 1 else covariance[there]).mean(0)
        spread = spread + deviation.mT @ deviation / len(first)
        learned = replace(learned, initial_covariance=_symmetric(spread))
    return learned


def positive(
    covariance: Float[Tensor, "latent latent"], *, floor: float = 1e-9
) -> Float[Tensor, "latent latent"]:
    """Return a symmetric matrix, its eigenvalues at least ``floor`` times the largest."""
    covariance = _symmetric(covariance)
    values, vectors = torch.linalg.eigh(covariance)
    least = (floor * values[-1]).clamp_min(torch.finfo(values.dtype).tiny ** 0.5)
    if bool(values[0] >= least):
        return covariance
    return (vectors * torch.maximum(values, least)) @ vectors.mT


def _pooled(
    blocks: Float[Tensor, "#batch links latent latent"], mask: Float[Tensor, "batch links"]
) -> Float[Tensor, "latent latent"]:
    """Sum blocks over the trials and steps of a mask."""
    if len(blocks) == 1:
        return torch.einsum("t,tij->ij", mask.sum(0), blocks[0])
    return torch.einsum("bt,btij->ij", mask, blocks)


def _symmetric(matrix: Float[Tensor, "latent latent"]) -> Float[Tensor, "latent latent"]:
    return (matrix + matrix.mT) / 2
