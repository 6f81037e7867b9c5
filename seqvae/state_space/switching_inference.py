"""The structured mean field of a switching model: paths and states by turns."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqvae.distributions import DiscreteMarkovChain, StateDensities
from seqvae.state_space.e_steps import EStep, Posterior, expected_log_likelihood
from seqvae.state_space.switching import SwitchingStateSpace


class SwitchingPosterior(NamedTuple):
    """q(z) q(m): a Gaussian chain of the path and a chain of the discrete states."""

    path: Posterior
    states: DiscreteMarkovChain

    def replaced(
        self, other: SwitchingPosterior, *, where: Bool[Tensor, " batch"]
    ) -> SwitchingPosterior:
        """Return the posterior with some trials taken from another."""
        one, two = self.states, other.states
        states = DiscreteMarkovChain(
            torch.where(where[:, None], two.log_initial, one.log_initial),
            torch.where(where[:, None, None, None], two.log_transition, one.log_transition),
        )
        return SwitchingPosterior(self.path.replaced(other.path, where=where), states)


class SwitchingBound(NamedTuple):
    """The evidence lower bound of each trial, in nats, by its terms.

    Attributes:
        log_likelihood: E_q[log p(x | z)].
        kl: E_q(m) KL(q(z) || p(z | m)).
        kl_states: KL(q(m) || p(m)).
    """

    log_likelihood: Float[Tensor, " batch"]
    kl: Float[Tensor, " batch"]
    kl_states: Float[Tensor, " batch"]

    @property
    def elbo(self) -> Float[Tensor, " batch"]:
        """E_q[log p(x | z)] - KL(q(z) q(m) || p(z, m))."""
        return self.log_likelihood - self.kl - self.kl_states

    @property
    def divergences(self) -> dict[str, Float[Tensor, " batch"]]:
        """The KL of each latent by name."""
        return {"latents": self.kl, "states": self.kl_states}


@torch.no_grad()
def infer_by_turns(
    model: SwitchingStateSpace,
    densities: StateDensities,
    e_step: EStep,
    *,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
    probabilities: Float[Tensor, "batch time state"],
    last: Posterior | None = None,
) -> SwitchingPosterior:
    """Return q(z) given what is known of the states, then q(m) given q(z) [Ghahramani & Hinton].

    Each is the best there is while the other is held (for ``variational``: none below ``last``),
    so the bound never falls. q(z) is inferred under the averaged dynamics, q(m) under the expected
    log-densities of the steps. Past the mask of ``densities`` the states are the prior run on.

    Args:
        model: the parameters.
        densities: of the steps in each state.
        e_step: how q(z) is found.
        target: the data.
        weight: 0 where they are missing.
        probabilities: of the states.
        last: where the E-step begins.
    """
    prior = densities.averaged(probabilities)
    path = e_step(prior, model.emission, target=target, weight=weight, last=last)
    expected = densities.expected_log_density(path.mean, path.covariance, path.cross_covariance)
    return SwitchingPosterior(path, model.switches.chain(*target.shape[:2]).given(expected).states)


@torch.no_grad()
def infer_switching(
    model: SwitchingStateSpace,
    densities: StateDensities,
    e_step: EStep,
    *,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
    tolerance: float = 1e-4,
    max_passes: int = 100,
) -> SwitchingPosterior:
    """Return q(z) q(m) from the prior of the states on, until no trial's bound rises.

    A trial that has converged is left alone. Arguments as those of ``infer_by_turns``.
    """
    data = {"target": target, "weight": weight}
    turn = partial(infer_by_turns, model, densities, e_step, target=target, weight=weight)
    posterior = turn(probabilities=model.switches.chain(*target.shape[:2]).probabilities)
    elbo = switching_bound(posterior, model, densities, **data).elbo
    rising = torch.ones_like(elbo, dtype=torch.bool)
    for _ in range(max_passes):
        better = turn(probabilities=posterior.states.probabilities, last=posterior.path)
        posterior = posterior.replaced(better, where=rising)
        now = switching_bound(posterior, model, densities, **data).elbo
        rising = rising & (now - elbo > tolerance)
        if not bool(rising.any()):
            break
        elbo = now
    return posterior


def switching_bound(
    posterior: SwitchingPosterior,
    model: SwitchingStateSpace,
    densities: StateDensities,
    *,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
) -> SwitchingBound:
    """Return the evidence lower bound of each trial in closed form."""
    path, states = posterior
    expected = densities.expected_log_density(path.mean, path.covariance, path.cross_covariance)
    num_values = densities.mask.sum(1).to(path.mean) * path.mean.shape[-1]
    entropy = 0.5 * (num_values * (1 + math.log(2 * math.pi)) - path.logdet)
    prior = model.switches.chain(*target.shape[:2])
    return SwitchingBound(
        expected_log_likelihood(path, model.emission, target=target, weight=weight),
        -entropy - (states.probabilities * expected).sum((1, 2)),
        states.kl_terms(prior).sum(1),
    )
