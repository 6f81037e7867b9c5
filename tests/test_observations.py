from __future__ import annotations

import pytest
import torch
from scipy import stats

from seqvae.errors import InputError
from seqvae.observations import Bernoulli, Gaussian, NegativeBinomial, Poisson
from seqvae.types import Moments


def factors() -> torch.Tensor:
    return torch.randn(2, 5, 3, dtype=torch.float64)


def readout(observation: Poisson | NegativeBinomial | Gaussian | Bernoulli) -> torch.Tensor:
    return observation.readout.weight @ torch.ones(3).double() + observation.readout.bias


def test_densities_equal_scipy() -> None:
    ones, counts = torch.ones(3).double(), torch.tensor([0.0, 1.0, 5.0, 2.0]).double()
    poisson = Poisson(3, 4).double()
    rate = readout(poisson).exp().detach().numpy()
    expected = torch.as_tensor(stats.poisson.logpmf(counts.numpy(), rate))
    torch.testing.assert_close(
        poisson(ones).log_prob(counts).detach(), expected, rtol=1e-10, atol=1e-10
    )

    negative = NegativeBinomial(3, 4).double()
    mean, alpha = readout(negative).exp(), negative.log_dispersion.exp()
    parameters = (1 / alpha).detach().numpy(), (1 / (1 + alpha * mean)).detach().numpy()
    expected = torch.as_tensor(stats.nbinom.logpmf(counts.numpy(), *parameters))
    torch.testing.assert_close(
        negative(ones).log_prob(counts).detach(), expected, rtol=1e-10, atol=1e-10
    )

    gaussian = Gaussian(3, 4, min_std=0.2).double()
    mean, std = readout(gaussian).detach().numpy(), gaussian.std.detach().numpy()
    expected = torch.as_tensor(stats.norm.logpdf(counts.numpy(), mean, std))
    torch.testing.assert_close(
        gaussian(ones).log_prob(counts).detach(), expected, rtol=1e-10, atol=1e-10
    )

    bernoulli, binary = Bernoulli(3, 4).double(), (counts > 0).double()
    probability = torch.sigmoid(readout(bernoulli)).detach().numpy()
    expected = torch.as_tensor(stats.bernoulli.logpmf(binary.numpy(), probability))
    torch.testing.assert_close(
        bernoulli(ones).log_prob(binary).detach(), expected, rtol=1e-10, atol=1e-10
    )


def test_grey_values_are_scored_by_the_cross_entropy() -> None:
    distribution = Bernoulli(3, 4).double()(factors())
    grey = torch.rand(2, 5, 4, dtype=torch.float64)
    p = distribution.mean
    expected = grey * p.log() + (1 - grey) * torch.log1p(-p)
    torch.testing.assert_close(distribution.log_prob(grey), expected)


@pytest.mark.parametrize("member", [Poisson, NegativeBinomial])
def test_factors_of_order_one_give_log_rates_of_order_below_one(
    member: type[Poisson | NegativeBinomial],
) -> None:
    torch.manual_seed(0)
    for factor_dim in (2, 100):
        log_rates = member(factor_dim, 500).readout(torch.randn(500, factor_dim))
        assert 0.3 < log_rates.std().item() < 1.0


def test_silent_and_saturated_neurons_start_finite() -> None:
    silent = torch.zeros(2)
    for observation in (Poisson(3, 2), NegativeBinomial(3, 2)):
        observation.initialize(Moments(silent, silent, silent))
        distribution = observation(torch.zeros(3))
        torch.testing.assert_close(distribution.mean, torch.full((2,), 1e-9))
        assert distribution.log_prob(torch.ones(2)).isfinite().all()
    bernoulli = Bernoulli(3, 2)
    bernoulli.initialize(Moments(torch.tensor([0.0, 1.0]), silent, torch.tensor([0.0, 1.0])))
    assert bernoulli(torch.zeros(3)).log_prob(torch.tensor([1.0, 0.0])).isfinite().all()
    gaussian = Gaussian(3, 2, min_std=0.0)
    gaussian.initialize(Moments(silent, silent, silent))
    assert gaussian(torch.zeros(3)).log_prob(torch.zeros(2)).isfinite().all()


def test_negative_binomial_starts_at_the_variance_of_the_data() -> None:
    observation = NegativeBinomial(3, 3)
    mean, std = torch.tensor([0.5, 2.0, 4.0]), torch.tensor([1.0, 3.0, 1.0])
    observation.initialize(Moments(mean, std, torch.ones(3)))
    variance = observation(torch.zeros(3)).variance
    torch.testing.assert_close(variance[:2], std[:2] ** 2)
    torch.testing.assert_close(variance[2], torch.tensor(4.0 + 0.01 * 16.0))


def test_gaussian_noise_never_falls_below_its_bound() -> None:
    std = torch.tensor([1.5, 0.05])
    observation = Gaussian(3, 2, min_std=0.2)
    observation.initialize(Moments(torch.zeros(2), std, torch.ones(2)))
    torch.testing.assert_close(observation(torch.zeros(3)).stddev, std)
    with torch.no_grad():
        observation.log_std.fill_(-100.0)
    torch.testing.assert_close(observation(torch.zeros(3)).stddev, 0.2 * std)


def test_a_negative_bound_of_the_noise_is_refused() -> None:
    with pytest.raises(InputError, match="min_std must be zero or positive"):
        Gaussian(3, 2, min_std=-0.1)
