from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch
from torch.testing import assert_close

from linear import kalman_smoother, random_model, simulate
from seqvae.distributions import kl
from seqvae.errors import InputError
from seqvae.models import LinearDynamics
from seqvae.models.linear_dynamics import Inference
from seqvae.objectives import bound
from seqvae.observations import Bernoulli, Gaussian, NegativeBinomial, Poisson
from seqvae.state_space import LinearStateSpace
from seqvae.types import Batch
from toy import toy_batch, toy_spec

KINDS = {"gaussian": Gaussian, "poisson": Poisson}


def with_parameters(state_space: LinearStateSpace, **options) -> LinearDynamics:
    """A model that has these parameters."""
    num_neurons, size = state_space.emission.loadings.shape
    spec = toy_spec(
        num_neurons=num_neurons,
        num_inputs=state_space.dynamics.input_matrix.shape[1],
        **{"num_time_bins": 10, **options},
    )
    kind = "gaussian" if hasattr(state_space.emission, "std") else "poisson"
    model = LinearDynamics(spec, latent_dim=size, observation=KINDS[kind])
    model.take(state_space)
    return model.eval()


def cut(batch: Batch, model: LinearDynamics) -> Batch:
    """The batch as its spec lets inference see it."""
    encoded = slice(None, model.spec.num_encoded_bins)
    heldin = list(model.spec.heldin)
    return replace(
        batch,
        observed=batch.observed[:, encoded, heldin],
        observed_mask=batch.observed_mask[:, encoded, heldin],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_kept_as_they_are_given(kind):
    given = random_model(kind, 3, num_inputs=2)
    kept = with_parameters(given).state_space
    for part, twin in zip(given, kept, strict=True):
        for name, value in vars(part).items():
            assert_close(torch.as_tensor(getattr(twin, name)), torch.as_tensor(value))


def test_parameters_are_double_and_learned_without_gradients():
    model = LinearDynamics(toy_spec(num_inputs=2))
    for parameter in model.parameters():
        assert parameter.dtype == torch.float64
        assert not parameter.requires_grad


def test_answer_is_that_of_the_kalman_smoother():
    state_space = random_model("gaussian", 3, num_inputs=2)
    model = with_parameters(state_space)
    batch = simulate(state_space, num_trials=3, num_bins=10, missing=0.3)
    output = model(batch, 400)
    latent = output.latents["latents"]
    for trial in range(3):
        truth = kalman_smoother(
            state_space, batch.target[trial], batch.weight[trial], batch.inputs[trial]
        )
        mean, variance = latent.posterior.mean[trial], latent.posterior.variance[trial]
        assert_close(mean, torch.from_numpy(truth.mean), rtol=0, atol=1e-9)
        wanted = torch.from_numpy(truth.covariance).diagonal(dim1=1, dim2=2)
        assert_close(variance, wanted, rtol=0, atol=1e-9)
        # with the exact posterior log p(x, z) - log q(z) is log p(x), whatever z
        elbo = bound(output, batch).elbo()[trial]
        assert float(elbo) == pytest.approx(truth.log_likelihood, abs=0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_is_that_of_what_inference_sees(kind):
    state_space = random_model(kind, 2, num_neurons=6, num_inputs=1)
    model = with_parameters(state_space, heldout=(1, 4), num_forecast_bins=3)
    whole = simulate(state_space, num_trials=3, num_bins=10, lengths=[10, 4, 9], missing=0.2)
    batch = cut(whole, model)
    found = model.evidence(batch)
    weight = whole.weight.clone()
    weight[..., [1, 4]] = weight[:, 7:] = 0
    if kind == "gaussian":
        truth = [
            kalman_smoother(state_space, whole.target[i], weight[i], whole.inputs[i]).log_likelihood
            for i in range(3)
        ]
        assert_close(found["log_evidence"], torch.tensor(truth).double(), rtol=1e-8, atol=0)
        return
    assert list(found) == ["laplace_evidence"]
    torch.manual_seed(0)
    elbo = bound(model(batch, 4000), replace(batch, weight=weight)).elbo()
    assert ((found["laplace_evidence"] - elbo).abs() < 0.5).all()
    hidden = replace(batch, target=0 * batch.target, weight=0 * batch.weight)
    assert torch.equal(model.evidence(hidden)["laplace_evidence"], found["laplace_evidence"])


def test_forecast_is_the_posterior_run_on():
    state_space = random_model("poisson", 2, num_inputs=1)
    model = with_parameters(state_space, num_forecast_bins=3)
    batch = cut(simulate(state_space, num_trials=4, num_bins=10), model)
    latent = model(batch).latents["latents"]
    mean, dynamics = latent.posterior.mean, state_space.dynamics
    for step in range(7, 10):
        pushed = batch.inputs[:, step] @ dynamics.input_matrix.mT + dynamics.offset
        ahead = mean[:, step - 1] @ dynamics.transition.mT + pushed
        assert_close(mean[:, step], ahead, rtol=0, atol=1e-9)
    first = {name: getattr(batch, name)[:, :7] for name in ("target", "weight", "inputs")}
    seen = model(replace(batch, **first))
    assert_close(mean[:, :7], seen.latents["latents"].posterior.mean, rtol=0, atol=1e-9)
    assert_close(kl(latent), kl(seen.latents["latents"]), rtol=1e-8, atol=1e-8)


def test_heldout_neurons_are_read_from_the_heldin_ones():
    state_space = random_model("poisson", 2, num_neurons=6)
    model = with_parameters(state_space, heldout=(1, 4))
    batch = cut(simulate(state_space, num_trials=3, num_bins=10), model)
    output = model(batch, 5)
    assert output.emission.mean.shape == (5, 3, 10, 6)
    readout = output.factors @ state_space.emission.loadings.mT + state_space.emission.bias
    assert_close(output.emission.mean, readout.exp())
    fewer = with_parameters(
        state_space._replace(emission=state_space.emission.select([0, 2, 3, 5]))
    )
    alone = fewer(batch).latents["latents"].posterior
    assert_close(output.latents["latents"].posterior.mean, alone.mean, rtol=0, atol=1e-12)


def test_single_precision_data_are_answered_in_double():
    model = with_parameters(random_model("poisson"))
    batch = toy_batch(toy_spec(num_neurons=5))
    single = replace(batch.to(torch.float32))
    assert_close(
        model(single).latents["latents"].posterior.mean,
        model(batch).latents["latents"].posterior.mean,
    )


def test_new_trials_have_the_moments_of_the_prior():
    state_space = random_model("poisson")
    torch.manual_seed(0)
    sample = with_parameters(state_space).sample(4000).factors[0]
    prior = state_space.dynamics.chain(torch.zeros(1, 10, 0, dtype=torch.float64))
    assert_close(sample.mean(0), prior.mean[0], rtol=0, atol=0.08)
    assert_close(sample.var(0), prior.variance[0], rtol=0.12, atol=0)


@pytest.mark.parametrize("inference", ["laplace", "variational", "auto"])
def test_inference_is_the_one_that_is_named(inference):
    state_space = random_model("poisson")
    batch = simulate(state_space, num_trials=3, num_bins=10)
    model = LinearDynamics(toy_spec(num_neurons=5), latent_dim=2, inference=inference)
    model.take(state_space)
    precision = model(batch).latents["latents"].posterior.precision.diagonal
    laplace = with_parameters(state_space)
    laplace.inference = "laplace"
    same = torch.equal(precision, laplace(batch).latents["latents"].posterior.precision.diagonal)
    assert same == (inference == "laplace")


@pytest.mark.parametrize("observation", [Bernoulli, NegativeBinomial])
def test_other_readouts_are_refused(observation):
    with pytest.raises(InputError, match=f"Poisson and Gaussian.*{observation.__name__}"):
        LinearDynamics(toy_spec(), observation=observation)


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="latent_dim must be at least 1, got 0"):
        LinearDynamics(toy_spec(), latent_dim=0)
    with pytest.raises(InputError, match="exact for a Gaussian observation only, not for Poisson"):
        LinearDynamics(toy_spec(), inference="exact")
    with pytest.raises(InputError, match="must be auto, exact, laplace or variational, got 'em'"):
        LinearDynamics(toy_spec()).e_step("em")


def test_every_inference_fits_a_gaussian_readout():
    batch = toy_batch(toy_spec(), data_kind="real")
    answers = [
        LinearDynamics(toy_spec(), observation=Gaussian, inference=name)
        for name in get_args(Inference)
    ]
    for model in answers[1:]:
        model.load_state_dict(answers[0].state_dict())
    means = [model(batch).latents["latents"].posterior.mean for model in answers]
    for mean in means[1:]:
        assert_close(mean, means[0])


def test_a_large_model_of_few_neurons_answers():
    model = LinearDynamics(toy_spec(num_neurons=2, num_time_bins=5), latent_dim=7)
    output = model(toy_batch(model.spec), 3)
    assert output.factors.isfinite().all()
    assert partial(bound, output)(toy_batch(model.spec)).elbo().isfinite().all()
