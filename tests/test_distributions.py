from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch.distributions import MultivariateNormal, Normal

from seqvae.distributions import (
    Delta,
    GaussianAR1,
    NegativeBinomialLogMean,
    PathGaussian,
    PoissonLogRate,
)
from seqvae.distributions.poisson import _table, log_factorial


def real(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(log_rate=st.floats(-50, 8), count=st.integers(0, 2000))
def test_poisson_density_equals_scipy(log_rate: float, count: int) -> None:
    log_prob = PoissonLogRate(real(log_rate)).log_prob(real(count))
    expected = stats.poisson.logpmf(count, math.exp(log_rate))
    assert log_prob.item() == pytest.approx(expected, rel=1e-10, abs=1e-10)


def test_poisson_density_and_gradient_survive_underflow() -> None:
    log_rate = torch.tensor([-110.0, -110.0, -1e30, -math.inf], requires_grad=True)
    log_prob = PoissonLogRate(log_rate, validate_args=False).log_prob(torch.tensor([1, 0, 0, 0]))
    log_prob.sum().backward()
    assert log_prob.tolist() == [-110.0, 0.0, 0.0, 0.0]
    assert log_rate.grad is not None
    assert log_rate.grad.tolist() == [1.0, 0.0, 0.0, 0.0]


def test_poisson_of_rate_zero_excludes_a_spike() -> None:
    distribution = PoissonLogRate(real(-math.inf), validate_args=False)
    assert distribution.log_prob(real(1.0)).item() == -math.inf


def trials(*leading: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-rates (*leading, 3, 4, 5), counts and weights (3, 4, 5), a third of them 0."""
    generator = torch.Generator().manual_seed(0)
    log_rate = torch.randn(*leading, 3, 4, 5, generator=generator, dtype=torch.float64)
    counts = torch.poisson(torch.full((3, 4, 5), 1.5, dtype=torch.float64), generator=generator)
    weight = torch.rand(3, 4, 5, generator=generator, dtype=torch.float64)
    return log_rate.requires_grad_(), counts, torch.where(weight < 1 / 3, 0.0, 2 * weight)


def weighted(log_rate: torch.Tensor, counts: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return PoissonLogRate(log_rate, validate_args=False).weighted_log_prob(counts, weight)


@pytest.mark.parametrize("leading", [(), (2,), (2, 1)])
def test_weighted_poisson_sum_and_its_slope_are_those_of_the_density(leading: tuple[int]) -> None:
    log_rate, counts, weight = trials(*leading)
    density = torch.distributions.Poisson(log_rate.exp(), validate_args=False).log_prob(counts)
    expected = (weight * density).sum((-2, -1))
    found = weighted(log_rate, counts, weight)
    assert found.shape == (*leading, 3)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)
    upstream = torch.randn_like(found)
    torch.testing.assert_close(
        torch.autograd.grad(found, log_rate, upstream),
        torch.autograd.grad(expected, log_rate, upstream),
        rtol=1e-13,
        atol=1e-13,
    )
    with torch.no_grad():
        assert torch.equal(weighted(log_rate, counts, weight), found)
    single = weighted(log_rate.float(), counts.float(), weight.float())
    torch.testing.assert_close(single, found.float(), rtol=1e-5, atol=1e-5)


def test_weighted_poisson_sum_has_right_slopes_of_first_and_second_order() -> None:
    log_rate, counts, weight = trials(2)
    assert torch.autograd.gradcheck(lambda x: weighted(x, counts, weight), log_rate)
    assert torch.autograd.gradgradcheck(lambda x: weighted(x, counts, weight), log_rate)
    shared = log_rate.detach()[0, :1].clone().requires_grad_()  # one log-rate for three trials
    assert torch.autograd.gradcheck(lambda x: weighted(x, counts, weight), shared)
    weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda w: weighted(log_rate.detach(), counts, w), weight)


def test_weighted_poisson_sum_keeps_the_conventions_of_the_density() -> None:
    one = torch.ones(1, 1, dtype=torch.float64)
    for log_rate, count in ((-math.inf, 0.0), (-math.inf, 2.0), (-110.0, 1.0), (math.inf, 0.0)):
        rate = torch.full((1, 1), log_rate, dtype=torch.float64)
        distribution = PoissonLogRate(rate, validate_args=False)
        expected = distribution.log_prob(count * one)
        assert torch.equal(distribution.weighted_log_prob(count * one, one), expected[0, 0])
    assert weighted(one * math.nan, 0 * one, one).isnan()
    with pytest.raises(ValueError, match="support"):
        PoissonLogRate(one, validate_args=True).weighted_log_prob(0.5 * one, one)


@pytest.mark.parametrize("garbage", [-37.0, -1.0, 0.5, 1e6, 1e300])
def test_what_weighs_nothing_may_hold_anything_finite(garbage: float) -> None:
    log_rate, counts, weight = trials(2)
    littered = torch.where(weight == 0, garbage, counts)
    found = weighted(log_rate, littered, weight)
    torch.testing.assert_close(found, weighted(log_rate, counts, weight))
    (slope,) = torch.autograd.grad(found.sum(), log_rate)
    assert not slope[:, weight == 0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64])
def test_log_factorials_are_those_of_the_gamma_function(dtype: torch.dtype) -> None:
    small, large = torch.arange(4096), torch.tensor([0, 4096, 70_000])
    for counts in (small, large, small.view(64, 64).T, small[:0]):
        found = log_factorial(counts.to(dtype))
        expected = torch.tensor([math.lgamma(count + 1) for count in counts.flatten().tolist()])
        assert found.dtype == torch.promote_types(dtype, torch.float32)
        torch.testing.assert_close(found.flatten().float(), expected)
    halves = torch.tensor([0.5, 2.0])
    torch.testing.assert_close(log_factorial(halves), torch.lgamma(halves + 1))


def test_log_factorials_first_met_in_inference_serve_training_too() -> None:
    _table.cache_clear()
    log_rate, counts, weight = trials()
    with torch.inference_mode():
        log_factorial(counts)
    assert not log_factorial(counts).is_inference()
    weighted(log_rate, counts, weight).sum().backward()


@given(log_mean=st.floats(-20, 6), log_dispersion=st.floats(-6.5, 5), count=st.integers(0, 500))
def test_negative_binomial_density_equals_scipy(
    log_mean: float, log_dispersion: float, count: int
) -> None:
    log_prob = NegativeBinomialLogMean(real(log_mean), real(log_dispersion)).log_prob(real(count))
    concentration = math.exp(-log_dispersion)
    probability = 1 / (1 + math.exp(log_mean + log_dispersion))
    expected = stats.nbinom.logpmf(count, concentration, probability)
    # scipy forms 1 - p, which has lost digits where p is near one
    lost = count * 1e-16 / max(1 - probability, 1e-300)
    assert log_prob.item() == pytest.approx(expected, rel=1e-10, abs=1e-10 + 4 * lost)


@given(log_mean=st.floats(-20, 6), log_dispersion=st.floats(-40, 5), count=st.integers(0, 60))
def test_negative_binomial_density_keeps_its_digits_at_every_dispersion(
    log_mean: float, log_dispersion: float, count: int
) -> None:
    alpha = math.exp(log_dispersion)
    expected = (
        math.fsum(math.log1p(i * alpha) for i in range(count))
        - math.lgamma(count + 1)
        + count * log_mean
        - (count + 1 / alpha) * math.log1p(alpha * math.exp(log_mean))
    )
    double = NegativeBinomialLogMean(real(log_mean), real(log_dispersion)).log_prob(real(count))
    assert double.item() == pytest.approx(expected, rel=1e-10, abs=1e-10)
    parameters = real(log_mean).float(), real(log_dispersion).float()
    single = NegativeBinomialLogMean(*parameters).log_prob(torch.tensor([float(count)]))
    assert single.item() == pytest.approx(expected, rel=2e-5, abs=1e-3)


def test_negative_binomial_without_dispersion_is_poisson_with_finite_gradients() -> None:
    log_mean = torch.tensor([0.3], requires_grad=True)
    log_dispersion = torch.tensor([-30.0], requires_grad=True)
    count = torch.tensor([4.0])
    log_prob = NegativeBinomialLogMean(log_mean, log_dispersion).log_prob(count)
    torch.testing.assert_close(log_prob, PoissonLogRate(log_mean).log_prob(count))
    slopes = torch.autograd.grad(log_prob.sum(), (log_mean, log_dispersion))
    torch.testing.assert_close(slopes[0], count - log_mean.exp())
    assert slopes[1].abs().item() < 1e-5


def test_negative_binomial_gradients_are_right_on_both_sides_of_the_switch() -> None:
    log_mean = real(0.5, 0.5, 0.5, 0.5).requires_grad_()
    log_dispersion = real(2.0, -4.1, -4.2, -9.0).requires_grad_()
    counts = real(3.0, 7.0, 7.0, 2.0)

    def log_prob(mean: torch.Tensor, dispersion: torch.Tensor) -> torch.Tensor:
        return NegativeBinomialLogMean(mean, dispersion).log_prob(counts)

    assert torch.autograd.gradcheck(log_prob, (log_mean, log_dispersion))


def test_one_dispersion_a_neuron_is_that_dispersion_at_every_entry() -> None:
    log_mean, counts, _ = trials(2)
    log_dispersion = real(2.0, 0.5, -1.0, -4.2, -9.0).requires_grad_()
    slopes = []
    for dispersion in (log_dispersion, log_dispersion.expand(2, 3, 4, 5)):
        distribution = NegativeBinomialLogMean(log_mean, dispersion, validate_args=False)
        assert distribution.log_dispersion.shape == distribution.batch_shape == (2, 3, 4, 5)
        total = distribution.log_prob(counts).sum()
        slopes.append((total, *torch.autograd.grad(total, (log_mean, log_dispersion))))
    torch.testing.assert_close(slopes[0], slopes[1])
    wide = NegativeBinomialLogMean(log_mean[0, 0, 0], log_dispersion).expand((3, 4, 5))
    assert wide.log_prob(counts).shape == (3, 4, 5)


@pytest.mark.parametrize(
    "distribution",
    [
        PoissonLogRate(real(1.2)),
        NegativeBinomialLogMean(real(1.2), real(-0.5)),
        NegativeBinomialLogMean(real(1.2), real(-5.0)),
    ],
)
def test_counts_have_total_mass_one_and_the_stated_moments(
    distribution: PoissonLogRate | NegativeBinomialLogMean,
) -> None:
    counts = torch.arange(400, dtype=torch.float64)
    mass = distribution.expand(torch.Size([400])).log_prob(counts).exp()
    mean = (mass * counts).sum()
    torch.testing.assert_close(mass.sum(), mass.new_tensor(1.0))
    torch.testing.assert_close(mean, distribution.mean[0])
    torch.testing.assert_close((mass * (counts - mean) ** 2).sum(), distribution.variance[0])
    torch.manual_seed(0)
    sample = distribution.sample((100_000,))
    assert sample.shape == (100_000, 1)
    assert sample.mean().item() == pytest.approx(mean.item(), rel=0.02)
    assert sample.var().item() == pytest.approx(distribution.variance.item(), rel=0.03)


def test_counts_that_are_no_counts_are_refused_where_validation_is_on() -> None:
    for distribution in (
        PoissonLogRate(real(0.0), validate_args=True),
        NegativeBinomialLogMean(real(0.0), real(0.0), validate_args=True),
    ):
        with pytest.raises(ValueError, match="support"):
            distribution.log_prob(real(0.5))


def test_delta_is_its_point_with_gradient() -> None:
    value = real(1.0, -2.0).requires_grad_()
    delta = Delta(value)
    sample = delta.rsample((3,))
    sample.sum().backward()
    assert sample.shape == (3, 2)
    assert delta.expand(torch.Size([4, 2])).mean.shape == (4, 2)
    assert value.grad is not None
    assert value.grad.tolist() == [3.0, 3.0]
    assert delta.stddev.tolist() == [0.0, 0.0]
    assert delta.log_prob(real(1.0, 0.0)).tolist() == [0.0, -math.inf]


def dense(chain: GaussianAR1, latent: int) -> MultivariateNormal:
    """The same chain as a Gaussian over (time,): covariance s^2 a^|t - t'|."""
    steps = torch.arange(chain.event_shape[0], dtype=torch.float64)
    lag = (steps[:, None] - steps).abs()
    covariance = chain.stationary_std[latent] ** 2 * chain.decay[latent] ** lag
    return MultivariateNormal(torch.zeros_like(steps), covariance)


def test_ar1_density_equals_dense_gaussian() -> None:
    torch.manual_seed(0)
    chain = GaussianAR1(real(-0.1, -1.5), real(0.7, 2.0), 6)
    path = torch.randn(3, 4, 6, 2, dtype=torch.float64)
    expected = sum(dense(chain, latent).log_prob(path[..., latent]) for latent in range(2))
    torch.testing.assert_close(chain.log_prob(path), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(chain.log_prob_terms(path).sum((-2, -1)), chain.log_prob(path))


def test_ar1_samples_have_the_dense_covariance() -> None:
    torch.manual_seed(0)
    chain = GaussianAR1(real(-0.2), real(1.5), 5)
    paths = chain.rsample((100_000,))
    assert paths.shape == (100_000, 5, 1)
    covariance = dense(chain, 0).covariance_matrix
    torch.testing.assert_close(paths[..., 0].T.cov(), covariance, rtol=0.0, atol=0.05)
    torch.testing.assert_close(chain.variance[:, 0], covariance.diagonal())
    assert not chain.mean.any()


def test_ar1_samples_carry_gradients_and_one_step_is_enough() -> None:
    log_decay, std = real(-0.2).requires_grad_(), real(1.5).requires_grad_()
    GaussianAR1(log_decay, std, 4).rsample((2,)).square().sum().backward()
    assert log_decay.grad is not None
    assert log_decay.grad.isfinite().all()
    single = GaussianAR1(real(-0.2), real(1.5), 1)
    value = single.rsample((3,))
    torch.testing.assert_close(
        single.log_prob(value), Normal(real(0.0), real(1.5)).log_prob(value).sum((-2, -1))
    )


def test_ar1_innovation_keeps_its_digits_where_the_decay_rounds_to_one() -> None:
    chain = GaussianAR1(torch.tensor([-1e-9]), torch.tensor([2.0]), 3)
    assert chain.decay.item() == 1.0
    mean, std = chain.conditional(torch.ones(1))
    assert mean.item() == 1.0
    assert std.item() == pytest.approx(2 * math.sqrt(2e-9), rel=1e-6)


def test_ar1_refuses_a_decay_above_one() -> None:
    with pytest.raises(ValueError, match="log_decay"):
        GaussianAR1(real(0.9), real(1.0), 3, validate_args=True)


def test_path_gaussian_density_is_the_product_of_its_conditionals() -> None:
    torch.manual_seed(0)
    mean, std = torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5) + 0.1
    path = torch.randn(2, 3, 4, 5)
    posterior = PathGaussian(mean, std)
    assert posterior.batch_shape == (2, 3)
    assert posterior.event_shape == (4, 5)
    torch.testing.assert_close(
        posterior.log_prob(path), Normal(mean, std).log_prob(path).sum((-2, -1))
    )
    torch.testing.assert_close(posterior.variance.sqrt(), posterior.stddev)


def test_path_gaussian_cannot_be_sampled_afresh() -> None:
    posterior = PathGaussian(torch.zeros(1, 1, 2, 1), torch.ones(1, 1, 2, 1))
    with pytest.raises(NotImplementedError):
        posterior.rsample()
