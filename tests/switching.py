"""Switching linear state-space models to test with."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import torch
from torch import Size, Tensor

from linear import random_dynamics, random_emission
from seqvae.distributions import GaussianMarkovChain
from seqvae.state_space import Dynamics, GaussianEmission, Switches, SwitchingStateSpace
from seqvae.state_space.continuation import continued_sample
from seqvae.types import Batch


def random_switching(
    kind: str,
    size: int = 2,
    *,
    num_states: int = 2,
    num_neurons: int = 5,
    num_inputs: int = 0,
    seed: int = 0,
) -> SwitchingStateSpace:
    """States that differ in everything they may differ in."""
    own = [
        random_dynamics(size, num_inputs=num_inputs, radius=0.95 - 0.2 * k, seed=seed + k)
        for k in range(num_states)
    ]
    stacked = {
        name: torch.stack([getattr(dynamics, name) for dynamics in own])
        for name in ("transition", "input_matrix", "offset", "noise_covariance")
    }
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_states + 1, num_states, generator=generator, dtype=torch.float64)
    logits[1:] += 2 * torch.eye(num_states)
    return SwitchingStateSpace(
        replace(own[0], **stacked),
        Switches(logits[0].log_softmax(-1), logits[1:].log_softmax(-1)),
        random_emission(kind, size, num_neurons=num_neurons),
    )


def state_dynamics(model: SwitchingStateSpace, k: int) -> Dynamics:
    """The dynamics of one state on its own."""
    dynamics = model.dynamics
    names = ("transition", "input_matrix", "offset", "noise_covariance")
    return replace(dynamics, **{name: getattr(dynamics, name)[k] for name in names})


def chain_of(model: SwitchingStateSpace, states: tuple[int, ...], inputs: Tensor):
    """The Gaussian path of one trial (time, input) whose states are known."""
    dynamics, later = model.dynamics, list(states[1:])
    pushed = torch.einsum("tiu,tu->ti", dynamics.input_matrix[later], inputs[1:])
    return GaussianMarkovChain.from_dynamics(
        dynamics.transition[later],
        dynamics.noise_covariance[later],
        initial_mean=dynamics.initial_mean,
        initial_covariance=dynamics.initial_covariance,
        num_steps=len(states),
        offset=dynamics.offset[later] + pushed,
    )


def simulate_switching(
    model: SwitchingStateSpace,
    *,
    num_trials: int,
    num_bins: int,
    lengths: list[int] | None = None,
    missing: float = 0.0,
    seed: int = 0,
) -> Batch:
    """Trials of a model, all neurons held in; missing and padded entries are 0 in the target."""
    torch.manual_seed(seed)
    num_inputs = model.dynamics.input_matrix.shape[-1]
    inputs = torch.randn(num_trials, num_bins, num_inputs, dtype=torch.float64)
    densities = model.densities(inputs, torch.zeros(num_trials, num_bins, dtype=torch.bool))
    states = model.switches.chain(num_trials, num_bins).sample(Size((1,)))
    zeros = inputs.new_zeros(1, num_trials, num_bins, len(model.dynamics.initial_mean))
    predictor = model.emission.predictor(continued_sample(densities, states, zeros)[0])
    if isinstance(model.emission, GaussianEmission):
        data = predictor + model.emission.std * torch.randn_like(predictor)
    else:
        data = torch.poisson(predictor.exp())
    ends = torch.tensor(lengths or [num_bins] * num_trials)
    there = (torch.arange(num_bins) < ends[:, None])[..., None]
    there = there & (torch.rand(data.shape) >= missing)
    data = torch.where(there, data, 0.0)
    return Batch(data, there, data, there.double(), inputs, ends, torch.arange(num_trials))


def exact_log_evidence(model: SwitchingStateSpace, batch: Batch, trial: int) -> float:
    """log p(x) of one trial of real values: the sum over every path of the states."""
    assert isinstance(model.emission, GaussianEmission)
    switches, total = model.switches, []
    num_states, num_bins = len(switches.log_initial), batch.target.shape[1]
    for states in product(range(num_states), repeat=num_bins):
        chain = chain_of(model, states, batch.inputs[trial])
        dense = torch.distributions.MultivariateNormal(
            chain.mean.flatten(), precision_matrix=chain.precision.dense()[0]
        )
        loadings = torch.block_diag(*[model.emission.loadings] * num_bins)
        seen = batch.weight[trial].flatten() > 0
        mean = loadings @ dense.mean + model.emission.bias.repeat(num_bins)
        covariance = loadings @ dense.covariance_matrix @ loadings.mT
        covariance = covariance + model.emission.std.square().repeat(num_bins).diag()
        data = torch.distributions.MultivariateNormal(mean[seen], covariance[seen][:, seen])
        log_prior = switches.log_initial[states[0]]
        for one, other in pairwise(states):
            log_prior = log_prior + switches.log_transition[one, other]
        total.append(log_prior + data.log_prob(batch.target[trial].flatten()[seen]))
    return float(torch.stack(total).logsumexp(0))
