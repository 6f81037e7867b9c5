"""What posteriors expect in closed form, against quadrature, dense algebra and many samples."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from linear import random_emission, random_model, simulate
from seqvae.analysis.posterior import posterior_dataset, posterior_summary
from seqvae.crossvalidation.division import Holdout
from seqvae.crossvalidation.scoring import mean_rate_of, score
from seqvae.data import NeuralData, Recording
from seqvae.data.sources import Arrays
from seqvae.models import FLDS, PCA, VAE, FactorAnalysis, LinearDynamics, SwitchingLinearDynamics
from seqvae.models.scores import Scores
from seqvae.observations import Gaussian, NegativeBinomial, Poisson
from seqvae.types import Batch, DataSpec
from test_linear_dynamics import cut, with_parameters
from toy import scramble, toy_batch, toy_spec, with_target

SPEC = toy_spec(heldout=(1, 4), num_forecast_bins=2, num_inputs=2)
LINEAR = {
    "LinearDynamics": LinearDynamics,
    "SwitchingLinearDynamics": SwitchingLinearDynamics,
    "FactorAnalysis": FactorAnalysis,
    "PCA": PCA,
    "FLDS": partial(FLDS, decoder_dims=()),
}
OBSERVATIONS = {"poisson": Poisson, "gaussian": Gaussian}


def built(name: str, kind: str):
    model = LINEAR[name](SPEC, latent_dim=3, observation=OBSERVATIONS[kind]).double().eval()
    scramble(model, size=0.1)
    return model


def with_gaps(batch: Batch) -> Batch:
    """The batch with a tenth of its entries missing, for inference and scores alike."""
    there = torch.rand(batch.target.shape, generator=torch.Generator().manual_seed(3)) > 0.1
    seen = there[:, : batch.observed.shape[1], list(SPEC.heldin)] & batch.observed_mask
    weight = batch.weight * there
    gapless = with_target(batch, batch.target * there, SPEC)
    return replace(gapless, observed_mask=seen, weight=weight)


def z_scores(samples: Tensor, expected: Tensor) -> Tensor:
    """Distance of the sample mean from what is expected, in standard errors."""
    error = samples.std(0) / len(samples) ** 0.5
    return (samples.mean(0) - expected).abs() / (error + 1e-9)


@pytest.mark.parametrize("kind", OBSERVATIONS)
@pytest.mark.parametrize("name", LINEAR)
def test_expectations_are_the_means_of_many_samples(name, kind):
    """With held-out neurons, forecast bins, gaps and trials of several lengths."""
    model = built(name, kind)
    data_kind = model.observation.kind.name
    batch = with_gaps(toy_batch(SPEC, data_kind=data_kind, lengths=[8, 3, 6, 8]))
    torch.manual_seed(0)
    with torch.no_grad():
        output = model(batch, 4000)
        known = model.expectations(output, batch)
    valid = batch.time_mask
    log_probs = output.emission.log_prob(batch.target)
    for samples, expected in (
        (output.factors, known.factors),
        (output.emission.mean, known.mean),
        (log_probs, known.log_prob),
    ):
        assert expected.shape == samples.shape[1:]
        assert (z_scores(samples, expected)[valid] < 5.5).all()
    assert_close(output.factors.std(0)[valid], known.factors_sd[valid], rtol=0.1, atol=0.01)
    sd = output.emission.mean.std(0)[valid]  # of log-normal rates: slow to settle
    assert_close(sd, known.mean_sd[valid], rtol=0.3, atol=0.01)
    if known.log_predictive is None:
        assert kind == "poisson" or name == "SwitchingLinearDynamics"
    else:
        predictive = log_probs.logsumexp(0) - np.log(4000)
        assert_close(known.log_predictive[valid], predictive[valid], rtol=0.05, atol=0.05)
    expected = (batch.weight * known.log_prob).sum((1, 2))
    assert (z_scores((batch.weight * log_probs).sum((2, 3)), expected) < 5).all()


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_expectations_over_a_gaussian_predictor_are_those_of_quadrature(kind):
    emission = random_emission(kind, 2, num_neurons=4)
    nodes, weights = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(80))
    weights = weights / weights.sum()
    mean = torch.tensor([[[-1.0, 0.3, 0.0, 1.2]]], dtype=torch.float64)
    variance = torch.tensor([[[0.2, 1.0, 0.0, 0.5]]], dtype=torch.float64)
    target = torch.tensor([[[0.0, 2.0, 1.0, 5.0]]], dtype=torch.float64)
    eta = mean[..., None] + variance.sqrt()[..., None] * nodes
    if kind == "gaussian":
        data = torch.distributions.Normal(eta, emission.std[:, None])
    else:
        data = torch.distributions.Poisson(eta.exp())
    log_prob = data.log_prob(target[..., None])
    found = emission.terms(target, mean, variance).value + emission.constant(target)
    assert_close(found, log_prob @ weights, rtol=1e-10, atol=1e-10)
    response, first = emission.response(mean, variance), data.mean @ weights
    assert_close(response.mean, first, rtol=1e-9, atol=1e-9)
    second = ((data.mean - first[..., None]).square() @ weights).sqrt()
    assert_close(response.sd, second, rtol=1e-7, atol=1e-9)
    predictive = emission.log_predictive(target, mean, variance)
    if kind == "gaussian":
        assert_close(predictive, (log_prob.exp() @ weights).log(), rtol=1e-7, atol=1e-9)
    else:
        assert predictive is None


def dense_evidence(model: LinearDynamics, batch: Batch, trial: int) -> Tensor:
    """log N(x; m, C V C' + R) of what inference sees of a trial, by the covariance of all bins."""
    dynamics, emission = model.state_space
    num_bins, size = batch.target.shape[1], model.latent_dim
    means, rows = [dynamics.initial_mean], [dynamics.initial_covariance]
    covariance = torch.zeros(num_bins, size, num_bins, size, dtype=torch.float64)
    for t in range(1, num_bins):
        push = dynamics.input_matrix @ batch.inputs[trial, t] + dynamics.offset
        means.append(dynamics.transition @ means[-1] + push)
        moved = dynamics.transition @ rows[-1] @ dynamics.transition.mT
        rows.append(moved + dynamics.noise_covariance)
    for s in range(num_bins):
        block = rows[s]
        for t in range(s, num_bins):
            covariance[t, :, s] = block
            covariance[s, :, t] = block.mT
            block = dynamics.transition @ block
    heldin, num_encoded = list(model.spec.heldin), batch.observed.shape[1]
    loadings = emission.loadings[heldin]
    seen = batch.observed_mask[trial]
    mean = (torch.stack(means) @ loadings.mT + emission.bias[heldin])[:num_encoded]
    spread = torch.einsum("ni,tisj,mj->tnsm", loadings, covariance, loadings)
    spread = spread[:num_encoded, :, :num_encoded][seen][:, seen]
    noise = emission.std[heldin].square().expand_as(mean)[seen]
    return MultivariateNormal(mean[seen], spread + noise.diag()).log_prob(
        batch.observed[trial][seen]
    )


@pytest.mark.parametrize(
    "options", [{}, {"heldout": (1, 4)}, {"heldout": (1, 4), "num_forecast_bins": 3}]
)
def test_bound_of_an_exact_posterior_is_the_log_evidence(options):
    state_space = random_model("gaussian", 3, num_inputs=2)
    model = with_parameters(state_space, **options)
    whole = simulate(state_space, num_trials=3, num_bins=10, lengths=[10, 4, 9], missing=0.2)
    batch = cut(whole, model)
    output = model(batch, 5)
    expectations = model.expectations(output, batch)
    evidence = model.evidence(batch)["log_evidence"]
    dense = torch.stack([dense_evidence(model, batch, trial) for trial in range(3)])
    scores = Scores(model.spec, torch.ones(5), counts=False)
    scores.update(output, batch, expectations)
    told = scores.compute()
    assert_close(evidence, dense, rtol=1e-11, atol=1e-9)
    assert told["heldin_elbo"] == pytest.approx(float(dense.mean()), abs=1e-9)
    if not options:  # all that is scored is seen
        assert told["elbo"] == pytest.approx(float(dense.mean()), abs=1e-9)
        assert told["iwae"] == pytest.approx(float(dense.mean()), abs=1e-9)
        summary = posterior_summary(output, batch, expectations, bin_width=None)
        np.testing.assert_allclose(summary["elbo"], dense.numpy(), rtol=1e-5)


@pytest.mark.parametrize("kind", OBSERVATIONS)
@pytest.mark.parametrize("name", LINEAR)
def test_importance_weighted_bound_is_never_below_the_bound(name, kind):
    model = built(name, kind)
    batch = toy_batch(SPEC, data_kind=model.observation.kind.name, lengths=[8, 3, 6, 8])
    scores = Scores(SPEC, torch.ones(6), counts=False)
    with torch.no_grad():
        for trial in range(4):
            output = model(batch[trial : trial + 1], 3)
            one = batch[trial : trial + 1]
            scores.update(output, one, model.expectations(output, one))
            told = scores.compute()
            assert told["iwae"] >= told["elbo"] - 1e-9


def test_expectations_are_known_for_linear_readouts_only():
    batch = toy_batch(SPEC)
    for model in (
        FLDS(SPEC, latent_dim=2),
        FLDS(SPEC, latent_dim=2, decoder_dims=(), observation=NegativeBinomial),
        VAE(SPEC, latent_dim=2),
    ):
        model = model.double()
        assert model.expectations(model(batch, 2), batch) is None


def test_missing_entries_of_the_target_do_not_reach_what_is_expected():
    model = built("LinearDynamics", "poisson")
    batch = with_gaps(toy_batch(SPEC))
    other = replace(batch, target=torch.where(batch.weight > 0, batch.target, 7.0))
    output = model(batch, 2)
    known, changed = (model.expectations(output, one) for one in (batch, other))
    scored = batch.weight > 0
    assert torch.equal(known.mean, changed.mean)
    assert torch.equal(known.log_prob[scored], changed.log_prob[scored])


def recorded(kind: str) -> NeuralData:
    generator = np.random.default_rng(0)
    activity = generator.poisson(1.0, (12, 8, 6)).astype(float)
    if kind == "gaussian":
        activity = generator.standard_normal((12, 8, 6))
    activity[3, 5:] = np.nan
    activity[5, 2, 1] = np.nan
    inputs = generator.standard_normal((12, 8, 2))
    return NeuralData(Arrays(activity, 0.02, inputs=inputs), heldout=[1, 4], forecast_bins=2)


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_what_is_inferred_in_closed_form_needs_no_samples(kind):
    data, model = recorded(kind), built("LinearDynamics", kind)
    model.initialize(data)
    one, many = (
        posterior_dataset(model, data, np.arange(12), num_samples=number) for number in (1, 9)
    )
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name].values, many[name].values, err_msg=name)
    np.testing.assert_array_equal(one["factors"].values, one["latents_mean"].values)
    np.testing.assert_array_equal(one["factors_sd"].values, one["latents_sd"].values)


@pytest.mark.parametrize("kind", OBSERVATIONS)
def test_a_cell_of_a_cross_validation_is_scored_in_closed_form(kind):
    data, built_model = recorded(kind), built("LinearDynamics", kind)
    activity = data.recording.read()
    recording = Recording(activity, 0.02, inputs=data.recording.inputs)
    spec = DataSpec(SPEC.heldin, 6, 2, 8, 8, 0.02)
    model = LinearDynamics(spec, latent_dim=3, observation=OBSERVATIONS[kind])
    model.load_state_dict(built_model.state_dict())
    seen = activity.copy()
    seen[..., [1, 4]] = np.nan
    truth = np.full_like(activity, np.nan)
    truth[..., [1, 4]] = activity[..., [1, 4]]
    part = Holdout(Recording(seen, 0.02, inputs=recording.inputs), SPEC.heldin, truth)
    null = mean_rate_of(recording, model.observation.kind)
    settings = {"eval_batch_size": 4}
    one, many = (
        score(model, part, null, num_samples=number, settings=settings) for number in (1, 9)
    )
    assert one == many
    assert np.isfinite(one.gain)
