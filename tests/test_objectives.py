from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.distributions import Independent, Normal

from seqvae.distributions import Delta, PoissonLogRate, entropy, kl, log_density, log_ratio
from seqvae.objectives import (
    Objective,
    bound,
    has_elbo,
    importance_weighted_bound,
    joint_plus_entropy,
    log_likelihood,
    log_weights,
    ramp,
)
from seqvae.types import Batch, Latent, Output
from toy import toy_batch, toy_spec


@pytest.fixture
def batch() -> Batch:
    return toy_batch(toy_spec(), lengths=[8, 3, 6, 8])


def make_output(batch: Batch, *, num_samples: int = 3, point: bool = False) -> Output:
    """Any answer with one latent a trial and one a bin."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    def latent(shape: tuple[int, ...], mask: torch.Tensor | None) -> Latent:
        mean, std = draw(4, *shape), draw(4, *shape).exp()
        posterior = Delta(mean) if point else Normal(mean, std)
        prior = Normal(torch.zeros(shape).double(), torch.ones(shape).double())
        return Latent(posterior, prior, mean + std * draw(num_samples, 4, *shape), mask)

    latents = {"start": latent((2,), None), "path": latent((8, 3), batch.time_mask)}
    factors = draw(num_samples, *batch.target.shape)
    return Output(latents, factors, PoissonLogRate(factors))


def test_bound_is_made_of_the_log_likelihood_and_each_kl(batch: Batch):
    output = make_output(batch)
    terms = bound(output, batch)
    log_rate, target = output.factors, batch.target
    log_prob = target * log_rate - log_rate.exp() - torch.lgamma(target + 1)
    expected = torch.where(batch.time_mask[..., None], log_prob, 0).sum((2, 3)).mean(0)
    torch.testing.assert_close(terms.log_likelihood, expected)
    assert set(terms.kl) == {"start", "path"}
    for name, latent in output.latents.items():
        torch.testing.assert_close(terms.kl[name], kl(latent).mean(0))
        assert (terms.kl[name] > 0).all()


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0, 4.0])
def test_beta_weighs_the_kl(batch: Batch, beta: float):
    terms = bound(make_output(batch), batch)
    total = sum(terms.kl.values())
    torch.testing.assert_close(terms.elbo(beta), terms.log_likelihood - beta * total)
    torch.testing.assert_close(terms.elbo(), terms.log_likelihood - total)


def test_elbo_without_latents_is_the_log_likelihood(batch: Batch):
    output = make_output(batch)
    terms = bound(Output({}, output.factors, output.emission), batch)
    assert torch.equal(terms.elbo(), terms.log_likelihood)


def test_weight_scales_what_an_entry_counts(batch: Batch):
    output = make_output(batch)
    doubled = Batch(**{**vars(batch), "weight": 2 * batch.weight})
    torch.testing.assert_close(log_likelihood(output, doubled), 2 * log_likelihood(output, batch))


@pytest.mark.parametrize("kind", ["counts", "real"])
def test_log_likelihood_is_the_weighted_sum_of_the_density(kind: str):
    batch = toy_batch(toy_spec(), lengths=[8, 3, 6, 8], data_kind=kind)
    output = make_output(batch)
    emission = PoissonLogRate(output.factors) if kind == "counts" else Normal(output.factors, 1.5)
    log_prob = emission.log_prob(batch.target)
    expected = torch.einsum("btn, sbtn -> sb", batch.weight, log_prob)
    found = log_likelihood(replace(output, emission=emission), batch)
    torch.testing.assert_close(found, expected)


def test_a_likelihood_that_is_known_is_not_computed_again(batch: Batch):
    output = make_output(batch)
    known = log_likelihood(output, batch)
    other = replace(output, emission=PoissonLogRate(output.factors + 1))
    terms, expected = bound(other, batch, likelihood=known), bound(output, batch)
    assert torch.equal(terms.elbo(), expected.elbo())
    iwae = importance_weighted_bound(other, batch, likelihood=known)
    assert torch.equal(iwae, importance_weighted_bound(output, batch))


def test_one_importance_sample_is_the_bound_by_the_log_ratio(batch: Batch):
    output = make_output(batch, num_samples=1)
    ratio = sum(log_ratio(latent) for latent in output.latents.values())
    expected = (log_likelihood(output, batch) - ratio)[0]
    torch.testing.assert_close(importance_weighted_bound(output, batch), expected)


def test_importance_weights_are_averaged_outside_the_logarithm(batch: Batch):
    output = make_output(batch, num_samples=3)
    ratio = sum(log_ratio(latent) for latent in output.latents.values())
    log_weight = log_likelihood(output, batch) - ratio
    top = log_weight.amax(0)
    expected = top + (log_weight - top).exp().mean(0).log()
    torch.testing.assert_close(importance_weighted_bound(output, batch), expected)
    assert (expected >= log_weight.mean(0)).all()


def test_joint_plus_entropy_is_the_bound_where_the_samples_have_the_moments(batch: Batch):
    """Two samples, a standard deviation to either side of the mean."""
    output = make_output(batch, num_samples=2)
    latents = {
        name: latent._replace(
            sample=latent.posterior.mean
            + torch.tensor([1.0, -1.0]).double().reshape(2, *[1] * latent.posterior.mean.ndim)
            * latent.posterior.stddev
        )
        for name, latent in output.latents.items()
    }  # fmt: skip
    output = replace(output, latents=latents)
    torch.testing.assert_close(joint_plus_entropy(output, batch), bound(output, batch).elbo())
    known = log_likelihood(output, batch) + 1
    torch.testing.assert_close(
        joint_plus_entropy(output, batch, likelihood=known), bound(output, batch).elbo() + 1
    )


def test_log_weights_are_joint_minus_posterior(batch: Batch):
    output = make_output(batch)
    expected = log_likelihood(output, batch)
    for latent in output.latents.values():
        expected = expected + log_density(latent.prior, latent)
        expected = expected - log_density(latent.posterior, latent)
    torch.testing.assert_close(log_weights(output, batch), expected)
    torch.testing.assert_close(log_weights(output, batch, beta=0.0), log_likelihood(output, batch))
    assert entropy(output.latents["path"]).shape == (3, 4)


def test_a_point_has_no_kl_and_no_bound(batch: Batch):
    output = make_output(batch, point=True)
    assert not has_elbo(output)
    start = output.latents["start"]
    wrapped = start._replace(posterior=Independent(start.posterior, 1))
    assert not has_elbo(replace(output, latents={"start": wrapped}))
    assert has_elbo(make_output(batch))
    assert all(not value.any() for value in bound(output, batch).kl.values())


def test_the_default_ends_at_the_true_bound():
    assert Objective().beta_at(Objective().ramp_end) == 1.0
    assert Objective().recurrent_l2_at(10**6) == 0.0


def test_beta_rises_linearly_between_start_and_end():
    objective = Objective(beta=0.5, beta_start=10, beta_steps=20)
    steps = [0, 10, 15, 20, 29, 30, 10**6]
    assert [objective.beta_at(step) for step in steps] == pytest.approx(
        [0, 0, 0.125, 0.25, 0.475, 0.5, 0.5]
    )
    assert objective.ramp_end == 30


def test_l2_rises_on_a_ramp_of_its_own():
    objective = Objective(recurrent_l2=8.0, recurrent_l2_start=100, recurrent_l2_steps=400)
    steps = [99, 100, 300, 500]
    assert [objective.recurrent_l2_at(step) for step in steps] == pytest.approx([0, 0, 4, 8])
    assert objective.ramp_end == 500
    assert Objective(recurrent_l2_start=100, recurrent_l2_steps=400).ramp_end == 300


def test_no_steps_give_the_final_value_at_once():
    assert Objective(beta_steps=0).beta_at(0) == 1.0
    assert ramp(4, start=5, steps=0) == 0.0
    assert ramp(5, start=5, steps=0) == 1.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("beta", -1.0),
        ("beta", math.inf),
        ("beta", math.nan),
        ("beta_start", -1),
        ("beta_steps", -1),
        ("recurrent_l2", -0.1),
        ("recurrent_l2", math.nan),
        ("recurrent_l2_start", -1),
        ("recurrent_l2_steps", -1),
    ],
)
def test_impossible_weights_are_refused(name: str, value: float):
    with pytest.raises(ValueError, match=f"^{name} must be finite and at least 0, got {value}"):
        Objective(**{name: value})
