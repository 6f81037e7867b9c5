from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from linear import kalman_smoother, random_model, simulate
from seqvae.models import LinearDynamics
from seqvae.objectives import importance_weighted_bound
from seqvae.state_space import LinearStateSpace, exact, laplace, path_bound
from seqvae.state_space.e_steps import converged, variational
from seqvae.state_space.evidence import laplace_evidence
from seqvae.state_space.particle_filter import (
    EvidenceEstimate,
    Proposal,
    bootstrap,
    estimate_log_evidence,
    guided,
    resampled,
)
from seqvae.types import Batch
from toy import toy_spec


def problem(kind: str, *, num_trials: int = 3, num_bins: int = 12, **options):
    """A model, its prior, data and what the functions of inference take of them."""
    model = random_model(kind, 2, num_neurons=6, num_inputs=1)
    batch = simulate(model, num_trials=num_trials, num_bins=num_bins, **options)
    prior = model.dynamics.chain(batch.inputs)
    return model, batch, prior, {"target": batch.target, "weight": batch.weight}


def exact_log_evidence(model: LinearStateSpace, batch: Batch) -> Tensor:
    found = [
        kalman_smoother(model, batch.target[i], batch.weight[i], batch.inputs[i]).log_likelihood
        for i in range(len(batch))
    ]
    return torch.tensor(found, dtype=torch.float64)


def within(estimate: EvidenceEstimate, truth: Tensor, *, errors: float = 4.0) -> bool:
    return bool(((estimate.value - truth).abs() < errors * estimate.standard_error).all())


@pytest.mark.parametrize("lengths", [None, [12, 5, 1]])
def test_bootstrap_filter_agrees_with_the_kalman_filter(lengths):
    model, batch, prior, given = problem("gaussian", missing=0.2, lengths=lengths)
    torch.manual_seed(0)
    propose = bootstrap(prior, model.emission, **given, num_particles=2000, num_runs=30)
    found = estimate_log_evidence(propose, 12)
    assert within(found, exact_log_evidence(model, batch))
    assert found.standard_error.max() < 0.1


def test_filter_guided_by_the_exact_posterior_is_exact():
    model, batch, prior, given = problem("gaussian", missing=0.2, lengths=[12, 5, 1])
    posterior = exact(prior, model.emission, **given)
    propose = guided(prior, model.emission, posterior, **given, num_particles=3, num_runs=2)
    found = estimate_log_evidence(propose, 12)
    assert_close(found.runs, exact_log_evidence(model, batch).expand(2, -1), rtol=1e-9, atol=0)
    assert found.standard_error.max() < 1e-8


@pytest.mark.parametrize("resample_below", [0.0, 0.5, 1.0])
def test_estimate_of_the_evidence_itself_is_unbiased(resample_below):
    model, batch, prior, given = problem("gaussian", num_bins=6)
    torch.manual_seed(0)
    propose = bootstrap(prior, model.emission, **given, num_particles=30, num_runs=6000)
    found = estimate_log_evidence(propose, 6, resample_below=resample_below)
    truth = exact_log_evidence(model, batch)
    ratio = (found.runs - truth).exp()
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert error.max() < 0.1
    assert ((ratio.mean(0) - 1).abs() < 4 * error).all()
    assert (found.runs.mean(0) < truth).all()  # its log is not [Jensen]


def test_resampling_takes_each_particle_as_often_as_it_weighs():
    torch.manual_seed(0)
    log_weight = torch.randn(50, 400, 2).double()
    chosen = resampled(log_weight)
    wanted = 50 * log_weight.softmax(0)
    taken = torch.zeros_like(wanted).scatter_add_(0, chosen, torch.ones_like(wanted))
    assert ((taken - wanted).abs() < 1 + 1e-9).all()
    assert_close(taken.sum(0), torch.full((400, 2), 50.0).double())
    assert float((taken - wanted).mean((1, 2)).abs().max()) < 0.1


def test_all_missing_trial_has_evidence_one():
    model, _, prior, given = problem("poisson")
    nothing = {"target": torch.zeros_like(given["target"]), "weight": 0 * given["weight"]}
    posterior = laplace(prior, model.emission, **nothing)
    found = estimate_log_evidence(bootstrap(prior, model.emission, **nothing), 12)
    assert_close(found.value, torch.zeros(3).double(), rtol=0, atol=1e-12)
    evidence = laplace_evidence(prior, model.emission, posterior, **nothing)
    assert_close(evidence, torch.zeros(3).double(), rtol=0, atol=1e-10)


def test_laplace_evidence_is_exact_for_gaussian_data():
    model, batch, prior, given = problem("gaussian", missing=0.2, lengths=[12, 5, 1])
    mode = laplace(prior, model.emission, **given)
    evidence = laplace_evidence(prior, model.emission, mode, **given)
    assert_close(evidence, exact_log_evidence(model, batch), rtol=1e-9, atol=0)


def test_laplace_evidence_of_one_poisson_bin_is_near_the_integral():
    model, batch, prior, given = problem("poisson", num_bins=1)
    mode = laplace(prior, model.emission, **given)
    evidence = laplace_evidence(prior, model.emission, mode, **given)
    steps = torch.linspace(-8, 8, 801).double()
    grid = torch.cartesian_prod(steps, steps)
    for trial in range(3):
        covariance = model.dynamics.initial_covariance
        root = torch.linalg.cholesky(covariance)
        path = model.dynamics.initial_mean + grid @ root.mT
        density = torch.distributions.Poisson(model.emission.predictor(path).exp())
        log_joint = density.log_prob(batch.target[trial]).sum(-1) - grid.square().sum(-1) / 2
        total = log_joint.logsumexp(0) + math.log(0.02**2 / (2 * math.pi))
        assert float(evidence[trial]) == pytest.approx(float(total), abs=0.1)
        found = estimate_log_evidence(
            guided(prior, model.emission, mode, **given, num_particles=2000), 1
        )
        assert float(found.value[trial]) == pytest.approx(float(total), abs=0.01)


def test_bounds_and_estimates_of_a_poisson_problem_stand_in_order():
    model, batch, prior, given = problem("poisson", num_bins=20)
    by_laplace = laplace(prior, model.emission, **given)
    best = converged(variational, prior, model.emission, **given)
    low, high = (path_bound(q, prior, model.emission, **given).elbo for q in (by_laplace, best))
    torch.manual_seed(0)
    estimates = [
        estimate_log_evidence(
            guided(prior, model.emission, q, **given, num_particles=2000, num_runs=20), 20
        )
        for q in (by_laplace, best)
    ]
    blind = bootstrap(prior, model.emission, **given, num_particles=5000, num_runs=20)
    estimates.append(estimate_log_evidence(blind, 20))
    assert estimates[0].standard_error.max() < 0.005
    truth = estimates[0].value
    for other in estimates[1:]:
        error = (estimates[0].standard_error.square() + other.standard_error.square()).sqrt()
        assert ((other.value - truth).abs() < 4 * error).all()

    assert (high >= low - 1e-9).all()
    assert (high < truth).all()
    assert (truth - low < 0.5).all()
    approximate = laplace_evidence(prior, model.emission, by_laplace, **given)
    assert (approximate - truth).abs().max() < 0.3
    assert (approximate > truth).any()  # so it is no bound

    iwae = importance_weighted(model, batch, num_samples=1000)
    assert (iwae > high).all()
    assert (iwae - truth).abs().max() < 0.05


def importance_weighted(model: LinearStateSpace, batch: Batch, *, num_samples: int) -> Tensor:
    neurons = model.emission.loadings.shape[0]
    spec = toy_spec(num_neurons=neurons, num_inputs=1, num_time_bins=batch.target.shape[1])
    verb = LinearDynamics(spec, latent_dim=2)
    verb.take(model)
    return importance_weighted_bound(verb(batch, num_samples), batch)


def test_importance_weighted_bound_rises_over_nested_groups_of_the_same_draws():
    model, batch, _, _ = problem("poisson", num_bins=20)
    spec = toy_spec(num_neurons=6, num_inputs=1, num_time_bins=20)
    verb = LinearDynamics(spec, latent_dim=2)
    verb.take(model)
    output = verb(batch, 1000)
    latent = output.latents["latents"]
    likelihood = (batch.weight * output.emission.log_prob(batch.target)).sum((2, 3))
    log_weight = likelihood + latent.prior.log_prob(latent.sample)
    log_weight = log_weight - latent.posterior.log_prob(latent.sample)
    bounds = [
        (log_weight.unflatten(0, (-1, k)).logsumexp(1) - math.log(k)).mean(0)
        for k in (1, 10, 100, 1000)
    ]
    for one, more in pairwise(bounds):
        assert (more >= one).all()
    assert_close(bounds[-1], importance_weighted_bound(output, batch))


def test_a_model_of_ones_own_needs_a_proposal_only():
    """Two states that stay or switch, seen through Gaussian noise: the forward recursion."""
    torch.manual_seed(0)
    stay, data = 0.9, torch.randn(2, 15).double()
    means = torch.tensor([-1.0, 1.0]).double()

    def propose(step: int, before: Tensor | None) -> Proposal:
        draws = torch.rand(4000, 20, 2).double()
        state = draws < 0.5 if before is None else before ^ (draws > stay)
        at = means[state.long()]
        return Proposal(state, -0.5 * (data[:, step] - at).square())

    found = estimate_log_evidence(propose, 15)
    table = torch.tensor([[stay, 1 - stay], [1 - stay, stay]]).double()
    for trial in range(2):
        forward = torch.full((2,), 0.5).double()
        for step in range(15):
            forward = forward if step == 0 else forward @ table
            forward = forward * (-0.5 * (data[trial, step] - means).square()).exp()
        assert abs(found.value[trial] - forward.sum().log()) < 4 * found.standard_error[trial]


def test_posterior_of_shared_precision_guides_all_trials():
    model, batch, prior, given = problem("gaussian")
    posterior = exact(prior, model.emission, **given)
    assert len(posterior.precision.diagonal) == 1
    assert posterior.logdet.shape == (1,)
    propose = guided(prior, model.emission, posterior, **given, num_particles=2, num_runs=1)
    found = estimate_log_evidence(propose, 12)
    assert_close(found.value, exact_log_evidence(model, batch))
    evidence = laplace_evidence(prior, model.emission, posterior, **given)
    assert_close(evidence, found.value)
