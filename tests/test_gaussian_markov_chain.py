from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck
from torch.distributions import MultivariateNormal, kl_divergence

from seqvae.distributions import GaussianMarkovChain, kl, kl_terms, log_ratio
from seqvae.linalg import BlockTridiagonal
from seqvae.types import Latent


@pytest.fixture(autouse=True)
def double_precision_and_seed() -> object:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def random_covariance(*shape: int) -> Tensor:
    half = torch.randn(*shape, shape[-1])
    return half @ half.mT + torch.eye(shape[-1])


def random_chain(batch: int, time: int, dim: int, lengths: Tensor | None = None):
    """A chain of its own dynamics at each step and trial, with an offset."""
    return GaussianMarkovChain.from_dynamics(
        torch.randn(batch, time - 1, dim, dim) / dim**0.5,
        random_covariance(batch, time - 1, dim),
        initial_mean=torch.randn(batch, dim),
        initial_covariance=random_covariance(batch, dim),
        num_steps=time,
        offset=torch.randn(batch, time - 1, dim),
        lengths=lengths,
    )


def dense(chain: GaussianMarkovChain) -> MultivariateNormal:
    """The same Gaussian over flattened paths."""
    return MultivariateNormal(chain.mean.flatten(1), precision_matrix=chain.precision.dense())


def marginal(chain: GaussianMarkovChain, trial: int, length: int) -> MultivariateNormal:
    """The dense Gaussian of the first steps of one trial."""
    whole = dense(chain)
    size = length * chain.mean.shape[-1]
    return MultivariateNormal(
        whole.mean[trial, :size], whole.covariance_matrix[trial, :size, :size]
    )


def assert_close(actual: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3), time=st.integers(1, 9), dim=st.integers(1, 4), seed=st.integers(0, 99)
)
def test_density_entropy_moments_and_kl_equal_the_dense_gaussian(batch, time, dim, seed) -> None:
    torch.manual_seed(seed)
    chain, other = random_chain(batch, time, dim), random_chain(batch, time, dim)
    truth = dense(chain)
    path = torch.randn(2, batch, time, dim)
    assert_close(chain.log_prob(path), truth.log_prob(path.flatten(2)))
    assert_close(chain.log_prob_terms(path).sum(-1), truth.log_prob(path.flatten(2)))
    assert_close(chain.entropy(), truth.entropy())
    blocks = truth.covariance_matrix.reshape(batch, time, dim, time, dim).transpose(2, 3)
    steps = torch.arange(time)
    assert_close(chain.covariance, blocks[:, steps, steps])
    assert_close(chain.cross_covariance, blocks[:, steps[1:], steps[:-1]])
    assert_close(chain.variance, truth.variance.reshape(batch, time, dim))
    expected = kl_divergence(truth, dense(other)).expand(2, -1)
    assert_close(kl(Latent(chain, other, path)), expected, 1e-9)


@pytest.mark.parametrize("time", [1, 2, 7])
def test_moments_of_dynamics_equal_the_forward_recursion(time) -> None:
    batch, dim = 3, 2
    dynamics, noise = torch.randn(batch, time - 1, dim, dim), random_covariance(time - 1, dim)
    offset = torch.randn(batch, time - 1, dim)
    mean, covariance = torch.randn(dim), random_covariance(dim)
    chain = GaussianMarkovChain.from_dynamics(
        dynamics,
        noise,
        initial_mean=mean,
        initial_covariance=covariance,
        num_steps=time,
        offset=offset,
    )
    assert chain.batch_shape == (batch,)
    assert chain.event_shape == (time, dim)
    means, covariances, crosses = [mean.expand(batch, dim)], [covariance.expand(batch, -1, -1)], []
    for t in range(time - 1):
        step = dynamics[:, t]
        means.append((step @ means[-1][..., None])[..., 0] + offset[:, t])
        crosses.append(step @ covariances[-1])
        covariances.append(crosses[-1] @ step.mT + noise[t])
    assert_close(chain.mean, torch.stack(means, 1))
    assert_close(chain.covariance, torch.stack(covariances, 1))
    if crosses:
        assert_close(chain.cross_covariance, torch.stack(crosses, 1))
        assert_close(chain.conditionals.gain, dynamics)
        assert_close(chain.conditionals.precision[:, 1:], noise.inverse().expand(batch, -1, -1, -1))
    root = chain.conditionals.root
    assert_close(root.mT @ root, chain.conditionals.precision.inverse())
    assert_close(chain.conditionals.log_det, chain.conditionals.precision.logdet())


def test_dynamics_that_do_not_change_are_factorised_once_for_all_trials() -> None:
    dynamics, noise = 0.9 * torch.eye(2), random_covariance(2)
    common = {"initial_mean": torch.zeros(2), "initial_covariance": torch.eye(2), "num_steps": 6}
    alone = GaussianMarkovChain.from_dynamics(dynamics, noise, **common)
    assert alone.batch_shape == (1,)
    offset = torch.randn(4, 5, 2)
    driven = GaussianMarkovChain.from_dynamics(dynamics, noise, offset=offset, **common)
    assert driven.batch_shape == (4,)
    assert driven.precision.diagonal.shape[0] == 1
    own = GaussianMarkovChain(
        driven.mean,
        BlockTridiagonal(
            driven.precision.diagonal.expand(4, -1, -1, -1),
            driven.precision.lower.expand(4, -1, -1, -1),
        ),
    )
    path = torch.randn(3, 4, 6, 2)
    assert_close(driven.log_prob(path), own.log_prob(path))
    assert_close(driven.covariance, own.covariance)
    assert_close(driven.cross_covariance, own.cross_covariance)
    assert_close(driven.entropy(), own.entropy())
    torch.manual_seed(1)
    drawn = driven.rsample((3,))
    torch.manual_seed(1)
    assert_close(drawn, own.rsample((3,)))
    posterior = random_chain(4, 6, 2)
    expected = kl(Latent(posterior, own, path))
    assert_close(kl(Latent(posterior, driven, path)), expected)
    centred = GaussianMarkovChain(own.mean.mean(0, keepdim=True), alone.precision)
    wide = GaussianMarkovChain(centred.mean.expand(4, -1, -1), own.precision)
    assert_close(kl(Latent(posterior, centred, path)), kl(Latent(posterior, wide, path)))


def test_another_mean_is_that_of_the_dense_gaussian_of_the_same_precision() -> None:
    lengths = torch.tensor([5, 3])
    for some in (None, lengths):
        chain = random_chain(2, 5, 2, some)
        mean = torch.randn(2, 5, 2)
        moved = chain.with_mean(mean)
        assert_close(moved.covariance, chain.covariance)
        for trial, length in enumerate([5, 5] if some is None else lengths.tolist()):
            path = torch.randn(2, 5, 2)
            covariance = marginal(chain, trial, length).covariance_matrix
            truth = MultivariateNormal(mean[trial, :length].flatten(), covariance)
            assert_close(
                moved.log_prob(path)[trial], truth.log_prob(path[trial, :length].flatten())
            )
            assert not moved.mean[trial, length:].any()


def test_samples_have_the_moments_of_the_chain() -> None:
    num_samples = 100_000
    chain = random_chain(1, 5, 2)
    paths = chain.sample((num_samples,))[:, 0]
    deviation = paths - chain.mean[0]
    covariance = chain.covariance[0]
    error = chain.stddev[0] / num_samples**0.5
    assert (deviation.mean(0).abs() < 4 * error).all()
    pairs = [
        (deviation, deviation, covariance, covariance, covariance),
        (
            deviation[:, 1:],
            deviation[:, :-1],
            chain.cross_covariance[0],
            covariance[1:],
            covariance[:-1],
        ),
    ]
    for left, right, expected, left_covariance, right_covariance in pairs:
        found = torch.einsum("sti,stj->tij", left, right) / num_samples
        variances = (
            left_covariance.diagonal(dim1=-2, dim2=-1)[..., :, None]
            * right_covariance.diagonal(dim1=-2, dim2=-1)[..., None, :]
        )
        # Var(x y) = Var x Var y + Cov(x, y)^2 of two Gaussians
        error = ((variances + expected.square()) / num_samples).sqrt()
        assert ((found - expected).abs() < 4 * error).all()


def test_kl_equals_monte_carlo() -> None:
    posterior, prior = random_chain(2, 6, 2), random_chain(2, 6, 2)
    latent = Latent(posterior, prior, posterior.sample((20_000,)))
    ratios = log_ratio(latent)
    error = ratios.std(0) / len(ratios) ** 0.5
    assert ((ratios.mean(0) - kl(latent)[0]).abs() < 4 * error).all()
    assert_close(kl(Latent(prior, prior, latent.sample)), torch.zeros(20_000, 2), 1e-12)


def test_masked_steps_leave_the_kl_and_the_density_of_the_shorter_chain() -> None:
    posterior, prior = random_chain(3, 6, 2), random_chain(3, 6, 2)
    lengths = [6, 4, 1]
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    sample = posterior.sample((2,))
    latent = Latent(posterior, prior, sample, mask)
    terms, ratios = kl_terms(latent), log_ratio(latent)
    assert terms.shape == (2, 3, 6)
    assert (terms[:, ~mask] == 0).all()
    for trial, length in enumerate(lengths):
        of_posterior = marginal(posterior, trial, length)
        of_prior = marginal(prior, trial, length)
        expected = kl_divergence(of_posterior, of_prior)
        assert_close(terms[0, trial].sum(), expected, 1e-9)
        path = sample[:, trial, :length].flatten(1)
        ratio = of_posterior.log_prob(path) - of_prior.log_prob(path)
        assert_close(ratios[:, trial], ratio, 1e-9)


@pytest.mark.parametrize("garbage", [1e6, float("nan")])
def test_padding_changes_nothing(garbage) -> None:
    lengths = [7, 4, 1]
    mask = torch.arange(7) < torch.tensor(lengths)[:, None]
    whole = random_chain(3, 7, 2)
    dynamics = 0.7 * torch.eye(2).repeat(3, 6, 1, 1)
    dynamics.requires_grad_()
    offset = torch.randn(3, 6, 2)
    padded_offset = offset.masked_fill(~mask[:, 1:, None], garbage).requires_grad_()

    def prior_of(trials: slice, steps: int, offset: Tensor, lengths: Tensor | None):
        return GaussianMarkovChain.from_dynamics(
            dynamics[trials, : steps - 1],
            torch.eye(2),
            initial_mean=torch.ones(2),
            initial_covariance=torch.eye(2),
            num_steps=steps,
            offset=offset,
            lengths=lengths,
            validate_args=False,
        )

    chain = prior_of(slice(None), 7, padded_offset, torch.tensor(lengths))
    mean = whole.mean.masked_fill(~mask[..., None], garbage)
    diagonal = whole.precision.diagonal.masked_fill(~mask[..., None, None], garbage)
    lower = whole.precision.lower.masked_fill(~mask[:, 1:, None, None], garbage)
    posterior = GaussianMarkovChain(
        mean, BlockTridiagonal(diagonal, lower), lengths=torch.tensor(lengths), validate_args=False
    )
    path = torch.randn(2, 3, 7, 2).masked_fill(~mask[..., None], garbage)
    drawn = posterior.rsample((2,))
    assert (drawn[:, ~mask] == 0).all()
    assert drawn.isfinite().all()
    divergence = kl(Latent(posterior, chain, drawn))
    (divergence.sum() + chain.log_prob(path).sum() + chain.rsample().sum()).backward()
    assert dynamics.grad.isfinite().all()
    assert (padded_offset.grad[~mask[:, 1:]] == 0).all()
    assert padded_offset.grad.isfinite().all()
    for trial, length in enumerate(lengths):
        this = slice(trial, trial + 1)
        shorter = prior_of(this, length, offset[this, : length - 1], None)
        assert_close(chain.mean[this, :length], shorter.mean, 1e-12)
        assert_close(chain.covariance[this, :length], shorter.covariance, 1e-12)
        assert_close(chain.cross_covariance[this, : length - 1], shorter.cross_covariance, 1e-12)
        assert_close(chain.entropy()[this], shorter.entropy(), 1e-12)
        assert_close(chain.log_prob(path)[:, this], shorter.log_prob(path[:, this, :length]), 1e-12)
        cut = GaussianMarkovChain(
            whole.mean[this, :length],
            BlockTridiagonal(
                whole.precision.diagonal[this, :length], whole.precision.lower[this, : length - 1]
            ),
        )
        expected = kl(Latent(cut, shorter, drawn[:, this, :length]))
        assert_close(divergence[:, this], expected, 1e-12)


def test_posterior_is_proportional_to_prior_times_gaussian_likelihood() -> None:
    # log p(z) + log p(y | z) - log q(z) is log p(y), the same for every z
    prior = random_chain(2, 5, 2)
    information = random_covariance(2, 5, 2)
    observed = torch.randn(2, 5, 2)
    precision = prior.precision.plus_diagonal(information)
    rhs = torch.einsum("btij,btj->bti", information, observed) + prior.precision.matvec(prior.mean)
    first = GaussianMarkovChain(torch.zeros_like(prior.mean), precision)
    posterior = GaussianMarkovChain(first.factor.solve(rhs), precision)
    paths = posterior.sample((6,)) + torch.randn(6, 2, 5, 2)
    likelihood = MultivariateNormal(paths, precision_matrix=information).log_prob(observed).sum(-1)
    evidence = prior.log_prob(paths) + likelihood - posterior.log_prob(paths)
    noise = torch.stack([torch.block_diag(*trial) for trial in information.inverse()])
    expected = MultivariateNormal(
        prior.mean.flatten(1), dense(prior).covariance_matrix + noise
    ).log_prob(observed.flatten(1))
    assert_close(evidence, expected.expand(6, -1), 1e-9)


def test_gradients_reach_every_parameter() -> None:
    path = torch.randn(2, 2, 4, 2)
    other = random_chain(2, 4, 2)

    def answers(dynamics, noise, mean, covariance, offset) -> tuple[Tensor, ...]:
        chain = GaussianMarkovChain.from_dynamics(
            dynamics,
            noise @ noise.mT + torch.eye(2),
            initial_mean=mean,
            initial_covariance=covariance @ covariance.mT + torch.eye(2),
            num_steps=4,
            offset=offset,
            validate_args=False,
        )
        torch.manual_seed(0)
        drawn = chain.rsample((2,))
        divergences = kl(Latent(chain, other, path))[0], kl(Latent(other, chain, path))[0]
        return (drawn, chain.log_prob(path), chain.entropy(), chain.covariance, *divergences)

    shapes = [(2, 2), (2, 2), (2,), (2, 2), (2, 3, 2)]
    assert gradcheck(answers, tuple(torch.randn(shape).requires_grad_() for shape in shapes))


def test_what_is_cached_without_gradients_does_not_lose_them() -> None:
    diagonal = random_covariance(2, 9, 2).requires_grad_()
    chain = GaussianMarkovChain(
        torch.zeros(2, 9, 2), BlockTridiagonal(diagonal, torch.zeros(1, 8, 2, 2))
    )
    with torch.no_grad():
        assert not chain.variance.requires_grad
        chain.log_prob(chain.sample())
    (gradient,) = torch.autograd.grad(chain.entropy().sum() + chain.variance.sum(), diagonal)
    inverse = diagonal.detach().inverse()
    assert_close(gradient, -0.5 * inverse - inverse @ inverse)


def test_a_precision_that_is_not_positive_definite_names_its_trial() -> None:
    chain = random_chain(3, 4, 2)
    chain.precision.diagonal[1, 2] -= 100 * torch.eye(2)
    broken = GaussianMarkovChain(chain.mean, chain.precision, validate_args=True)
    with pytest.raises(ValueError, match="trial 1 is not positive definite"):
        broken.entropy()
    unchecked = GaussianMarkovChain(chain.mean, chain.precision, validate_args=False)
    assert unchecked.entropy().isfinite().tolist() == [True, False, True]
