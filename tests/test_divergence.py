from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import (
    Distribution,
    Gumbel,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
    StudentT,
    kl_divergence,
    register_kl,
)

from seqvae.distributions import (
    Delta,
    GaussianAR1,
    PathGaussian,
    entropy,
    gaussian_kl,
    kl,
    kl_by_dimension,
    kl_terms,
    log_density,
    log_ratio,
    multivariate_gaussian_kl,
)
from seqvae.errors import InputError
from seqvae.types import Latent

# Twenty steps with feedback c: q(u_t | u_{t-1}) = N(c u_{t-1}, 0.5^2), and a stationary AR(1)
# prior with a = 0.9 and innovations of standard deviation 0.3.
NUM_STEPS, POSTERIOR_STD, DECAY, INNOVATION_STD = 20, 0.5, 0.9, 0.3
EXACT = {0.0: 28.64, 0.1: 24.32, 0.3: 17.65, 0.6: 10.87, 0.9: 7.27}


@pytest.fixture(autouse=True)
def double_precision_and_seed() -> object:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def toy_prior() -> GaussianAR1:
    stationary_std = torch.tensor([INNOVATION_STD / math.sqrt(1 - DECAY**2)])
    return GaussianAR1(torch.tensor([math.log(DECAY)]), stationary_std, NUM_STEPS)


def toy_latent(feedback: float, num_samples: int) -> Latent:
    """One trial of the toy, sampled as a decoder with feedback would."""
    previous = torch.zeros(num_samples, 1, 1)
    means, path = [], []
    for _ in range(NUM_STEPS):
        means.append(feedback * previous)
        previous = means[-1] + POSTERIOR_STD * torch.randn_like(previous)
        path.append(previous)
    mean = torch.stack(means, dim=2)
    posterior = PathGaussian(mean, torch.full_like(mean, POSTERIOR_STD))
    return Latent(posterior, toy_prior(), torch.stack(path, dim=2))


def markov_gaussian(factor: float, initial_std: float, std: float) -> MultivariateNormal:
    """Dense Gaussian of u_1 ~ N(0, initial_std^2), u_t ~ N(factor u_{t-1}, std^2)."""
    steps = torch.arange(NUM_STEPS)
    response = torch.eye(NUM_STEPS) - torch.diag(torch.full((NUM_STEPS - 1,), factor), -1)
    precision = torch.where(steps == 0, initial_std, std) ** -2.0
    return MultivariateNormal(
        torch.zeros(NUM_STEPS), precision_matrix=response.T @ torch.diag(precision) @ response
    )


def toy_exact(feedback: float) -> float:
    posterior = markov_gaussian(feedback, POSTERIOR_STD, POSTERIOR_STD)
    prior = markov_gaussian(DECAY, INNOVATION_STD / math.sqrt(1 - DECAY**2), INNOVATION_STD)
    return kl_divergence(posterior, prior).item()


def assert_mean_is(values: torch.Tensor, expected: float) -> None:
    """Four standard errors."""
    error = 1e-9 + 4 * values.std().item() / math.sqrt(values.numel())
    assert values.mean().item() == pytest.approx(expected, abs=error)


@pytest.mark.parametrize(("feedback", "published"), EXACT.items())
def test_stepwise_kl_is_unbiased_under_feedback(feedback: float, published: float) -> None:
    exact = toy_exact(feedback)
    assert exact == pytest.approx(published, abs=0.005)
    latent = toy_latent(feedback, 40_000)
    stepwise, ratio = kl(latent), log_ratio(latent)
    assert_mean_is(stepwise, exact)
    assert_mean_is(ratio, exact)
    assert stepwise.std() < ratio.std()


def test_a_fresh_sample_would_be_biased_under_feedback() -> None:
    latent = toy_latent(0.6, 40_000)
    fresh = latent.posterior.mean + POSTERIOR_STD * torch.randn_like(latent.sample)
    assert kl(latent._replace(sample=fresh)).mean().item() == pytest.approx(39.32, abs=0.2)
    assert kl(latent).mean().item() == pytest.approx(10.87, abs=0.1)


def test_posterior_equal_to_the_prior_along_the_path_has_no_kl() -> None:
    prior = GaussianAR1(torch.tensor([-0.1, -2.0]), torch.tensor([0.5, 3.0]), 7)
    path = prior.rsample((5, 4))
    mean, std = prior.conditionals(path)
    latent = Latent(PathGaussian(mean, std.expand_as(path)), prior, path)
    torch.testing.assert_close(kl_terms(latent), torch.zeros_like(path))
    torch.testing.assert_close(log_ratio(latent), torch.zeros(5, 4))


def test_path_against_normal_is_the_closed_form_of_each_step() -> None:
    mean, std = torch.randn(3, 2, 5, 4), torch.rand(3, 2, 5, 4) + 0.1
    prior = Normal(torch.randn(5, 4), torch.rand(5, 4) + 0.1)
    latent = Latent(PathGaussian(mean, std), prior, torch.randn(3, 2, 5, 4))
    torch.testing.assert_close(kl_terms(latent), kl_divergence(Normal(mean, std), prior))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), log_decay=st.floats(-4, -1e-3), stationary_std=st.floats(0.1, 5))
def test_factorised_posterior_against_ar1_equals_dense_gaussians(
    seed: int, log_decay: float, stationary_std: float
) -> None:
    torch.manual_seed(seed)
    prior = GaussianAR1(torch.tensor([log_decay]), torch.tensor([stationary_std]), 9)
    posterior = Normal(torch.randn(3, 9, 1), torch.rand(3, 9, 1) + 0.1)
    lag = (torch.arange(9)[:, None] - torch.arange(9)).abs()
    covariance = stationary_std**2 * torch.exp(log_decay * lag)
    expected = kl_divergence(
        MultivariateNormal(posterior.mean[..., 0], torch.diag_embed(posterior.variance[..., 0])),
        MultivariateNormal(torch.zeros(9), covariance),
    )
    latent = Latent(posterior, prior, posterior.rsample((2,)))
    assert kl_terms(latent).shape == (2, 3, 9, 1)
    assert (kl_terms(latent) >= 0).all()
    torch.testing.assert_close(kl(latent), expected.expand(2, 3), rtol=1e-9, atol=1e-9)


def test_masked_chain_is_the_shorter_chain_whatever_the_padding_holds() -> None:
    log_decay, std, short = torch.tensor([-0.3, -1.0]), torch.tensor([0.5, 2.0]), 4
    mask = torch.arange(7) < torch.tensor([short, 7])[:, None]
    mean, scale = torch.randn(2, 7, 2), torch.rand(2, 7, 2) + 0.1
    mean[0, short:] = torch.nan
    posterior = Normal(mean, scale, validate_args=False)
    sample = posterior.rsample((3,))
    path = PathGaussian(sample - 0.3, scale.expand(3, 2, 7, 2), validate_args=False)
    for q in (posterior, path):
        latent = Latent(q, GaussianAR1(log_decay, std, 7), sample, mask)
        cut = Normal(mean[:1, :short], scale[:1, :short])
        if q is path:
            cut = PathGaussian(path.mean[:, :1, :short], path.stddev[:, :1, :short])
        shorter = Latent(cut, GaussianAR1(log_decay, std, short), sample[:, :1, :short])
        assert (kl_terms(latent)[:, 0, short:] == 0).all()
        torch.testing.assert_close(kl(latent)[:, :1], kl(shorter))
        torch.testing.assert_close(log_ratio(latent)[:, :1], log_ratio(shorter))
        assert (kl(latent)[:, 1] > 0).all()


def test_normal_pair_is_torchs_closed_form_for_trials_and_bins() -> None:
    for shape in ((4, 3), (4, 6, 3)):
        posterior = Normal(torch.randn(shape), torch.rand(shape) + 0.1)
        prior = Normal(torch.randn(shape[1:]), torch.rand(shape[1:]) + 0.1)
        latent = Latent(posterior, prior, posterior.rsample((2,)))
        expected = kl_divergence(posterior, prior).expand(2, *shape)
        torch.testing.assert_close(kl_terms(latent), expected)
        torch.testing.assert_close(kl(latent), expected.flatten(2).sum(2))
        wrapped = Latent(Independent(posterior, 1), prior, latent.sample)
        torch.testing.assert_close(kl(wrapped), kl(latent))
        torch.testing.assert_close(log_ratio(wrapped), log_ratio(latent))


def test_log_ratio_has_the_kl_as_its_mean() -> None:
    bins = Normal(torch.randn(1, 5, 2), torch.rand(1, 5, 2) + 0.3)
    trial = Normal(torch.randn(1, 3), torch.rand(1, 3) + 0.3)
    for posterior, prior in (
        (bins, GaussianAR1(torch.tensor([-0.2, -1.0]), torch.tensor([1.0, 0.5]), 5)),
        (bins, Normal(torch.zeros(5, 2), torch.ones(5, 2))),
        (trial, Normal(torch.zeros(3), torch.ones(3))),
    ):
        latent = Latent(posterior, prior, posterior.rsample((40_000,)))
        assert_mean_is(log_ratio(latent)[:, 0], kl(latent)[0, 0].item())


@given(
    mean=st.floats(-5, 5),
    log_std_q=st.floats(-8, 8),
    log_std_p=st.floats(-8, 8),
)
def test_gaussian_kl_is_not_negative_in_single_precision(
    mean: float, log_std_q: float, log_std_p: float
) -> None:
    q, p = (torch.tensor(x, dtype=torch.float32).exp() for x in (log_std_q, log_std_p))
    centre = torch.tensor(mean, dtype=torch.float32)
    divergence = gaussian_kl(centre, q, centre, p)
    assert divergence >= -1e-6 * abs(log_std_q - log_std_p)
    assert divergence.isfinite()


def test_delta_has_no_kl() -> None:
    delta = Delta(torch.randn(4, 6, 3))
    for prior in (
        Normal(torch.zeros(6, 3), torch.ones(6, 3)),
        GaussianAR1(-torch.ones(3), torch.ones(3), 6),
    ):
        latent = Latent(delta, prior, delta.rsample((2,)))
        assert not kl_terms(latent).any()
        assert kl(latent).shape == log_ratio(latent).shape == (2, 4)
        assert not log_ratio(latent).any()


def test_multivariate_normals_use_torchs_closed_form_and_the_mask() -> None:
    scale = torch.eye(3) + 0.2 * torch.ones(3, 3).tril(-1)
    posterior = MultivariateNormal(torch.randn(4, 6, 3), scale_tril=scale)
    prior = MultivariateNormal(torch.zeros(3), torch.eye(3))
    mask = torch.arange(6) < torch.tensor([6, 2, 5, 1])[:, None]
    latent = Latent(posterior, prior, posterior.rsample((2,)), mask)
    expected = kl_divergence(posterior, prior) * mask
    torch.testing.assert_close(kl_terms(latent), expected.expand(2, 4, 6))
    torch.testing.assert_close(kl(latent), expected.sum(1).expand(2, 4))


def test_pair_without_closed_form_falls_back_to_the_log_ratio_on_the_same_sample() -> None:
    tails, standard = StudentT(torch.full((1, 2), 9.0)), Normal(torch.zeros(2), torch.ones(2))
    latent = Latent(tails, standard, tails.rsample((40_000,)))
    torch.testing.assert_close(kl(latent), log_ratio(latent))
    grid = torch.linspace(-60, 60, 200_001)
    ratio = tails.log_prob(grid[:, None])[:, 0] - standard.log_prob(grid[:, None])[:, 0]
    density = tails.log_prob(grid[:, None])[:, 0].exp()
    assert_mean_is(kl(latent)[:, 0], 2 * torch.trapezoid(density * ratio, grid).item())


def random_scale(*leading: int, dim: int = 3) -> torch.Tensor:
    """Cholesky factors of covariances."""
    below = 0.6 * torch.randn(*leading, dim, dim).tril(-1)
    return below + torch.diag_embed(torch.rand(*leading, dim) + 0.2)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), dim=st.integers(1, 6))
def test_kl_of_any_two_gaussians_is_that_of_torch(seed: int, dim: int) -> None:
    torch.manual_seed(seed)
    q = MultivariateNormal(torch.randn(4, 5, dim), scale_tril=random_scale(4, 5, dim=dim))
    p = MultivariateNormal(torch.randn(5, dim), scale_tril=random_scale(dim=dim))
    found = multivariate_gaussian_kl(q.mean, q.scale_tril, p.mean, p.scale_tril)
    torch.testing.assert_close(found, kl_divergence(q, p), rtol=1e-9, atol=1e-9)
    same = multivariate_gaussian_kl(q.mean, q.scale_tril, q.mean, q.scale_tril)
    torch.testing.assert_close(same, torch.zeros(4, 5), rtol=0, atol=1e-12)


def joint_posteriors() -> list[Distribution]:
    """Gaussians of one event a bin, (trial, time, latent) = (2, 6, 3)."""
    mean = torch.randn(2, 6, 3)
    return [
        MultivariateNormal(mean, scale_tril=random_scale(2, 6)),
        LowRankMultivariateNormal(mean, torch.randn(2, 6, 3, 1), torch.rand(2, 6, 3) + 0.1),
    ]


PRIORS = {
    "normal": lambda: Normal(torch.zeros(6, 3), torch.tensor([0.5, 1.0, 2.0]).expand(6, 3)),
    "full": lambda: MultivariateNormal(torch.zeros(6, 3), torch.eye(3) + 0.5),
    "low-rank": lambda: LowRankMultivariateNormal(
        torch.zeros(6, 3), torch.ones(6, 3, 1), torch.ones(6, 3)
    ),
    "chain": lambda: GaussianAR1(
        torch.tensor([-0.1, -1.0, -3.0]), torch.tensor([1.0, 0.5, 2.0]), 6
    ),
}


@pytest.mark.parametrize("name", PRIORS)
def test_kl_of_coupled_dimensions_is_the_mean_log_ratio(name: str) -> None:
    prior = PRIORS[name]()
    mask = torch.arange(6) < torch.tensor([6, 4])[:, None]
    for posterior in joint_posteriors():
        latent = Latent(posterior, prior, posterior.rsample((30_000,)), mask)
        terms, ratio = kl_terms(latent), log_ratio(latent)
        assert terms.shape == (30_000, 2, 6)
        assert not terms[:, ~mask].any()
        for i in range(2):
            exact = kl(latent)[0, i].item()
            assert exact > 0
            assert_mean_is(ratio[:, i], exact)


def test_diagonal_against_coupled_is_the_mean_log_ratio() -> None:
    posterior = Normal(torch.randn(2, 6, 3), torch.rand(2, 6, 3) + 0.2)
    prior = MultivariateNormal(torch.zeros(6, 3), torch.eye(3) + 0.5)
    latent = Latent(posterior, prior, posterior.rsample((30_000,)))
    for i in range(2):
        assert_mean_is(log_ratio(latent)[:, i], kl(latent)[0, i].item())


def test_a_diagonal_covariance_told_as_a_full_one_has_the_same_kl() -> None:
    alone = Normal(torch.randn(2, 6, 3), torch.rand(2, 6, 3) + 0.1)
    joint = MultivariateNormal(alone.mean, scale_tril=torch.diag_embed(alone.stddev))
    for prior in (
        Normal(torch.zeros(6, 3), torch.ones(6, 3)),
        GaussianAR1(torch.tensor([-0.1, -1.0, -3.0]), torch.ones(3), 6),
    ):
        sample = alone.rsample((2,))
        one, other = (kl(Latent(q, prior, sample)) for q in (alone, joint))
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_dimensions_add_up_to_the_kl_where_it_separates() -> None:
    mask = torch.arange(6) < torch.tensor([6, 4])[:, None]
    prior = Normal(torch.zeros(6, 3), torch.ones(6, 3))
    alone = Normal(torch.randn(2, 6, 3), torch.rand(2, 6, 3) + 0.1)
    latent = Latent(alone, prior, alone.rsample((4,)), mask)
    found = kl_by_dimension(latent)
    assert found.shape == (4, 2, 3)
    torch.testing.assert_close(found.sum(-1), kl(latent))
    torch.testing.assert_close(found, kl_terms(latent).sum(2))
    joint = joint_posteriors()[0]
    coupled = Latent(joint, prior, joint.rsample((4,)), mask)
    torch.testing.assert_close(kl_by_dimension(coupled), kl(coupled)[..., None])
    start = Latent(
        Normal(torch.randn(2, 3), 1.0), Normal(torch.zeros(3), 1.0), torch.randn(4, 2, 3)
    )
    torch.testing.assert_close(kl_by_dimension(start), kl_terms(start))


def test_entropy_is_the_mean_of_minus_the_log_density() -> None:
    mask = torch.arange(6) < torch.tensor([6, 4])[:, None]
    prior = Normal(torch.zeros(6, 3), torch.ones(6, 3))
    alone = Normal(torch.randn(2, 6, 3), torch.rand(2, 6, 3) + 0.1)
    for posterior in (alone, *joint_posteriors()):
        latent = Latent(posterior, prior, posterior.rsample((30_000,)), mask)
        for i in range(2):
            found = entropy(latent)
            assert found.shape == (30_000, 2)
            assert_mean_is(-log_density(posterior, latent)[:, i], found[0, i].item())
    path = toy_latent(0.6, 40_000)
    expected = NUM_STEPS * Normal(0.0, POSTERIOR_STD).entropy()
    torch.testing.assert_close(entropy(path), expected.expand(40_000, 1))
    assert_mean_is(-log_density(path.posterior, path), expected.item())


def test_heavy_tails_against_a_chain_are_masked_step_by_step() -> None:
    posterior = StudentT(torch.full((2, 5, 1), 4.0))
    prior = GaussianAR1(torch.tensor([-0.5]), torch.tensor([1.0]), 5)
    sample = posterior.rsample((3,))
    mask = torch.arange(5) < torch.tensor([2, 5])[:, None]
    shorter = posterior.log_prob(sample)[:, 0, :2].sum((-2, -1)) - GaussianAR1(
        torch.tensor([-0.5]), torch.tensor([1.0]), 2
    ).log_prob(sample[:, 0, :2])
    torch.testing.assert_close(kl(Latent(posterior, prior, sample, mask))[:, 0], shorter)


def test_a_path_against_heavy_tails_is_the_log_ratio() -> None:
    mean, std = torch.randn(3, 2, 5, 4), torch.rand(3, 2, 5, 4) + 0.1
    prior = Laplace(torch.zeros(5, 4), torch.ones(5, 4))
    latent = Latent(PathGaussian(mean, std), prior, mean + std * torch.randn(3, 2, 5, 4))
    torch.testing.assert_close(kl_terms(latent), log_ratio(latent))


class Ramp(Gumbel):
    """A stranger's distribution."""


def test_a_third_party_adds_its_own_pair_through_torch() -> None:
    @register_kl(Ramp, Laplace)
    def _kl(q: Ramp, p: Laplace) -> torch.Tensor:
        return q.loc - p.loc

    posterior = Ramp(torch.rand(4, 3), torch.ones(4, 3))
    latent = Latent(posterior, Laplace(torch.zeros(3), 1.0), posterior.rsample((2,)))
    torch.testing.assert_close(kl(latent), posterior.loc.sum(-1).expand(2, 4))


def test_a_density_of_whole_paths_refuses_unequal_lengths_and_takes_equal_ones() -> None:
    def paths(base: Normal) -> Distribution:
        return MultivariateNormal(base.loc, torch.diag_embed(base.scale**2))

    posterior = paths(Normal(torch.randn(2, 6), torch.ones(2, 6)))
    prior = paths(Normal(torch.zeros(6), torch.ones(6)))
    sample = posterior.rsample((3,))
    mask = torch.ones(2, 6, dtype=torch.bool)
    latent = Latent(posterior, prior, sample, mask)
    torch.testing.assert_close(kl(latent), kl_divergence(posterior, prior).expand(3, 2))
    mask[0, -1] = False
    with pytest.raises(InputError, match="unequal length"):
        kl(latent)


def test_gradients_reach_posterior_and_prior() -> None:
    mean = torch.randn(2, 5, 3, requires_grad=True)
    log_std = torch.randn(2, 5, 3, requires_grad=True)
    log_decay = torch.tensor([-0.1, -1.0, -3.0], requires_grad=True)
    std = torch.ones(3, requires_grad=True)

    def total(m: torch.Tensor, s: torch.Tensor, d: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        latent = Latent(Normal(m, s.exp()), GaussianAR1(d, p, 5), torch.zeros(1, 2, 5, 3))
        return kl(latent)

    assert torch.autograd.gradcheck(total, (mean, log_std, log_decay, std))
