"""A linear state-space model whose dynamics switch with a discrete state, and its M-step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqvae.distributions import DiscreteMarkovChain, StateDensities
from seqvae.state_space.canonical import coordinates
from seqvae.state_space.continuation import continued_moments
from seqvae.state_space.dynamics import (
    Dynamics,
    LinkMoments,
    PathMoments,
    maximize_initial,
    positive,
)
from seqvae.state_space.emissions import LinearEmission
from seqvae.types import Batch


@dataclass(frozen=True, eq=False)
class Switches:
    """A Markov chain of the discrete state: m_1 ~ pi, m_t ~ P[m_{t-1}, :].

    Attributes:
        log_initial: log pi.
        log_transition: log P.
    """

    log_initial: Float[Tensor, " state"]
    log_transition: Float[Tensor, "state state"]

    def chain(self, num_trials: int, num_steps: int) -> DiscreteMarkovChain:
        """Return the prior of the states of some trials."""
        links = self.log_transition.expand(1, num_steps - 1, -1, -1)
        return DiscreteMarkovChain(self.log_initial.expand(num_trials, -1), links)


class SwitchingStateSpace(NamedTuple):
    """All parameters of a switching linear state-space model.

    Attributes:
        dynamics: those of each state; the first step is the same in all.
        switches: of the state.
        emission: the readout, the same in all states.
    """

    dynamics: Dynamics
    switches: Switches
    emission: LinearEmission

    def densities(
        self, inputs: Float[Tensor, "batch time input"], mask: Bool[Tensor, "batch time"]
    ) -> StateDensities:
        """Return the densities of the steps of some trials in each state.

        Args:
            inputs: u; the first step has none.
            mask: the steps that count.
        """
        dynamics = self.dynamics
        pushed = torch.einsum("kiu,btu->btki", dynamics.input_matrix, inputs[:, 1:])
        return StateDensities(
            dynamics.transition,
            dynamics.noise_covariance,
            dynamics.initial_mean,
            dynamics.initial_covariance,
            pushed + dynamics.offset,
            mask,
        )

    def transformed(
        self, change: Float[Tensor, "latent latent"], shift: Float[Tensor, " latent"]
    ) -> SwitchingStateSpace:
        """Return the same distribution of the data with latents S (z - s)."""
        return self._replace(
            dynamics=self.dynamics.transformed(change, shift),
            emission=self.emission.transformed(torch.linalg.inv(change), shift),
        )

    def ordered(self, order: Int[Tensor, " state"]) -> SwitchingStateSpace:
        """Return the same distribution of the data with other names of the states."""
        dynamics, switches = self.dynamics, self.switches
        return self._replace(
            dynamics=replace(
                dynamics,
                transition=dynamics.transition[order],
                input_matrix=dynamics.input_matrix[order],
                offset=dynamics.offset[order],
                noise_covariance=dynamics.noise_covariance[order],
            ),
            switches=Switches(
                switches.log_initial[order], switches.log_transition[order][:, order]
            ),
        )


@dataclass(frozen=True, eq=False)
class SwitchingPenalty:
    """What is known of the parameters before the data, as a penalty in nats.

    Attributes:
        ridge: of the loadings.
        concentration: of the Dirichlet prior of pi and of the rows of P; more than 1, so that no
            transition becomes impossible.
        stickiness: added to it on the diagonal of P: as if a state had been seen to stay so often.
        links: steps that every state is taken to have seen beforehand, which keep one that is
            rarely visited near to the others; None: no such steps.
    """

    ridge: float
    concentration: float
    stickiness: float
    links: LinkMoments | None

    def of(self, model: SwitchingStateSpace) -> float:
        """Return minus the logarithm of the prior density, but for a constant."""
        switches = model.switches
        total = model.emission.penalty(self.ridge)
        total = total - (self.concentration - 1) * switches.log_initial.sum()
        total = total - (self.counts(switches) * switches.log_transition).sum()
        if self.links is not None:
            dynamics = model.dynamics
            parts = dynamics.transition, dynamics.input_matrix, dynamics.offset[..., None]
            for weights, noise in zip(torch.cat(parts, -1), dynamics.noise_covariance, strict=True):
                unexplained = torch.linalg.solve(noise, self.links.residual(weights)).trace()
                total = total + 0.5 * (self.links.count * noise.logdet() + unexplained)
        return float(total)

    def counts(self, switches: Switches) -> Float[Tensor, "state state"]:
        """Return the transitions that are taken to have been seen beforehand."""
        identity = torch.eye(len(switches.log_initial)).to(switches.log_initial)
        return self.concentration - 1 + self.stickiness * identity


def maximize_switching(
    model: SwitchingStateSpace,
    path: PathMoments,
    states: DiscreteMarkovChain,
    *,
    batch: Batch,
    mask: Bool[Tensor, "batch time"],
    penalty: SwitchingPenalty,
) -> SwitchingStateSpace:
    """Return the parameters after one M-step: the penalised bound of the posterior does not fall.

    Args:
        model: the parameters the posterior was inferred with.
        path: moments of the paths, all neurons seen.
        states: posterior of the states.
        batch: the trials to learn from: what has weight is scored.
        mask: the bins of each trial that inference has seen.
        penalty: of the parameters.
    """
    emission = model.emission.maximized(
        path, target=batch.target, weight=batch.weight, ridge=penalty.ridge
    )
    return SwitchingStateSpace(
        maximize_regimes(
            model.dynamics, path, states, inputs=batch.inputs, mask=mask, links=penalty.links
        ),
        maximize_switches(model.switches, states, mask=mask, penalty=penalty),
        emission,
    )


def maximize_switches(
    switches: Switches,
    states: DiscreteMarkovChain,
    *,
    mask: Bool[Tensor, "batch time"],
    penalty: SwitchingPenalty,
) -> Switches:
    """Return the most likely pi and P: expected counts, and those of the penalty."""
    weight = mask.to(states.log_initial)
    initial = weight[:, 0] @ states.probabilities[:, 0] + penalty.concentration - 1
    pairs = torch.einsum("bt,btij->ij", weight[:, 1:], states.joint) + penalty.counts(switches)
    return Switches((initial / initial.sum()).log(), (pairs / pairs.sum(1, keepdim=True)).log())


def maximize_regimes(
    dynamics: Dynamics,
    path: PathMoments,
    states: DiscreteMarkovChain,
    *,
    inputs: Float[Tensor, "batch time input"],
    mask: Bool[Tensor, "batch time"],
    links: LinkMoments | None,
) -> Dynamics:
    """Return the dynamics that maximise E_q[log p(z | m)]: a weighted regression for each state.

    A state that no step belongs to stays as it is, or as ``links`` has it.

    Args:
        dynamics: those the posterior was inferred with.
        path: moments of the paths.
        states: posterior of the states.
        inputs: u.
        mask: the bins that belong to each trial.
        links: steps that every state has seen beforehand.
    """
    learned = maximize_initial(dynamics, path, time_mask=mask)
    transition, input_matrix = learned.transition.clone(), learned.input_matrix.clone()
    offset, noise = learned.offset.clone(), learned.noise_covariance.clone()
    weight = states.probabilities[:, 1:] * mask[:, 1:, None]
    size = path.mean.shape[-1]
    for k, probability in enumerate(weight.unbind(-1)):
        seen = LinkMoments.of(path, inputs=inputs, weight=probability)
        if links is not None:
            seen = seen.plus(links)
        if float(seen.count) < torch.finfo(probability.dtype).tiny ** 0.5:
            continue
        coefficients = seen.regression()
        transition[k], input_matrix[k] = coefficients[:, :size], coefficients[:, size:-1]
        offset[k], noise[k] = (
            coefficients[:, -1],
            positive(seen.residual(coefficients) / seen.count),
        )
    return replace(
        learned,
        transition=transition,
        input_matrix=input_matrix,
        offset=offset,
        noise_covariance=noise,
    )


def canonical_switching(
    model: SwitchingStateSpace, states: DiscreteMarkovChain, mask: Bool[Tensor, "batch time"]
) -> SwitchingStateSpace:
    """Return the model in coordinates, and with an order of states, in which fits can be compared.

    The states come in the order of the time spent in them, the longest first; the latents as in
    ``canonical``, with mean and covariance of the switching prior (inputs at 0).

    Args:
        model: any parametrisation.
        states: posterior of the states of the trials learned from.
        mask: the bins of each trial that inference has seen.
    """
    spent = (states.probabilities * mask[..., None]).sum((0, 1))
    ordered = model.ordered(spent.argsort(descending=True, stable=True))
    dynamics, num_steps = ordered.dynamics, mask.shape[1]
    never = torch.zeros_like(mask[:1])
    no_inputs = dynamics.offset.new_zeros(1, num_steps, dynamics.input_matrix.shape[-1])
    densities = ordered.densities(no_inputs, never)
    mean = dynamics.offset.new_zeros(1, num_steps, dynamics.offset.shape[1])
    covariance = torch.zeros_like(mean)[..., None].expand(-1, -1, -1, mean.shape[-1])
    prior = continued_moments(
        densities, ordered.switches.chain(1, num_steps), mean=mean, covariance=covariance
    )
    change = coordinates(prior.covariance[0].mean(0), ordered.emission.loadings)
    return ordered.transformed(change, prior.mean[0].mean(0))


def seen_bins(weight: Float[Tensor, "batch time neuron"]) -> Bool[Tensor, "batch time"]:
    """Return the bins of each trial up to the last one with any weight."""
    there = (weight > 0).any(-1)
    return there.flip(1).cummax(1).values.flip(1)
