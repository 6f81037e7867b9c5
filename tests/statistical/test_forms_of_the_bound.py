"""Where everything is linear and Gaussian the three forms of the bound are known numbers."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, Normal

from seqvae.analysis import refine
from seqvae.distributions.divergence import scale_tril
from seqvae.encoders import FreeGaussian
from seqvae.models import VAE
from seqvae.objectives import (
    bound,
    evidence_minus_kl,
    importance_weighted_bound,
    joint_plus_entropy,
    log_weights,
)
from seqvae.observations import Gaussian
from seqvae.types import Batch, Latent, Output
from toy import toy_batch, toy_spec

LATENT_DIM, NUM_NEURONS, NUM_BINS, NUM_TRIALS = 3, 5, 2, 4


@pytest.fixture(autouse=True)
def double_precision_and_seed() -> object:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def linear_model(covariance: str = "diagonal") -> VAE:
    """x_t = C z_t + b + noise; columns of C are far from orthogonal."""
    spec = toy_spec(num_neurons=NUM_NEURONS, num_time_bins=NUM_BINS)
    model = VAE(
        spec,
        latent_dim=LATENT_DIM,
        factor_dim=LATENT_DIM,
        dropout=0.0,
        encoder=partial(FreeGaussian, covariance=covariance),
        observation=partial(Gaussian, min_std=0.0),
    )
    model.decoder = torch.nn.Identity()
    with torch.no_grad():
        model.observation.readout.weight.copy_(torch.randn(NUM_NEURONS, LATENT_DIM) + 0.5)
        model.observation.readout.bias.normal_()
        model.observation.log_std.copy_((0.5 + torch.rand(NUM_NEURONS)).log())
    model.make_room(NUM_TRIALS, NUM_BINS)
    return model.eval().requires_grad_(False)


def truth(model: VAE, batch: Batch) -> tuple[Tensor, MultivariateNormal]:
    """log p(x) of each trial, and p(z_t | x_t) of each bin."""
    readout, variance = model.observation.readout, model.observation.std.square()
    marginal = MultivariateNormal(
        readout.bias, readout.weight @ readout.weight.T + torch.diag(variance)
    )
    precision = torch.eye(LATENT_DIM) + readout.weight.T / variance @ readout.weight
    gain = torch.linalg.solve(precision, readout.weight.T / variance)
    mean = (batch.target - readout.bias) @ gain.T
    return marginal.log_prob(batch.target).sum(1), MultivariateNormal(
        mean, precision_matrix=precision.expand(*mean.shape, -1)
    )


def mean_field(exact: MultivariateNormal) -> Normal:
    """The best factorised posterior: the same mean, the variances of the conditionals."""
    precision = exact.precision_matrix.diagonal(dim1=-2, dim2=-1)
    return Normal(exact.mean, precision.rsqrt())


def output_at(model: VAE, posterior: Distribution, sample: Tensor) -> Output:
    prior = model.prior((NUM_BINS, LATENT_DIM), None)
    return Output({"latent": Latent(posterior, prior, sample)}, sample, model.observation(sample))


def at_sigma_points(model: VAE, posterior: Normal | MultivariateNormal) -> Output:
    """The answer at points with mean and covariance of q: averages of quadratics are exact."""
    steps = math.sqrt(LATENT_DIM) * scale_tril(posterior).movedim(-1, 0)
    return output_at(model, posterior, torch.cat([posterior.mean + steps, posterior.mean - steps]))


def example(model: VAE) -> Batch:
    return toy_batch(model.spec, num_trials=NUM_TRIALS, data_kind="real")


def test_the_three_forms_are_one_number_and_order_the_posteriors():
    model = linear_model()
    batch = example(model)
    evidence, exact = truth(model, batch)
    posteriors = {
        "wrong": Normal(exact.mean + 0.2, torch.full_like(exact.mean, 0.7)),
        "mean field": mean_field(exact),
        "full": MultivariateNormal(exact.mean, scale_tril=exact.scale_tril),
    }
    close = partial(torch.testing.assert_close, rtol=0, atol=1e-8)
    found = {}
    for name, posterior in posteriors.items():
        output = at_sigma_points(model, posterior)
        dense = MultivariateNormal(posterior.mean, scale_tril=scale_tril(posterior))
        found[name] = bound(output, batch).elbo()
        close(joint_plus_entropy(output, batch), found[name])
        close(evidence_minus_kl(evidence, dense, exact), found[name])
    assert (found["wrong"] < found["mean field"] - 0.01).all()
    assert (found["mean field"] < found["full"] - 0.01).all()
    close(found["full"], evidence)
    correlation = exact.precision_matrix.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    gap = 0.5 * (correlation - torch.logdet(exact.precision_matrix)).sum(1)
    close(evidence - found["mean field"], gap)


def test_a_factorised_posterior_is_exact_where_the_latents_do_not_interact():
    model = linear_model()
    basis, _ = torch.linalg.qr(torch.randn(NUM_NEURONS, LATENT_DIM))
    model.observation.readout.weight.copy_(model.observation.std[:, None] * basis)
    batch = example(model)
    evidence, exact = truth(model, batch)
    found = bound(at_sigma_points(model, mean_field(exact)), batch).elbo()
    torch.testing.assert_close(found, evidence, rtol=0, atol=1e-8)


def test_every_draw_from_the_exact_posterior_weighs_the_evidence():
    model = linear_model()
    batch = example(model)
    evidence, exact = truth(model, batch)
    output = output_at(model, exact, exact.rsample((20,)))
    weights = log_weights(output, batch)
    torch.testing.assert_close(weights, evidence.expand(20, -1), rtol=0, atol=1e-8)
    found = importance_weighted_bound(output, batch)
    torch.testing.assert_close(found, evidence, rtol=0, atol=1e-8)


def test_larger_groups_of_the_same_draws_raise_the_bound_without_tolerance():
    model = linear_model()
    batch = example(model)
    evidence, exact = truth(model, batch)
    posterior = Normal(exact.mean + 0.1, torch.full_like(exact.mean, 0.8))
    sample = posterior.rsample((256,))
    found = []
    for size in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        groups = [output_at(model, posterior, group) for group in sample.split(size)]
        found.append(torch.stack([importance_weighted_bound(g, batch) for g in groups]).mean(0))
    assert all((tighter > looser).all() for looser, tighter in pairwise(found))
    assert (evidence - found[-1] < 0.2 * (evidence - found[0])).all()


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_refining_a_free_posterior_finds_the_best_of_its_family(covariance: str):
    model = linear_model(covariance)
    batch = example(model)
    evidence, exact = truth(model, batch)
    best = exact if covariance == "full" else mean_field(exact)
    refined = refine(model, batch, num_steps=1500, num_samples=16, learning_rate=0.05)
    assert (refined.amortisation_gap > 0).all()
    found = refined.encoding["latent"]
    dense = MultivariateNormal(found.mean, scale_tril=scale_tril(found))
    best = MultivariateNormal(best.mean, scale_tril=scale_tril(best))
    loss = evidence_minus_kl(evidence, best, exact) - evidence_minus_kl(evidence, dense, exact)
    assert (loss >= -1e-9).all()
    assert (loss < 0.03).all()
