from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Normal

from seqvae.distributions import PoissonLogRate, kl_by_dimension
from seqvae.errors import InputError
from seqvae.objectives import Objective, bound, importance_weighted_bound, training_loss
from seqvae.types import Batch, Latent, Output
from test_objectives import make_output
from toy import toy_batch, toy_spec

AT_ONCE = Objective(beta_steps=0)
NUM_BITS, NUM_NEURONS = 2, 3


@pytest.fixture
def batch() -> Batch:
    return toy_batch(toy_spec(), lengths=[8, 3, 6, 8])


def loss(objective: Objective, output: Output, batch: Batch, step: int = 0) -> Tensor:
    return training_loss(objective, output, batch, step=step).value


def test_the_default_is_the_bound_to_the_bit(batch: Batch):
    output = make_output(batch)
    for step in (0, 100, 1000):
        expected = -bound(output, batch).elbo(Objective().beta_at(step)).mean()
        assert torch.equal(loss(Objective(), output, batch, step), expected)


def test_importance_weighted_loss_is_minus_the_bound(batch: Batch):
    output = make_output(batch, num_samples=5)
    found = loss(replace(AT_ONCE, bound="iwae", num_samples=5), output, batch)
    torch.testing.assert_close(found, -importance_weighted_bound(output, batch).mean())


def test_one_sample_of_the_importance_weighted_bound_is_the_bound_by_log_ratio(batch: Batch):
    output = make_output(batch, num_samples=1)
    free = loss(replace(AT_ONCE, bound="iwae", beta=0.0), output, batch)
    torch.testing.assert_close(free, -bound(output, batch).log_likelihood.mean())


@pytest.mark.parametrize("free_bits", [0.5, 5.0, 1e3])
def test_a_dimension_below_its_free_bits_costs_these_bits(batch: Batch, free_bits: float):
    output = make_output(batch)
    each = [kl_by_dimension(latent).mean((0, 1)) for latent in output.latents.values()]
    cost = sum(float(value.clamp_min(free_bits).sum()) for value in each)
    expected = 0.7 * cost - bound(output, batch).log_likelihood.mean()
    found = loss(replace(AT_ONCE, beta=0.7, free_bits=free_bits), output, batch)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("target", [0.0, 3.0, 1e3])
def test_a_target_asks_for_so_much_kl(batch: Batch, target: float):
    output = make_output(batch)
    terms = bound(output, batch)
    distance = (sum(terms.kl.values()).mean() - target).abs()
    objective = replace(AT_ONCE, beta=10.0, kl_target=target, kl_target_steps=100)
    found = loss(objective, output, batch, step=100)
    torch.testing.assert_close(found, 10 * distance - terms.log_likelihood.mean())
    assert objective.ramp_end == 100
    assert objective.kl_target_at(25) == target / 4


class Bits:
    """One trial and one bin: q(z) Bernoulli, p(x | z) Poisson with a linear log-rate.

    The expectation over q is a sum over all states, so that the gradient is known.
    """

    def __init__(self) -> None:
        torch.manual_seed(0)
        make = {"dtype": torch.float64, "requires_grad": True}
        self.logits = torch.tensor([[[0.3, -1.0]]], **make)
        self.prior_logits = torch.tensor([[0.5, 0.2]], **make)
        self.weight = torch.randn(NUM_NEURONS, NUM_BITS, dtype=torch.float64).requires_grad_()
        self.batch = toy_batch(toy_spec(num_neurons=NUM_NEURONS, num_time_bins=1), num_trials=1)
        self.parameters = [self.logits, self.prior_logits, self.weight]

    def answer(self, sample: Tensor) -> Output:
        """The output for samples of shape (sample, batch, time, latent)."""
        posterior = Bernoulli(logits=self.logits, validate_args=False)
        prior = Bernoulli(logits=self.prior_logits, validate_args=False)
        log_rate = sample @ self.weight.T
        latent = Latent(posterior, prior, sample)
        return Output({"bits": latent}, log_rate, PoissonLogRate(log_rate))

    def gradient(self, value: Tensor) -> Tensor:
        found = torch.autograd.grad(value, self.parameters)
        return torch.cat([part.flatten() for part in found])

    def all_draws(self, num_samples: int) -> list[Tensor]:
        states = list(itertools.product([0.0, 1.0], repeat=NUM_BITS))
        return [
            torch.tensor(draw, dtype=torch.float64)[:, None, None]
            for draw in itertools.product(states, repeat=num_samples)
        ]

    def probability(self, sample: Tensor) -> Tensor:
        return Bernoulli(logits=self.logits).log_prob(sample).sum().exp()

    def exact(self, objective: Objective, num_samples: int) -> Tensor:
        """Gradient of the expected loss."""
        plain = replace(objective, gradient="reparameterised")
        total = torch.zeros((), dtype=torch.float64)
        for sample in self.all_draws(num_samples):
            total = total + self.probability(sample) * loss(plain, self.answer(sample), self.batch)
        return self.gradient(total)

    def expected_estimate(self, objective: Objective) -> Tensor:
        """Mean of the estimates over all draws."""
        return sum(
            self.probability(sample).detach()
            * self.gradient(loss(objective, self.answer(sample), self.batch))
            for sample in self.all_draws(objective.num_samples)
        )


@pytest.mark.parametrize("baseline", ["leave_one_out", "none"])
@pytest.mark.parametrize("bound_name", ["elbo", "iwae"])
@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_score_function_is_unbiased_for_a_discrete_posterior(bound_name, baseline, beta):
    bits = Bits()
    objective = Objective(
        beta=beta, beta_steps=0, bound=bound_name, num_samples=3,
        gradient="score_function", baseline=baseline,
    )  # fmt: skip
    exact = bits.exact(objective, 3)
    torch.testing.assert_close(bits.expected_estimate(objective), exact, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shaped", [{"free_bits": 0.05}, {"free_bits": 9.0}, {"kl_target": 2.0}])
def test_score_function_is_unbiased_where_the_kl_is_shaped(shaped):
    """The KL is a closed form here, so the shaped cost has no noise."""
    bits = Bits()
    objective = Objective(beta_steps=0, num_samples=2, gradient="score_function", **shaped)
    exact = bits.exact(objective, 2)
    torch.testing.assert_close(bits.expected_estimate(objective), exact, rtol=1e-10, atol=1e-10)


def test_the_loss_is_worth_the_same_by_either_gradient():
    bits = Bits()
    sample = bits.all_draws(2)[5]
    for name in ("elbo", "iwae"):
        objective = Objective(beta_steps=0, bound=name, num_samples=2, gradient="score_function")
        plain = replace(objective, gradient="reparameterised")
        values = [loss(each, bits.answer(sample), bits.batch) for each in (objective, plain)]
        torch.testing.assert_close(*values)


def test_a_closed_form_kl_has_its_exact_gradient_in_every_draw():
    """Without anything to explain, no noise is left, whatever was drawn."""
    bits = Bits()
    batch = replace(bits.batch, weight=torch.zeros_like(bits.batch.weight))
    objective = Objective(beta_steps=0, num_samples=2, gradient="score_function")
    divergence = torch.distributions.kl_divergence(
        Bernoulli(logits=bits.logits), Bernoulli(logits=bits.prior_logits[None])
    ).sum()
    expected = torch.autograd.grad(divergence, bits.logits)[0]
    for sample in bits.all_draws(2):
        value = loss(objective, bits.answer(sample), batch)
        (found,) = torch.autograd.grad(value, bits.logits)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_samples_drawn_through_the_parameters_are_refused():
    mean = torch.zeros(1, 1, 2, dtype=torch.float64, requires_grad=True)
    posterior = Normal(mean, 1.0)
    sample = posterior.rsample((3,))
    latent = Latent(posterior, Normal(torch.zeros(1, 2).double(), 1.0), sample)
    batch = toy_batch(toy_spec(num_neurons=2, num_time_bins=1), num_trials=1)
    output = Output({"latent": latent}, sample, PoissonLogRate(sample))
    with pytest.raises(InputError, match="latent is drawn through the parameters"):
        loss(Objective(num_samples=3, gradient="score_function"), output, batch)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"gradient": "score_function"}, "num_samples must be at least 2 .* got 1"),
        ({"free_bits": -1.0}, "free_bits must be finite and at least 0, got -1"),
        ({"kl_target": math.nan}, "kl_target must be finite and at least 0, got nan"),
        ({"free_bits": 1.0, "kl_target": 2.0}, "free_bits and kl_target exclude each other"),
        ({"free_bits": 1.0, "bound": "iwae"}, "free_bits shapes the KL, which bound 'iwae' has"),
        ({"kl_target": 1.0, "bound": "iwae"}, "kl_target shapes the KL"),
    ],
)
def test_settings_that_make_no_objective_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Objective(**settings)


def test_one_sample_needs_no_baseline():
    assert Objective(gradient="score_function", baseline="none").num_samples == 1


@pytest.mark.parametrize("name", ["bound", "gradient", "baseline"])
def test_a_word_that_is_none_is_refused(name: str):
    objective = Objective()
    object.__setattr__(objective, name, "iwea")  # past the types, which the tests check
    with pytest.raises(InputError, match=f"{name} must be '.*' or '.*', got 'iwea'"):
        objective.__post_init__()
