from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from linear import random_model
from seqvae.analysis.posterior import posterior_dataset
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays
from seqvae.distributions import kl, log_ratio
from seqvae.errors import InputError
from seqvae.models import LinearDynamics, SwitchingLinearDynamics
from seqvae.objectives import bound
from seqvae.observations import Bernoulli, Gaussian, NegativeBinomial, Poisson
from seqvae.state_space import SwitchingStateSpace
from seqvae.state_space.switching_start import stacked
from seqvae.types import Batch
from switching import exact_log_evidence, random_switching, simulate_switching
from toy import toy_batch, toy_spec

KINDS = {"gaussian": Gaussian, "poisson": Poisson}


def with_parameters(state_space: SwitchingStateSpace, **options) -> SwitchingLinearDynamics:
    """A model that has these parameters."""
    num_neurons, size = state_space.emission.loadings.shape
    num_states, _, num_inputs = state_space.dynamics.input_matrix.shape
    options = {"num_time_bins": 10, **options}
    spec = toy_spec(num_neurons=num_neurons, num_inputs=num_inputs, **options)
    kind = "gaussian" if hasattr(state_space.emission, "std") else "poisson"
    model = SwitchingLinearDynamics(
        spec, latent_dim=size, num_states=num_states, observation=KINDS[kind]
    )
    model.take(state_space)
    return model.eval()


def cut(batch: Batch, model: SwitchingLinearDynamics) -> Batch:
    """The batch as its spec lets inference see it."""
    encoded, heldin = slice(None, model.spec.num_encoded_bins), list(model.spec.heldin)
    return replace(
        batch,
        observed=batch.observed[:, encoded, heldin],
        observed_mask=batch.observed_mask[:, encoded, heldin],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_kept_as_they_are_given(kind):
    given = random_switching(kind, 3, num_states=3, num_inputs=2)
    kept = with_parameters(given).state_space
    for part, twin in zip(given, kept, strict=True):
        for name, value in vars(part).items():
            assert_close(torch.as_tensor(getattr(twin, name)), torch.as_tensor(value))


def test_parameters_are_double_and_learned_without_gradients():
    for parameter in SwitchingLinearDynamics(toy_spec(num_inputs=2)).parameters():
        assert parameter.dtype == torch.float64
        assert not parameter.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_one_state_answers_as_linear_dynamics(kind):
    linear = random_model(kind, 2, num_inputs=1)
    model = with_parameters(stacked(linear, 1), num_forecast_bins=3)
    twin = LinearDynamics(model.spec, latent_dim=2, observation=KINDS[kind])
    twin.take(linear)
    batch = simulate_switching(
        stacked(linear, 1), num_trials=4, num_bins=10, lengths=[10, 10, 6, 2], missing=0.2
    )
    batch = cut(batch, model)
    one, other = model(batch).latents["latents"], twin(batch).latents["latents"]
    mask = batch.time_mask[..., None]
    for name in ("mean", "variance"):
        difference = getattr(one.posterior, name) - getattr(other.posterior, name)
        assert float((difference * mask).abs().max()) < 1e-9
    assert_close(kl(one), kl(other), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_closed_form_of_the_bound_is_the_mean_of_its_samples(kind):
    model = with_parameters(random_switching(kind, num_inputs=1), num_forecast_bins=2)
    batch = simulate_switching(
        model.state_space, num_trials=3, num_bins=10, lengths=[10, 7, 3], missing=0.2
    )
    torch.manual_seed(0)
    output = model(cut(batch, model), 20_000)
    drawn = sum(log_ratio(latent) for latent in output.latents.values())
    closed = sum(kl(latent)[0] for latent in output.latents.values())
    error = drawn.std(0) / math.sqrt(len(drawn))
    assert ((drawn.mean(0) - closed).abs() <= 4 * error).all()


def test_bound_is_below_the_exact_evidence_and_importance_weights_reach_it():
    model = with_parameters(random_switching("gaussian"), num_time_bins=5)
    batch = simulate_switching(model.state_space, num_trials=3, num_bins=5)
    torch.manual_seed(0)
    output = model(batch, 30_000)
    weights = output.emission.log_prob(batch.target).sum((-1, -2))
    elbo = bound(output, batch).elbo()
    for latent in output.latents.values():
        weights = weights - log_ratio(latent)
    estimate = weights.logsumexp(0) - math.log(len(weights))
    spread = (weights - estimate).exp().std(0) / math.sqrt(len(weights))
    for trial in range(3):
        exact = exact_log_evidence(model.state_space, batch, trial)
        assert float(elbo[trial]) < exact
        assert float(estimate[trial]) == pytest.approx(exact, abs=5 * float(spread[trial]) + 0.01)


def test_a_trial_without_data_is_the_prior_with_bound_0():
    model = with_parameters(random_switching("poisson", num_inputs=1))
    batch = simulate_switching(model.state_space, num_trials=4, num_bins=10)
    nothing = torch.zeros_like(batch.observed_mask)
    batch = replace(batch, observed_mask=nothing, weight=0 * batch.weight)
    torch.manual_seed(0)
    output = model(batch, 4000)
    assert_close(bound(output, batch).elbo(), torch.zeros(4).double(), rtol=0, atol=1e-9)
    drawn = torch.cat([model.sample(4, batch.inputs).factors for _ in range(4000)])
    found = output.latents["latents"].posterior
    assert_close(drawn.mean(0), found.mean, rtol=0, atol=0.1)
    assert_close(drawn.var(0), found.variance, rtol=0.15, atol=0)
    assert_close(output.factors.mean(0), found.mean, rtol=0, atol=0.1)


def test_what_is_not_seen_at_the_end_changes_nothing_before():
    model = with_parameters(random_switching("poisson", num_inputs=1), num_forecast_bins=4)
    batch = cut(simulate_switching(model.state_space, num_trials=3, num_bins=10), model)
    shorter = with_parameters(model.state_space, num_time_bins=6)
    first = {name: getattr(batch, name)[:, :6] for name in ("target", "weight", "inputs")}
    whole, part = model(batch), shorter(replace(batch, **first))
    for name in ("latents", "states"):
        one, other = whole.latents[name], part.latents[name]
        assert_close(one.posterior.mean[:, :6], other.posterior.mean, rtol=0, atol=1e-9)
        assert_close(kl(one), kl(other), rtol=0, atol=1e-9)
    states = whole.latents["states"].posterior.probabilities
    ahead = states[:, 5:9] @ model.state_space.switches.log_transition.exp()
    assert_close(states[:, 6:], ahead)


@pytest.mark.parametrize("num_bins", [1, 2])
def test_short_trials_and_many_latents_are_answered(num_bins):
    spec = toy_spec(num_neurons=2, num_time_bins=num_bins)
    model = SwitchingLinearDynamics(spec, latent_dim=5, num_states=3)
    batch = toy_batch(spec)
    output = model(batch, 3)
    assert output.factors.shape == (3, 4, num_bins, 5)
    assert bound(output, batch).elbo().isfinite().all()


def test_most_likely_states_are_in_the_results(tmp_path):
    model = with_parameters(random_switching("poisson", num_states=3), num_forecast_bins=2)
    batch = simulate_switching(model.state_space, num_trials=4, num_bins=10)
    activity = batch.target.numpy().copy()
    activity[1, 7:] = np.nan
    data = NeuralData(Arrays(activity, 0.02), forecast_bins=2)
    in_memory = posterior_dataset(model, data, np.arange(4), num_samples=3)
    path = str(tmp_path / "posterior.nc")
    for results in (
        in_memory,
        posterior_dataset(model, data, np.arange(4), num_samples=3, path=path),
    ):
        assert results["states"].dims == ("trial", "time")
        assert results["states_mean"].dims == ("trial", "time", "states_dim")
        states, probabilities = results["states"].values, results["states_mean"].values
        assert np.isnan(states[1, 7:]).all()
        assert np.isfinite(states[0]).all()
        seen = np.isfinite(states)
        assert (states[seen] == probabilities[seen].argmax(-1)).all()
        np.testing.assert_allclose(probabilities[seen].sum(-1), 1, atol=1e-6)


def test_bad_settings_are_refused():
    for observation in (Bernoulli, NegativeBinomial):
        with pytest.raises(InputError, match="SwitchingLinearDynamics reads Poisson and Gaussian"):
            SwitchingLinearDynamics(toy_spec(), observation=observation)
    with pytest.raises(InputError, match="num_states must be at least 1, got 0"):
        SwitchingLinearDynamics(toy_spec(), num_states=0)
    with pytest.raises(InputError, match="latent_dim must be at least 1, got 0"):
        SwitchingLinearDynamics(toy_spec(), latent_dim=0)
    with pytest.raises(InputError, match="exact for a Gaussian observation only"):
        SwitchingLinearDynamics(toy_spec(), inference="exact")
