"""Links from the predictor to the mean of counts: the exponential, and one that cannot overflow."""

from __future__ import annotations

from functools import partial

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from seqvae import VAE, fit
from seqvae.config import from_config, to_config
from seqvae.errors import InputError
from seqvae.models import (
    FLDS,
    PCA,
    FactorAnalysis,
    LinearDynamics,
    Model,
    SwitchingLinearDynamics,
)
from seqvae.observations import NegativeBinomial, Poisson
from seqvae.observations.links import check_link, log_mean, predictor_at
from seqvae.types import Moments
from tiny import SVAE, tiny_data, tiny_learner
from toy import toy_batch, toy_spec

SOFTPLUS = partial(Poisson, link="softplus")
FAMILIES = (Poisson, NegativeBinomial)
SPEC = toy_spec(heldout=(1, 4))


def test_log_softplus_has_all_its_digits_at_every_predictor() -> None:
    predictor = torch.tensor([-1e4, -700.0, -41.0, -39.9, -20.0, -1.0, 0.0, 1.0, 25.0, 41.0, 1e4])
    predictor = predictor.double().requires_grad_()
    value = log_mean(predictor, "softplus")
    (slope,) = torch.autograd.grad(value.sum(), predictor)
    with mpmath.workdps(60):
        at = [mpmath.mpf(x) for x in predictor.tolist()]
        mean = [mpmath.log1p(mpmath.exp(x)) for x in at]
        expected = [float(mpmath.log(m)) for m in mean]
        slopes = [float(1 / (1 + mpmath.exp(-x)) / m) for x, m in zip(at, mean, strict=True)]
    torch.testing.assert_close(value.tolist(), expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(slope.tolist(), slopes, rtol=1e-13, atol=1e-13)


def test_softplus_counts_have_the_likelihood_of_scipy() -> None:
    predictor = np.array([-30.0, -3.0, 0.0, 2.0, 100.0, 3000.0])
    counts = np.array([0.0, 1.0, 5.0, 2.0, 90.0, 2900.0])
    mean = np.logaddexp(0, predictor)
    for family in FAMILIES:
        observation = family(1, 6, link="softplus").double()
        with torch.no_grad():
            observation.readout.weight.copy_(torch.from_numpy(predictor)[:, None])
            observation.readout.bias.zero_()
        log_prob = observation(torch.ones(1).double()).log_prob(torch.from_numpy(counts))
        expected = stats.poisson.logpmf(counts, mean)
        if isinstance(observation, NegativeBinomial):
            alpha = observation.log_dispersion.exp().detach().numpy()
            expected = stats.nbinom.logpmf(counts, 1 / alpha, 1 / (1 + alpha * mean))
        np.testing.assert_allclose(log_prob.detach(), expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_softplus_gradient_is_that_of_finite_differences(
    family: type[Poisson | NegativeBinomial],
) -> None:
    torch.manual_seed(0)
    observation = family(3, 4, link="softplus").double()
    factors = 5 * torch.randn(6, 3, dtype=torch.float64).requires_grad_()
    counts = torch.poisson(torch.full((6, 4), 2.0).double())

    def log_prob(factors: torch.Tensor) -> torch.Tensor:
        return observation(factors).log_prob(counts)

    assert torch.autograd.gradcheck(log_prob, factors)


def test_softplus_stays_finite_at_a_predictor_where_the_exponential_overflows() -> None:
    counts = torch.tensor([0.0, 3.0, 80.0])

    def gradient(link: str) -> torch.Tensor:
        observation = Poisson(1, 3, link=link)
        with torch.no_grad():
            observation.readout.weight.fill_(1.0)
            observation.readout.bias.zero_()
        emission = observation(torch.full((1, 1), 100.0))
        emission.weighted_log_prob(counts, torch.ones(1, 3)).sum().backward()
        assert observation.readout.bias.grad is not None
        return observation.readout.bias.grad

    torch.testing.assert_close(gradient("softplus"), counts / 100 - 1)
    assert not gradient("exp").isfinite().any()


@pytest.mark.parametrize("family", FAMILIES)
def test_initial_rates_are_the_training_means_with_softplus(
    family: type[Poisson | NegativeBinomial],
) -> None:
    mean = torch.tensor([0.0, 1e-4, 0.3, 5.0, 200.0, 1e5])
    observation = family(2, 6, link="softplus")
    observation.initialize(Moments(mean, (mean + 0.1).sqrt(), (mean > 0).float()))
    torch.testing.assert_close(observation(torch.zeros(2)).mean, mean.clamp(min=1e-9))


@pytest.mark.parametrize("link", ["exp", "softplus"])
def test_the_predictor_of_a_mean_has_that_mean(link: str) -> None:
    mean = torch.logspace(-12, 5, 30, dtype=torch.float64)
    torch.testing.assert_close(
        log_mean(predictor_at(mean, link), link).exp(), mean, rtol=1e-12, atol=0
    )


def test_samples_of_softplus_counts_have_its_mean() -> None:
    for family in FAMILIES:
        torch.manual_seed(0)
        emission = family(2, 3, link="softplus").double()(torch.randn(2).double())
        sample = emission.sample((20_000,))
        error = (emission.variance / 20_000).sqrt()
        assert ((sample.mean(0) - emission.mean).abs() < 4 * error).all()


def test_exp_is_the_predictor_itself_and_no_config_tells_it() -> None:
    predictor = torch.randn(5)
    assert log_mean(predictor, "exp") is predictor
    for family in FAMILIES:
        assert "init_args" not in to_config(partial(family, link="exp"))
        written = to_config(partial(family, link="softplus"))
        assert written["init_args"] == {"link": "softplus"}


def test_another_word_is_refused() -> None:
    with pytest.raises(InputError, match="link must be 'exp' or 'softplus', got 'log'"):
        check_link("log")
    config = {"class_path": "VAE", "init_args": {"observation": {"class_path": "Poisson"}}}
    config["init_args"]["observation"]["init_args"] = {"link": "log"}
    with pytest.raises(InputError, match=r"link.*'exp' or 'softplus'"):
        from_config(config, Model)


@pytest.mark.parametrize("member", [LinearDynamics, SwitchingLinearDynamics, FactorAnalysis, PCA])
def test_models_of_the_exponential_refuse_another_link(member: type[Model]) -> None:
    with pytest.raises(InputError, match=r"exp\(predictor\) only, got 'softplus'; leave link out"):
        member(SPEC, observation=SOFTPLUS)


def test_flds_reads_softplus_but_begins_at_no_model_of_the_exponential() -> None:
    torch.manual_seed(0)
    model = FLDS(SPEC, latent_dim=2, decoder_dims=(), observation=SOFTPLUS).double()
    batch = toy_batch(SPEC)
    output = model(batch, 3)
    assert output.emission.mean.isfinite().all()
    assert model.expectations(output, batch) is None  # closed form for the exponential only
    exponential = FLDS(SPEC, latent_dim=2, decoder_dims=()).double()
    assert exponential.expectations(exponential(batch, 3), batch) is not None
    model.null_counts.fill_(0.3)
    with pytest.raises(
        InputError, match="a linear model tells log rates; leave out start, or link"
    ):
        model.begin_from(LinearDynamics(SPEC, latent_dim=2))


def test_beginning_at_a_run_with_another_link_is_told() -> None:
    exponential, softplus = VAE(SPEC), VAE(SPEC, observation=SOFTPLUS)
    told = "observation.link is 'exp' there, but 'softplus' here"
    assert told in softplus.begin_from(exponential)
    assert VAE(SPEC, observation=SOFTPLUS).begin_from(softplus) == []


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("model", [SVAE, partial(VAE, latent_dim=2)])
def test_models_that_learn_by_gradients_learn_with_softplus(
    family: type[Poisson | NegativeBinomial], model: partial[Model]
) -> None:
    run = fit(
        tiny_data(),
        partial(model, observation=partial(family, link="softplus")),
        learner=tiny_learner(6),
        in_memory=True,
    )
    assert run.model().observation.link == "softplus"
    assert np.isfinite([row["val/elbo"] for row in run.history]).all()
    assert run.history[-1]["train/log_likelihood"] > run.history[0]["train/log_likelihood"]
