"""Paths of a discrete state, and what is known of them given evidence in each bin."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.nn import functional
from torch.types import _size

from seqvae.compute import noise


class DiscreteMarkovChain(Distribution):
    """Paths of a state: m_1 ~ pi, m_t ~ P_t[m_{t-1}, :]; values are one-hot.

    Batch shape (batch,), event shape (time, state). Its mean are the probabilities of the states.

    Args:
        log_initial: log pi.
        log_transition: log P_t of every step but the first; a batch of one serves all trials.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.independent(constraints.one_hot, 1)

    def __init__(
        self,
        log_initial: Float[Tensor, "batch state"],
        log_transition: Float[Tensor, "#batch links state state"],
    ) -> None:
        self.log_initial, self.log_transition = log_initial, log_transition
        num_trials, num_states = log_initial.shape
        event = Size((log_transition.shape[1] + 1, num_states))
        super().__init__(Size((num_trials,)), event, validate_args=False)

    def given(self, log_likelihood: Float[Tensor, "batch time state"]) -> StatePosterior:
        """Return the posterior, itself such a chain, by one backward pass in logarithms.

        With b_T = 0 and b_{t-1}[i] = log sum_j P_t[i, j] exp(l_t[j] + b_t[j]), the posterior moves
        from i to j with probability P_t[i, j] exp(l_t[j] + b_t[j] - b_{t-1}[i]). Where l is 0 up to
        the end it is the prior run on.

        Args:
            log_likelihood: l_t[j], what bin t says of state j.
        """
        after = torch.zeros_like(log_likelihood[:, 0])
        links = []
        for t in range(log_likelihood.shape[1] - 1, 0, -1):
            link = self.log_transition[:, t - 1] + (log_likelihood[:, t] + after)[:, None]
            after = link.logsumexp(-1)
            links.append(link - after[..., None])
        first = self.log_initial + log_likelihood[:, 0] + after
        log_evidence = first.logsumexp(-1)
        num_states = first.shape[-1]
        transition = first.new_zeros(len(first), 0, num_states, num_states)
        if links:
            transition = torch.stack(links[::-1], dim=1)
        posterior = DiscreteMarkovChain(first - log_evidence[:, None], transition)
        return StatePosterior(posterior, log_evidence)

    @cached_property
    @torch.enable_grad()
    def probabilities(self) -> Float[Tensor, "batch time state"]:
        """P(m_t = k)."""
        transition = self.log_transition.exp().expand(*self._batch_shape, -1, -1, -1)
        steps = [self.log_initial.exp()]
        for link in transition.unbind(1):
            steps.append((steps[-1][:, None] @ link)[:, 0])
        return torch.stack(steps, dim=1)

    @property
    def joint(self) -> Float[Tensor, "batch links state state"]:
        """P(m_t = i, m_{t+1} = j)."""
        return self.probabilities[:, :-1, :, None] * self.log_transition.exp()

    @property
    def mean(self) -> Float[Tensor, "batch time state"]:
        """The probabilities of the states."""
        return self.probabilities

    @property
    def variance(self) -> Float[Tensor, "batch time state"]:
        """The variance p (1 - p) of each indicator."""
        return self.probabilities * (1 - self.probabilities)

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draw one-hot paths of shape sample_shape + (batch, time, state)."""
        shape = self._extended_shape(Size(sample_shape))
        num_states = shape[-1]
        uniform = noise.uniform(shape[:-1], like=self.log_initial, axis=len(shape) - 3)
        initial = self.log_initial.exp().cumsum(-1)
        transition = self.log_transition.exp().cumsum(-1).expand(*self._batch_shape, -1, -1, -1)
        trial = torch.arange(shape[-3], device=initial.device)
        state, states = None, []
        for t in range(shape[-2]):
            below = initial if state is None else transition[trial, t - 1, state]
            above = (uniform[..., t, None] > below).sum(-1)
            state = above.clamp_max(num_states - 1)  # a sum of probabilities may end below 1
            states.append(state)
        return functional.one_hot(torch.stack(states, -1), num_states).to(self.log_initial)

    def log_prob_terms(
        self, value: Float[Tensor, "*sample batch time state"]
    ) -> Float[Tensor, "*sample batch time"]:
        """Return log p(m_t | m_{t-1}) of every step; their sum is ``log_prob``."""
        first = _only(value[..., 0, :], self.log_initial)[..., None]
        pairs = value[..., :-1, :, None] * value[..., 1:, None, :]
        return torch.cat([first, _only(pairs.flatten(-2), self.log_transition.flatten(-2))], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(path), shape sample_shape + (batch,)."""
        return self.log_prob_terms(value).sum(-1)

    def kl_terms(self, prior: DiscreteMarkovChain) -> Float[Tensor, "batch time"]:
        """Return E[KL(q(m_t | m_{t-1}) || p(m_t | m_{t-1}))] of every step, this chain being q."""
        first = _only(self.log_initial.exp(), self.log_initial - prior.log_initial)[:, None]
        ratio = self.log_transition - prior.log_transition
        later = _only(self.joint.flatten(-2), ratio.flatten(-2))
        return torch.cat([first, later], -1)


class StatePosterior(NamedTuple):
    """States given evidence.

    Attributes:
        states: the posterior.
        log_evidence: log E[exp(sum_t l_t[m_t])] under the prior.
    """

    states: DiscreteMarkovChain
    log_evidence: Float[Tensor, " batch"]


def _only(
    weight: Float[Tensor, "*leading outcome"], value: Float[Tensor, "*#leading outcome"]
) -> Float[Tensor, "*leading"]:
    """Sum of weight x value; what cannot be weighs nothing, whatever the logarithm of it."""
    return torch.where(weight > 0, weight * value, 0.0).sum(-1)
