"""Gaussian paths whose dynamics switch with a discrete state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.nn import functional

from seqvae.distributions.gaussian_markov_chain import GaussianMarkovChain
from seqvae.linalg import BlockTridiagonal
from seqvae.linalg.roots import inverse_root, log_det_root


@dataclass(frozen=True, eq=False)
class StateDensities:
    """The densities of the steps of a path in each discrete state k.

        p(z_1) = N(m, V),    p(z_t | z_{t-1}, k) = N(A_k z_{t-1} + c_tk, Q_k).

    Attributes:
        dynamics: A.
        noise_covariance: Q.
        initial_mean: m.
        initial_covariance: V.
        offset: c of every step but the first.
        mask: the steps that belong to each path; the others count for nothing.
    """

    dynamics: Float[Tensor, "state latent latent"]
    noise_covariance: Float[Tensor, "state latent latent"]
    initial_mean: Float[Tensor, " latent"]
    initial_covariance: Float[Tensor, "latent latent"]
    offset: Float[Tensor, "batch links state latent"]
    mask: Bool[Tensor, "batch time"]

    @cached_property
    @torch.enable_grad()
    def _roots(self) -> tuple[Tensor, Tensor]:
        """K with K' K = V^-1, and those of the Q_k."""
        return inverse_root(self.initial_covariance), inverse_root(self.noise_covariance)

    @cached_property
    @torch.enable_grad()
    def _blocks(self) -> tuple[Tensor, Tensor, Tensor]:
        """Q^-1, Q^-1 A and A' Q^-1 A of each state."""
        _, root = self._roots
        half = root @ self.dynamics
        return root.mT @ root, root.mT @ half, half.mT @ half

    def log_density(
        self, path: Float[Tensor, "*sample batch time latent"]
    ) -> Float[Tensor, "*sample batch time state"]:
        """Return log p(z_t | z_{t-1}, k); that of the first step is the same for all states."""
        initial_root, root = self._roots
        num_states, size, _ = root.shape
        first = (path[..., :1, :] - self.initial_mean) @ initial_root.mT
        first = -0.5 * (first.square().sum(-1, keepdim=True) + log_det_root(initial_root))
        root_rows, dynamics_rows = (m.flatten(0, 1) for m in (root, root @ self.dynamics))
        innovation = path[..., 1:, :] @ root_rows.mT - path[..., :-1, :] @ dynamics_rows.mT
        innovation = innovation.unflatten(-1, (num_states, size))
        innovation = innovation - torch.einsum("kij,btkj->btki", root, self.offset)
        later = -0.5 * (innovation.square().sum(-1) + log_det_root(root))
        terms = torch.cat([first.expand(*first.shape[:-1], num_states), later], dim=-2)
        terms = terms - 0.5 * size * math.log(2 * math.pi)
        return torch.where(self.mask[..., None], terms, 0.0)

    def expected_log_density(
        self,
        mean: Float[Tensor, "batch time latent"],
        covariance: Float[Tensor, "#batch time latent latent"],
        cross_covariance: Float[Tensor, "#batch links latent latent"],
    ) -> Float[Tensor, "batch time state"]:
        """Return E[log p(z_t | z_{t-1}, k)] over paths with these moments.

        Args:
            mean: E[z_t].
            covariance: Cov(z_t).
            cross_covariance: Cov(z_{t+1}, z_t).
        """
        initial_root, _ = self._roots
        noise_precision, lower, of_next = (block.flatten(1).mT for block in self._blocks)
        first = covariance[:, :1].flatten(2) @ (initial_root.mT @ initial_root).flatten()
        flat = covariance.flatten(2)
        later = (
            flat[:, 1:] @ noise_precision
            + flat[:, :-1] @ of_next
            - 2 * cross_covariance.flatten(2) @ lower
        )
        trace = torch.cat([first[..., None].expand(-1, -1, noise_precision.shape[1]), later], dim=1)
        return self.log_density(mean) - 0.5 * torch.where(self.mask[..., None], trace, 0.0)

    def averaged(self, probabilities: Float[Tensor, "batch time state"]) -> GaussianMarkovChain:
        """Return N(z) proportional to exp E[log p(z | m)] over independent states.

        Its precision has the blocks E[Q^-1] + E[A' Q^-1 A] and -E[Q^-1 A].

        Args:
            probabilities: of the states; all that matters of their distribution.
        """
        initial_root, _ = self._roots
        noise_precision, lower, of_next = self._blocks
        initial = initial_root.mT @ initial_root
        weight = torch.where(self.mask[:, 1:, None], probabilities[:, 1:], 0.0)
        first = initial.expand(len(weight), 1, -1, -1)
        diagonal = torch.cat([first, _mixed(weight, noise_precision)], dim=1)
        diagonal = diagonal + functional.pad(_mixed(weight, of_next), (0, 0, 0, 0, 0, 1))

        push = weight[..., None] * self.offset
        ahead = torch.einsum("kij,btkj->bti", noise_precision, push)
        back = torch.einsum("kji,btkj->bti", lower, push)
        start = (initial @ self.initial_mean).expand(len(weight), 1, -1)
        information = torch.cat([start, ahead], dim=1) - functional.pad(back, (0, 0, 0, 1))
        precision = BlockTridiagonal(diagonal, -_mixed(weight, lower))
        return GaussianMarkovChain.from_information(
            information, precision, lengths=self.mask.sum(1), validate_args=False
        )


class SwitchingMarkovChain(Distribution):
    """Paths z given a path of discrete states m that itself is uncertain.

    The density is that of z given the sampled ``states``; in a KL the expectation over states is
    taken in closed form, by their ``probabilities``.

    Args:
        densities: of the steps in each state.
        states: sampled states, one-hot.
        probabilities: of the states.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.real, 2)

    def __init__(
        self,
        densities: StateDensities,
        states: Float[Tensor, "sample batch time state"],
        probabilities: Float[Tensor, "batch time state"],
    ) -> None:
        self.densities, self.states, self.probabilities = densities, states, probabilities
        event = Size((states.shape[2], len(densities.initial_mean)))
        super().__init__(states.shape[:2], event, validate_args=False)

    def log_prob_terms(
        self, value: Float[Tensor, "sample batch time latent"]
    ) -> Float[Tensor, "sample batch time"]:
        """Return log p(z_t | z_{t-1}, m_t) of every step; their sum is ``log_prob``."""
        return (self.states * self.densities.log_density(value)).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(path | states), shape (sample, batch)."""
        return self.log_prob_terms(value).sum(-1)

    def kl_terms(self, posterior: GaussianMarkovChain) -> Float[Tensor, "batch time"]:
        """Return E_q(m) KL(q(z_t | z_{t-1}) || p(z_t | z_{t-1}, m_t)) of every step."""
        moments = posterior.mean, posterior.covariance, posterior.cross_covariance
        expected = (self.probabilities * self.densities.expected_log_density(*moments)).sum(-1)
        return -posterior.entropy_terms() - expected


class ContinuedChain(Distribution):
    """A Gaussian chain as far as it goes, and from there on the prior, run on.

    q(z) = q(z_1 .. z_s) p(z_{s+1} .. | z_s): its KL to that prior is the KL of its beginning. The
    prior may switch, so that what follows is a mixture, known by its moments.

    Args:
        beginning: the chain, with the lengths s.
        mean: of every step.
        covariance: of every step on its own.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.real, 2)

    def __init__(
        self,
        beginning: GaussianMarkovChain,
        mean: Float[Tensor, "batch time latent"],
        covariance: Float[Tensor, "batch time latent latent"],
    ) -> None:
        self.beginning, self._mean, self.covariance = beginning, mean, covariance
        super().__init__(beginning.batch_shape, beginning.event_shape, validate_args=False)

    @property
    def mean(self) -> Float[Tensor, "batch time latent"]:
        """The mean of each step."""
        return self._mean

    @property
    def variance(self) -> Float[Tensor, "batch time latent"]:
        """The variance of each step and latent on its own."""
        return self.covariance.diagonal(dim1=-2, dim2=-1)


def _mixed(
    weight: Float[Tensor, "batch links state"], blocks: Float[Tensor, "state rows columns"]
) -> Float[Tensor, "batch links rows columns"]:
    return (weight @ blocks.flatten(1)).unflatten(-1, blocks.shape[1:])
