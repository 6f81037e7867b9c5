"""What every prior promises; members are found by walking the family's folder."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Distribution, Normal
from walk import members

import seqvae.priors
from seqvae.distributions import kl, log_ratio
from seqvae.errors import InputError
from seqvae.priors import Prior
from seqvae.types import Latent

LATENT_DIM, BIN_WIDTH = 3, 0.01
EVENT_SHAPES = [(LATENT_DIM,), (1, LATENT_DIM), (6, LATENT_DIM)]
MEMBERS = members(seqvae.priors, Prior)


@pytest.fixture(params=MEMBERS, ids=lambda member: member.__name__)
def prior(request: pytest.FixtureRequest) -> Prior:
    torch.manual_seed(0)
    return request.param(LATENT_DIM)


@pytest.fixture(params=EVENT_SHAPES, ids=str)
def event_shape(request: pytest.FixtureRequest) -> tuple[int, ...]:
    return request.param


def make(prior: Prior, event_shape: tuple[int, ...]) -> Distribution:
    """p(z); a prior over time may refuse a latent without a time axis, in a sentence."""
    try:
        return prior(event_shape, BIN_WIDTH)
    except InputError as error:
        assert len(event_shape) == 1
        pytest.skip(str(error))


def latent_under(distribution: Distribution, event_shape: tuple[int, ...]) -> Latent:
    posterior = Normal(torch.randn(2, *event_shape), torch.rand(2, *event_shape) + 0.1)
    return Latent(posterior, distribution, posterior.rsample((4,)))


def test_the_walk_finds_the_members() -> None:
    names = {member.__name__ for member in MEMBERS}
    assert {"StandardNormal", "LearnableNormal", "IIDNormal", "AR1"} <= names


def test_every_member_is_a_public_name_of_the_family(prior: Prior) -> None:
    assert getattr(seqvae.priors, type(prior).__name__) is type(prior)


def test_every_member_takes_a_latent_per_bin(prior: Prior) -> None:
    assert isinstance(prior((6, LATENT_DIM), BIN_WIDTH), Distribution)


def test_shape_of_the_prior_is_the_event_shape(prior: Prior, event_shape: tuple[int, ...]) -> None:
    distribution = make(prior, event_shape)
    assert distribution.batch_shape + distribution.event_shape == event_shape
    assert distribution.mean.shape == distribution.variance.shape == event_shape
    sample = distribution.sample((4, 2))
    assert sample.shape == (4, 2, *event_shape)
    assert distribution.log_prob(sample).isfinite().all()


def test_samples_carry_gradients_to_every_parameter(prior: Prior) -> None:
    size = prior((6, LATENT_DIM), BIN_WIDTH).rsample((4,)).square().sum()
    if size.requires_grad:
        size.backward()
    for parameter in prior.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()


def test_kl_of_a_gaussian_posterior_is_finite_positive_and_the_mean_log_ratio(
    prior: Prior, event_shape: tuple[int, ...]
) -> None:
    latent = latent_under(make(prior, event_shape), event_shape)
    divergence = kl(latent)
    assert divergence.shape == log_ratio(latent).shape == (4, 2)
    assert divergence.isfinite().all()
    assert (divergence >= 0).all()
    many = latent._replace(sample=latent.posterior.rsample((20_000,)))
    ratio = log_ratio(many)
    error = 5 * ratio.std(0) / 20_000**0.5 + 1e-4
    assert ((ratio.mean(0) - kl(many).mean(0)).abs() < error).all()


@pytest.mark.parametrize("size", [-15.0, 15.0])
def test_extreme_parameters_stay_finite(
    prior: Prior, event_shape: tuple[int, ...], size: float
) -> None:
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.fill_(size)
    distribution = make(prior, event_shape)
    latent = latent_under(distribution, event_shape)
    assert distribution.rsample((4,)).isfinite().all()
    total = kl(latent).sum() + log_ratio(latent).sum()
    assert total.isfinite()
    if list(prior.parameters()):
        total.backward()
    for parameter in prior.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


def test_state_dict_round_trip(prior: Prior) -> None:
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.3)
    twin = type(prior)(LATENT_DIM)
    twin.load_state_dict(prior.state_dict())
    value = torch.randn(6, LATENT_DIM)
    expected = prior((6, LATENT_DIM), BIN_WIDTH).log_prob(value)
    assert torch.equal(twin((6, LATENT_DIM), BIN_WIDTH).log_prob(value), expected)
