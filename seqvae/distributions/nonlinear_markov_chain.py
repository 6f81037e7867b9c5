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
from seqvae.linalg.roots import inverse_root, log_det_root


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
        white = self._whitened(value - self.expected(value))
        constant = value.shape[-1] * math.log(2 * math.pi)
        return 0.5 * (self._log_det - white.square().sum(-1) - constant)

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
        gain, precision, log_det = posterior.conditionals
        deviation = path - posterior.mean
        ahead = torch.einsum("btij,...btj->...bti", gain, deviation[..., :-1, :])
        drift = posterior.mean + functional.pad(ahead, (0, 0, 1, 0)) - self.expected(path)
        root = torch.linalg.cholesky(precision)
        trace = torch.linalg.solve_triangular(root, self._roots.mT, upper=False)
        constant = trace.square().sum((-2, -1)) - path.shape[-1] + log_det - self._log_det
        return 0.5 * (constant + self._whitened(drift).square().sum(-1))

    # a cache must not forget gradients because it was first asked for without them
    @cached_property
    @torch.enable_grad()
    def _roots(self) -> Float[Tensor, "time latent latent"]:
        """The R_t with R_t' R_t = V^-1 at the first step, Q^-1 at the others."""
        first, later = inverse_root(self.initial_covariance), inverse_root(self.noise_covariance)
        return torch.cat([first[None], later.expand(self.offset.shape[1], *later.shape)])

    @cached_property
    @torch.enable_grad()
    def _log_det(self) -> Float[Tensor, " time"]:
        """The log-determinants of V^-1 and Q^-1."""
        return -log_det_root(self._roots)

    def _whitened(
        self, deviation: Float[Tensor, "*leading time latent"]
    ) -> Float[Tensor, "*leading time latent"]:
        return torch.einsum("tij,...tj->...ti", self._roots, deviation)
