"""Paths whose next step is a nonlinear function of the last, with Gaussian noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.nn import functional
from torch.types import _size

from seqvae.compute import noise
from seqvae.distributions.gaussian_markov_chain import GaussianMarkovChain
from seqvae.linalg import BlockTridiagonal, inverse_root, log_det_root, pad_time


class NonlinearMarkovChain(Distribution):
    """Paths of a nonlinear state-space model.

        z_1 ~ N(m, V),    z_t = g(z_{t-1}) + b_t + w_t,    w_t ~ N(0, Q).

    Batch shape (batch,), event shape (time, latent).

    Args:
        transition: g, a function of the last axis, whatever axes lead.
        offset: b of every step but the first.
        noise_covariance: Q.
        initial_mean: m.
        initial_covariance: V.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.real, 2)
    has_rsample = True

    def __init__(
        self,
        transition: Callable[[Tensor], Tensor],
        offset: Float[Tensor, "batch links latent"],
        *,
        noise_covariance: Float[Tensor, "latent latent"],
        initial_mean: Float[Tensor, " latent"],
        initial_covariance: Float[Tensor, "latent latent"],
    ) -> None:
        self.transition, self.offset = transition, offset
        self.noise_covariance, self.initial_covariance = noise_covariance, initial_covariance
        self.initial_mean = initial_mean
        batch, links, size = offset.shape
        super().__init__(Size((batch,)), Size((links + 1, size)), validate_args=False)

    def expected(
        self, path: Float[Tensor, "*sample #batch time latent"]
    ) -> Float[Tensor, "*sample batch time latent"]:
        """Return the mean of every step given the one before: m, g(z_1) + b_2, and so on."""
        later = self.transition(path[..., :-1, :]) + self.offset
        return torch.cat([self.initial_mean.expand(*later.shape[:-2], 1, -1), later], dim=-2)

    def log_prob_terms(
        self, value: Float[Tensor, "*sample #batch time latent"]
    ) -> Float[Tensor, "*sample batch time"]:
        """Return log p(z_t | z_{t-1}) of every step; their sum is ``log_prob``."""
        squared = self._squared(value - self.expected(value))
        constant = value.shape[-1] * math.log(2 * math.pi)
        return 0.5 * (self._log_det - squared - constant)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(path), shape sample_shape + (batch,)."""
        return self.log_prob_terms(value).sum(-1)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Draw paths of shape sample_shape + (batch, time, latent), differentiable."""
        shape = self._extended_shape(Size(sample_shape))
        white = noise.normal(shape, like=self.offset, axis=len(shape) - 3)
        root = torch.linalg.cholesky(self.initial_covariance)
        steps = [self.initial_mean + white[..., 0, :] @ root.mT]
        innovation = white[..., 1:, :] @ torch.linalg.cholesky(self.noise_covariance).mT
        innovation = innovation + self.offset
        for step in range(innovation.shape[-2]):
            steps.append(self.transition(steps[-1]) + innovation[..., step, :])
        return torch.stack(steps, dim=-2)

    def kl_terms(
        self,
        posterior: GaussianMarkovChain,
        path: Float[Tensor, "sample batch time latent"],
    ) -> Float[Tensor, "sample batch time"]:
        """Return KL(q(z_t | z_{t-1}) || p(z_t | z_{t-1})) of every step, along drawn paths.

        With m_t, A_t and Lambda_t the mean, gain and precision of the posterior's conditionals, and
        d_t = m_t + A_t (z_{t-1} - m_{t-1}) - E[z_t | z_{t-1}] under the prior,

            2 KL_t = tr(Q^-1 Lambda_t^-1) + d_t' Q^-1 d_t - latent + log det Lambda_t + log det Q.

        Their sum is an unbiased estimate of KL(q || p) when the paths are drawn from q; only d_t
        varies with the draw, and for linear g it hardly does where q is near p(z | x).
        """
        gain, _, root = posterior.conditionals
        deviation = path - posterior.mean
        ahead = torch.einsum("btij,...btj->...bti", gain, deviation[..., :-1, :])
        drift = posterior.mean + functional.pad(ahead, (0, 0, 1, 0)) - self.expected(path)
        trace = self._squared(root.transpose(1, 2)).sum(1)
        log_det = posterior.conditionals.log_det
        constant = trace - path.shape[-1] + log_det - self._log_det
        return 0.5 * (constant + self._squared(drift))

    def linearized(
        self,
        slopes: Float[Tensor, "#batch links latent latent"],
        drift: Float[Tensor, "#batch links latent"],
    ) -> tuple[BlockTridiagonal, Float[Tensor, "batch time latent"]]:
        """Return precision P and information h = P E[z] of the path with F_t z + c_t for g(z).

        With d_t = c_t + b_t, P_tt = Q^-1 + F_{t+1}' Q^-1 F_{t+1}, P_{t+1,t} = -Q^-1 F_{t+1} and
        h_t = Q^-1 d_t - F_{t+1}' Q^-1 d_{t+1}; at the first step V^-1 in place of Q^-1 and m in
        place of d, at the last no F.

        Args:
            slopes: F', the derivative by each latent (rows) of the next step.
            drift: c.
        """
        first, later = self._roots
        white = slopes @ later.mT
        moved = (drift + self.offset) @ later.mT
        precision = (later.mT @ later).expand(*slopes.shape)
        initial = (first.mT @ first).expand(len(slopes), 1, *first.shape)
        diagonal = torch.cat([initial, precision], dim=1) + pad_time(white @ white.mT, after=1)
        start = (first.mT @ (first @ self.initial_mean)).expand(len(moved), 1, -1)
        before = (white @ moved[..., None])[..., 0]
        information = torch.cat([start, moved @ later], dim=1) - functional.pad(
            before, (0, 0, 0, 1)
        )
        return BlockTridiagonal(diagonal, -(white @ later).mT), information

    # a cache must not forget gradients because it was first asked for without them
    @cached_property
    @torch.enable_grad()
    def _roots(self) -> tuple[Float[Tensor, "latent latent"], Float[Tensor, "latent latent"]]:
        """The R with R' R = V^-1, that of the first step, and with R' R = Q^-1."""
        return inverse_root(self.initial_covariance), inverse_root(self.noise_covariance)

    @cached_property
    @torch.enable_grad()
    def _log_det(self) -> Float[Tensor, " time"]:
        """The log-determinants of V^-1 and Q^-1."""
        first, later = (-log_det_root(root) for root in self._roots)
        return torch.cat([first[None], later.expand(self.offset.shape[1])])

    def _squared(
        self, deviation: Float[Tensor, "*leading time latent"]
    ) -> Float[Tensor, "*leading time"]:
        """Return e' V^-1 e of the first step, and e' Q^-1 e of the others."""
        steps = deviation.tensor_split([1], dim=-2)
        squares = (
            (e @ root.mT).square().sum(-1) for e, root in zip(steps, self._roots, strict=True)
        )
        return torch.cat(list(squares), dim=-1)
