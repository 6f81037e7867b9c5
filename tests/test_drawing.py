from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch.distributions import (
    Bernoulli,
    Categorical,
    Distribution,
    Independent,
    LogNormal,
    LowRankMultivariateNormal,
    MultivariateNormal,
    Normal,
)

from seqvae.compute import noise
from seqvae.distributions import Delta, DiscreteMarkovChain, GaussianAR1, draw

NUM_TRIALS, SIZE = 3, 4


def made(kind: str) -> Distribution:
    torch.manual_seed(0)
    mean = torch.randn(NUM_TRIALS, SIZE, dtype=torch.float64)
    scale = 0.2 + torch.rand_like(mean)
    root = torch.randn(NUM_TRIALS, SIZE, SIZE, dtype=torch.float64).tril()
    root.diagonal(dim1=-2, dim2=-1).abs_().add_(0.2)
    gaussians = {
        "normal": Normal(mean, scale),
        "independent": Independent(Normal(mean, scale), 1),
        "full": MultivariateNormal(mean, scale_tril=root),
        "precision": MultivariateNormal(mean, precision_matrix=root @ root.mT),
        "low rank": LowRankMultivariateNormal(mean, root[..., :2], scale.square()),
    }
    return gaussians[kind]


KINDS = ["normal", "independent", "full", "precision", "low rank"]


def keyed(distribution: Distribution, num_samples: int, *, trial: torch.Tensor | None = None):
    trial = torch.arange(NUM_TRIALS) if trial is None else trial
    state = torch.get_rng_state()
    with noise.keyed(0), noise.of_trials(trial):
        found = draw(distribution, num_samples)
    assert torch.equal(torch.get_rng_state(), state)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_mean_and_covariance_of_the_distribution(kind):
    distribution, num_samples = made(kind), 40_000
    sample = keyed(distribution, num_samples)
    assert sample.shape == (num_samples, NUM_TRIALS, SIZE)
    base = distribution.base_dist if isinstance(distribution, Independent) else distribution
    expected = base.variance.diag_embed() if isinstance(base, Normal) else base.covariance_matrix
    root = torch.linalg.cholesky(expected)
    white = torch.linalg.solve_triangular(
        root, (sample - distribution.mean)[..., None], upper=False
    )[..., 0]
    for row in range(NUM_TRIALS):
        assert stats.kstest(white[:, row].flatten().numpy(), "norm").pvalue > 1e-3
        covariance = white[:, row].T.cov()
        error = 5 * (2 / num_samples) ** 0.5
        assert (covariance - torch.eye(SIZE)).abs().max() < error
    between = torch.stack([white[:, 0].flatten(), white[:, 1].flatten()]).corrcoef()[0, 1]
    assert between.abs() < 5 / white[:, 0].numel() ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_differentiable_and_those_of_a_trial(kind):
    distribution = made(kind)
    whole = keyed(distribution, 5)
    again = keyed(made(kind), 3)
    assert torch.equal(whole[:3], again)
    mean = torch.zeros(NUM_TRIALS, SIZE, dtype=torch.float64, requires_grad=True)
    scale = torch.ones_like(mean).requires_grad_()
    sample = keyed(Normal(mean, scale), 5)
    slope, spread = torch.autograd.grad(sample.sum(), (mean, scale))
    torch.testing.assert_close(slope, torch.full_like(slope, 5.0))
    torch.testing.assert_close(spread, sample.detach().sum(0))


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_key_torch_draws(kind):
    distribution = made(kind)
    torch.manual_seed(1)
    expected = distribution.rsample((5,))
    torch.manual_seed(1)
    assert torch.equal(draw(distribution, 5), expected)


def test_other_distributions_draw_by_their_own_methods():
    with noise.keyed(0), noise.of_trials(torch.arange(NUM_TRIALS)):
        for distribution in (
            LogNormal(torch.zeros(NUM_TRIALS), torch.ones(NUM_TRIALS)),
            Bernoulli(torch.full((NUM_TRIALS,), 0.5)),
            Categorical(torch.ones(NUM_TRIALS, 2)),
        ):
            torch.manual_seed(1)
            expected = distribution.sample((5,))
            torch.manual_seed(1)
            assert torch.equal(draw(distribution, 5), expected)
        assert torch.equal(draw(Delta(torch.ones(NUM_TRIALS)), 5), torch.ones(5, NUM_TRIALS))


def test_distributions_of_the_package_draw_by_keyed_noise():
    decay = torch.tensor([-0.1, -0.4], dtype=torch.float64)
    ar1 = GaussianAR1(decay, torch.ones_like(decay), 6)
    chain = DiscreteMarkovChain(
        torch.full((NUM_TRIALS, 2), 0.5, dtype=torch.float64).log(),
        torch.full((1, 5, 2, 2), 0.5, dtype=torch.float64).log(),
    )
    for make, shape in ((ar1.rsample, (4, NUM_TRIALS)), (chain.sample, (4,))):
        found = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            with noise.keyed(3), noise.of_trials(torch.arange(NUM_TRIALS)):
                found.append(make(torch.Size(shape)))
        assert torch.equal(*found)
        assert found[0].shape[:2] == (4, NUM_TRIALS)
        with noise.keyed(3), noise.of_trials(torch.arange(NUM_TRIALS)):
            fewer = make(torch.Size((2, *shape[1:])))
        assert torch.equal(fewer, found[0][:2])
