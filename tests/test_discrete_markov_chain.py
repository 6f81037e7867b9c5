from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from seqvae.distributions import DiscreteMarkovChain, kl, kl_terms, log_ratio
from seqvae.types import Latent

BATCH, TIME, STATES = 3, 5, 3


def random_chain(
    num_steps: int = TIME, *, batch: int = BATCH, seed: int = 0
) -> DiscreteMarkovChain:
    generator = torch.Generator().manual_seed(seed)
    initial = torch.randn(batch, STATES, generator=generator, dtype=torch.float64)
    shape = (batch, num_steps - 1, STATES, STATES)
    transition = torch.randn(shape, generator=generator, dtype=torch.float64)
    return DiscreteMarkovChain(initial.log_softmax(-1), transition.log_softmax(-1))


def evidence(num_steps: int = TIME) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    return 3 * torch.randn(BATCH, num_steps, STATES, generator=generator, dtype=torch.float64)


def all_paths(num_steps: int) -> Tensor:
    """Every path there is, one-hot, for every trial."""
    paths = torch.tensor(list(product(range(STATES), repeat=num_steps)))
    hot = torch.nn.functional.one_hot(paths, STATES).double()
    return hot[:, None].expand(-1, BATCH, -1, -1)


@pytest.mark.parametrize("num_steps", [1, 2, TIME])
def test_posterior_is_that_of_all_paths(num_steps):
    prior, said, paths = random_chain(num_steps), evidence(num_steps), all_paths(num_steps)
    joint = prior.log_prob(paths) + (paths * said).sum((-1, -2))
    posterior, log_evidence = prior.given(said)
    assert_close(log_evidence, joint.logsumexp(0), rtol=0, atol=1e-12)
    weight = (joint - joint.logsumexp(0)).exp()
    assert_close(posterior.log_prob(paths).exp(), weight, rtol=0, atol=1e-12)
    marginals = torch.einsum("pb,pbtk->btk", weight, paths)
    assert_close(posterior.probabilities, marginals, rtol=0, atol=1e-12)
    pairs = torch.einsum("pb,pbti,pbtj->btij", weight, paths[:, :, :-1], paths[:, :, 1:])
    assert_close(posterior.joint, pairs, rtol=0, atol=1e-12)


def test_evidence_of_any_size_is_safe():
    prior, said = random_chain(), 1e6 * evidence()
    posterior, log_evidence = prior.given(said)
    assert log_evidence.isfinite().all()
    best = posterior.probabilities.argmax(-1)
    assert_close(posterior.probabilities.amax(-1), torch.ones(BATCH, TIME).double())
    assert (best == said.argmax(-1)).all()


def test_a_state_that_cannot_be_is_never_visited():
    prior = random_chain()
    transition = prior.log_transition.clone()
    transition[..., 0] = -torch.inf
    prior = DiscreteMarkovChain(prior.log_initial, transition.log_softmax(-1))
    posterior, log_evidence = prior.given(evidence())
    assert log_evidence.isfinite().all()
    assert (posterior.probabilities[:, 1:, 0] == 0).all()
    assert posterior.kl_terms(prior).isfinite().all()


def test_without_evidence_the_posterior_is_the_prior_run_on():
    prior, said = random_chain(), evidence()
    said[:, 3:] = 0
    posterior, log_evidence = prior.given(said)
    shorter = DiscreteMarkovChain(prior.log_initial, prior.log_transition[:, :2])
    assert_close(log_evidence, shorter.given(said[:, :3]).log_evidence)
    assert_close(posterior.log_transition[:, 2:], prior.log_transition[:, 2:])
    assert_close(posterior.kl_terms(prior)[:, 3:], torch.zeros(BATCH, 2).double())


def test_divergence_is_the_sum_over_all_paths():
    one, other, paths = random_chain(), random_chain(seed=1), all_paths(TIME)
    weight = one.log_prob(paths).exp()
    total = (weight * (one.log_prob(paths) - other.log_prob(paths))).sum(0)
    sample = one.sample(torch.Size((2,)))
    assert_close(kl(Latent(one, other, sample)), total.expand(2, -1), rtol=0, atol=1e-12)
    ratio = one.log_prob(sample) - other.log_prob(sample)
    assert_close(log_ratio(Latent(one, other, sample)), ratio)
    mask = torch.arange(TIME) < torch.tensor([[5], [2], [1]])
    terms = kl_terms(Latent(one, other, sample, mask))
    assert terms.shape == (2, BATCH, TIME)
    assert_close(terms[0], one.kl_terms(other) * mask)


def test_samples_have_the_probabilities():
    torch.manual_seed(0)
    chain = random_chain()
    sample = chain.sample(torch.Size((20_000,)))
    assert sample.shape == (20_000, BATCH, TIME, STATES)
    assert (sample.sum(-1) == 1).all()
    assert_close(sample.mean(0), chain.mean, rtol=0, atol=0.015)
    assert_close(sample.var(0), chain.variance, rtol=0, atol=0.015)
    pairs = (sample[:, :, :-1, :, None] * sample[:, :, 1:, None]).mean(0)
    assert_close(pairs, chain.joint, rtol=0, atol=0.015)


def test_what_is_first_asked_without_gradients_does_not_lose_them():
    """Of two steps the second is where the first leads: P(m_2 = j) = sum_i P(m_1 = i) P(j | i)."""
    initial = torch.tensor([[0.3, 0.7]]).double().log().requires_grad_()
    transition = torch.tensor([[[[0.9, 0.1], [0.4, 0.6]]]]).double().log()
    chain = DiscreteMarkovChain(initial, transition)
    with torch.no_grad():
        assert_close(chain.probabilities[0, 1], torch.tensor([0.55, 0.45]).double())
    (gradient,) = torch.autograd.grad(chain.probabilities[0, 1, 0], initial)
    assert_close(gradient, torch.tensor([[0.3 * 0.9, 0.7 * 0.4]]).double())


def test_trials_may_share_their_transitions():
    chain = random_chain()
    shared = DiscreteMarkovChain(chain.log_initial, chain.log_transition[:1])
    repeated = DiscreteMarkovChain(
        chain.log_initial, chain.log_transition[:1].expand(BATCH, -1, -1, -1)
    )
    assert_close(shared.probabilities, repeated.probabilities)
    assert_close(shared.given(evidence()).log_evidence, repeated.given(evidence()).log_evidence)
    assert shared.sample().shape == (BATCH, TIME, STATES)
