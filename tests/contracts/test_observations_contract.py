"""What every observation model promises; members are found by walking the family's folder."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from walk import members, variants

import seqvae.observations
from seqvae.distributions.kinds import Real
from seqvae.observations import Observation, Poisson
from seqvae.types import Moments

FACTOR_DIM, NUM_NEURONS = 3, 5
MEMBERS = members(seqvae.observations, Observation)

MEAN = {
    "counts": torch.tensor([0.05, 0.2, 0.7, 1.5, 4.0]),
    "real": torch.tensor([-3.0, -0.2, 0.0, 1.5, 40.0]),
    "binary": torch.tensor([0.02, 0.2, 0.5, 0.7, 0.95]),
    "nonnegative": torch.tensor([0.05, 0.2, 0.7, 1.5, 4.0]),
}
NONZERO = torch.tensor([0.05, 0.3, 0.5, 0.9, 1.0])


@pytest.fixture(
    params=[variant for member in MEMBERS for variant in variants(member)],
    ids=lambda variant: "-".join([variant.func.__name__, *variant.keywords.values()]),
)
def variant(request: pytest.FixtureRequest) -> partial[Observation]:
    """A member, with a word of its settings that is not the default."""
    return request.param


@pytest.fixture
def observation(variant: partial[Observation]) -> Observation:
    torch.manual_seed(0)
    return variant(FACTOR_DIM, NUM_NEURONS)


def example(observation: Observation, *leading: int) -> tuple[Tensor, Tensor]:
    factors = torch.randn(*leading, FACTOR_DIM)
    with torch.no_grad():
        return factors, observation(factors).sample()


def test_the_walk_finds_the_members() -> None:
    assert {"Poisson", "NegativeBinomial", "Gaussian", "Bernoulli", "ZeroInflatedGamma"} <= {
        member.__name__ for member in MEMBERS
    }
    assert [variant.keywords for variant in variants(Poisson)] == [{}, {"link": "softplus"}]


def test_every_member_is_a_public_name_of_the_family(observation: Observation) -> None:
    assert getattr(seqvae.observations, type(observation).__name__) is type(observation)


@pytest.mark.parametrize("leading", [(), (4,), (2, 4), (2, 3, 4), (1, 0)])
def test_batch_shape_is_leading_by_neuron(
    observation: Observation, leading: tuple[int, ...]
) -> None:
    factors, sample = example(observation, *leading)
    distribution = observation(factors)
    assert distribution.batch_shape == (*leading, NUM_NEURONS)
    assert distribution.event_shape == ()
    assert distribution.log_prob(sample).shape == (*leading, NUM_NEURONS)
    assert distribution.mean.shape == (*leading, NUM_NEURONS)
    assert distribution.variance.shape == (*leading, NUM_NEURONS)


def test_samples_are_data_of_the_stated_kind(observation: Observation) -> None:
    _, sample = example(observation, 50)
    assert sample.isfinite().all()
    observation.kind.check(sample.numpy())
    observation.check_activity(sample.numpy())


def test_null_model_is_of_the_kind_of_the_data(observation: Observation) -> None:
    """The densities of null and model are against one measure: where one is finite, both are."""
    mean = MEAN[observation.kind.name]
    moments = Moments(mean, (mean.abs() + 0.3).sqrt(), NONZERO)
    observation.initialize(moments)
    null = observation.kind.around(observation.kind.clamp(mean), moments, spread=moments.std)
    sample = null.sample((200,))
    observation.kind.check(sample[None].numpy())
    assert null.log_prob(sample).isfinite().all()
    assert observation(torch.zeros(200, FACTOR_DIM)).log_prob(sample).isfinite().all()
    torch.testing.assert_close(null.mean, mean)


def test_a_neuron_depends_on_its_own_parameters_only(observation: Observation) -> None:
    factors, sample = example(observation, 6)
    before = observation(factors).log_prob(sample).detach()
    changed = 2
    others = [n for n in range(NUM_NEURONS) if n != changed]
    with torch.no_grad():
        for parameter in observation.parameters():
            assert NUM_NEURONS in parameter.shape
            parameter.select(parameter.shape.index(NUM_NEURONS), changed).add_(0.7)
    after = observation(factors).log_prob(sample).detach()
    torch.testing.assert_close(after[:, others], before[:, others])
    assert (after[:, changed] != before[:, changed]).any()


def test_leading_axes_are_independent(observation: Observation) -> None:
    factors, sample = example(observation, 2, 3)
    whole = observation(factors).log_prob(sample)
    torch.testing.assert_close(observation(factors[1, 2]).log_prob(sample[1, 2]), whole[1, 2])


def test_gradients_are_finite_and_reach_everything(observation: Observation) -> None:
    factors, sample = example(observation, 4, 6)
    factors.requires_grad_()
    observation(factors).log_prob(sample).sum().backward()
    for tensor in (factors, *observation.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad.any()


@pytest.mark.parametrize("size", [-30.0, 30.0])
def test_far_factors_keep_density_and_gradient_finite(
    observation: Observation, size: float
) -> None:
    factors = torch.full((4, FACTOR_DIM), size, requires_grad=True)
    value = MEAN[observation.kind.name].round().expand(4, -1)
    log_prob = observation(factors).log_prob(value)
    log_prob.sum().backward()
    assert log_prob.isfinite().all()
    assert factors.grad is not None
    assert factors.grad.isfinite().all()


def test_initialize_starts_at_the_mean_of_the_data(observation: Observation) -> None:
    mean = MEAN[observation.kind.name]
    std = (mean.abs() + 0.3).sqrt()
    observation.initialize(Moments(mean, std, NONZERO))
    distribution = observation(torch.zeros(FACTOR_DIM))
    torch.testing.assert_close(distribution.mean, mean)
    if observation.kind == Real():
        torch.testing.assert_close(distribution.stddev, std)


def test_state_dict_round_trip(observation: Observation, variant: partial[Observation]) -> None:
    factors, sample = example(observation, 6)
    twin = variant(FACTOR_DIM, NUM_NEURONS)
    twin.load_state_dict(observation.state_dict())
    assert torch.equal(twin(factors).log_prob(sample), observation(factors).log_prob(sample))
