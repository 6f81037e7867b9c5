"""Models that are linear and Gaussian have an exact marginal likelihood to hold the bounds to."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from seqvae.encoders import MLP, NormalHead, TrialGRU
from seqvae.generators import Generator
from seqvae.models import VAE, SequentialVAE
from seqvae.objectives import bound, importance_weighted_bound
from seqvae.observations import Gaussian
from seqvae.priors import AR1, StandardNormal
from seqvae.types import Batch, Output
from toy import scramble, toy_batch, toy_spec

LATENT_DIM, NUM_NEURONS = 2, 5


@pytest.fixture(autouse=True)
def double_precision_and_seed() -> object:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def linear_vae(*, num_forecast_bins: int = 0, num_time_bins: int = 4, prior=StandardNormal) -> VAE:
    """x_t = C z_t + b + noise, with columns of C that the noise keeps orthogonal.

    The decoder passes z on. The encoder is linear, with a constant standard deviation.
    """
    spec = toy_spec(
        num_neurons=NUM_NEURONS, num_time_bins=num_time_bins, num_forecast_bins=num_forecast_bins
    )
    model = VAE(
        spec,
        latent_dim=LATENT_DIM,
        factor_dim=LATENT_DIM,
        dropout=0.0,
        encoder=partial(MLP, hidden_dims=()),
        prior=prior,
        observation=partial(Gaussian, min_std=0.0),
    )
    model.decoder = torch.nn.Identity()
    noise_std = 0.5 + torch.rand(NUM_NEURONS)
    basis, _ = torch.linalg.qr(torch.randn(NUM_NEURONS, LATENT_DIM))
    loading = noise_std[:, None] * basis * torch.tensor([1.5, 0.8])
    with torch.no_grad():
        model.observation.readout.weight.copy_(loading)
        model.observation.readout.bias.normal_()
        model.observation.log_std.copy_(noise_std.log())
    set_posterior(model, 0.3 * torch.randn(LATENT_DIM, NUM_NEURONS), torch.rand(LATENT_DIM) + 0.3)
    return model.eval()


def set_posterior(model: VAE, gain: Tensor, std: Tensor) -> None:
    """Make q(z_t | x_t) = N(gain (x_t - b), std^2)."""
    head = model.encoder.head
    with torch.no_grad():
        head.linear.weight.copy_(torch.cat([gain, torch.zeros_like(gain)]))
        raw_std = torch.expm1(std - head.min_std).log()
        head.linear.bias.copy_(torch.cat([-gain @ model.observation.readout.bias, raw_std]))


def parts(model: VAE) -> tuple[Tensor, Tensor, Tensor]:
    """C, b and the variance of the noise."""
    readout = model.observation.readout
    return readout.weight, readout.bias, model.observation.std.square()


def exact_posterior(model: VAE) -> tuple[Tensor, Tensor]:
    """Gain and standard deviation of p(z_t | x_t) under the standard normal prior."""
    loading, _, variance = parts(model)
    covariance = torch.linalg.inv(torch.eye(LATENT_DIM) + loading.T / variance @ loading)
    torch.testing.assert_close(covariance, torch.diag(covariance.diagonal()))
    return covariance @ loading.T / variance, covariance.diagonal().sqrt()


def example(model: VAE, *, num_trials: int = 6, lengths: list[int] | None = None) -> Batch:
    return toy_batch(model.spec, num_trials=num_trials, lengths=lengths, data_kind="real")


def joint(model: VAE, num_bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Covariance of z_1..T, loading from it to x_1..T, and variance of the noise of x_1..T."""
    loading, _, variance = parts(model)
    prior = model.prior((num_bins, LATENT_DIM), model.spec.bin_width)
    if isinstance(model.prior, AR1):
        lag = (torch.arange(num_bins)[:, None] - torch.arange(num_bins)).abs()[..., None]
        per_latent = prior.stationary_std.square() * prior.decay**lag
        covariance = torch.einsum("stk,kl->sktl", per_latent, torch.eye(LATENT_DIM))
        covariance = covariance.reshape(num_bins * LATENT_DIM, -1)
    else:
        covariance = torch.eye(num_bins * LATENT_DIM)
    return covariance, torch.block_diag(*[loading] * num_bins), variance.repeat(num_bins)


def log_marginal(model: VAE, batch: Batch) -> Tensor:
    """log p of the observed entries of each trial, a multivariate normal density."""
    values = []
    for i, length in enumerate(batch.lengths.tolist()):
        covariance, loading, variance = joint(model, length)
        seen = batch.weight[i, :length].flatten() > 0
        marginal = loading @ covariance @ loading.T + torch.diag(variance)
        mean = parts(model)[1].repeat(length)
        density = MultivariateNormal(mean[seen], marginal[seen][:, seen])
        values.append(density.log_prob(batch.target[i, :length].flatten()[seen]))
    return torch.stack(values).detach()


@torch.no_grad()
def answer(model: VAE | SequentialVAE, batch: Batch, num_samples: int) -> Output:
    return model(batch, num_samples)


def assert_mean_is(samples: Tensor, expected: Tensor) -> None:
    """The mean over the first axis is the expected value within five standard errors."""
    error = 5 * samples.std(0) / len(samples) ** 0.5 + 1e-9
    assert ((samples.mean(0) - expected).abs() <= error).all()


def elbo_samples(model: VAE, batch: Batch, num_samples: int = 4000) -> Tensor:
    """The bound by single samples, (sample, batch)."""
    output = answer(model, batch, num_samples)
    likelihood = (batch.weight * output.emission.log_prob(batch.target)).sum((2, 3))
    samples = likelihood - sum(bound(output, batch).kl.values())
    torch.testing.assert_close(samples.mean(0), bound(output, batch).elbo())
    return samples


def test_bound_is_below_the_marginal_by_the_kl_to_the_exact_posterior():
    model = linear_vae()
    batch = example(model)
    gain, std = exact_posterior(model)
    posterior = answer(model, batch, 1).latents["latent"].posterior
    centred = batch.observed - parts(model)[1]
    exact = torch.distributions.Normal(centred @ gain.T, std)
    gap = kl_divergence(posterior, exact).sum((1, 2)).detach()
    assert (gap > 0.1).all()
    assert_mean_is(elbo_samples(model, batch), log_marginal(model, batch) - gap)


def test_bound_is_the_marginal_where_the_posterior_is_exact():
    model = linear_vae()
    batch = example(model, lengths=[4, 1, 3, 4, 2, 4])
    set_posterior(model, *exact_posterior(model))
    expected = log_marginal(model, batch)
    assert_mean_is(elbo_samples(model, batch), expected)
    # then every importance weight is p(x) itself: no Monte Carlo error is left
    for _ in range(3):
        value = importance_weighted_bound(answer(model, batch, 1), batch)
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9)


def test_importance_weights_tighten_the_bound_and_stay_below():
    model = linear_vae()
    gain, std = exact_posterior(model)
    set_posterior(model, 0.4 * gain, 1.2 * std)
    batch = example(model, num_trials=200)
    expected = log_marginal(model, batch)
    found = [
        torch.stack(
            [importance_weighted_bound(answer(model, batch, k), batch) for _ in range(10)]
        ).mean(0)
        for k in (1, 4, 16, 64)
    ]
    for looser, tighter in pairwise(found):
        gain = tighter - looser
        assert gain.mean() > 3 * gain.std() / len(gain) ** 0.5
    gap = expected - found[-1]
    assert gap.mean() > -3 * gap.std() / len(gap) ** 0.5
    assert gap.mean() < 0.2 * (expected - found[0]).mean()


@pytest.mark.parametrize("num_forecast_bins", [0, 2])
@pytest.mark.parametrize("prior", [StandardNormal, AR1], ids=["normal", "ar1"])
def test_bound_holds_with_padding_missing_entries_and_forecast(prior, num_forecast_bins: int):
    if prior is AR1:
        prior = partial(AR1, time_constant=0.05, std=0.8)
    model = linear_vae(prior=prior, num_forecast_bins=num_forecast_bins)
    # wider than the exact posterior, as importance sampling needs it
    set_posterior(model, 0.8 * exact_posterior(model)[0], torch.ones(LATENT_DIM))
    batch = example(model, lengths=[4, 1, 3, 4, 2, 4])
    batch.weight[:, 0, 2] = 0
    batch.weight[0, 1] = 0
    expected = log_marginal(model, batch)
    elbo = elbo_samples(model, batch)
    assert (elbo.mean(0) < expected + 5 * elbo.std(0) / len(elbo) ** 0.5).all()
    tight = importance_weighted_bound(answer(model, batch, 50_000), batch)
    torch.testing.assert_close(tight, expected, rtol=0, atol=0.25)


def test_bound_under_a_chain_is_below_by_the_kl_to_the_exact_posterior():
    model = linear_vae(prior=partial(AR1, time_constant=0.05, std=0.8), num_time_bins=5)
    batch = example(model)
    covariance, loading, variance = joint(model, 5)
    precision = torch.linalg.inv(covariance) + loading.T / variance @ loading
    centred = (batch.target - parts(model)[1]).flatten(1)
    mean = torch.linalg.solve(precision, loading.T @ (centred / variance).T).T
    exact = MultivariateNormal(mean, precision_matrix=precision)
    posterior = answer(model, batch, 1).latents["latent"].posterior
    factorised = MultivariateNormal(
        posterior.mean.flatten(1), torch.diag_embed(posterior.variance.flatten(1))
    )
    gap = kl_divergence(factorised, exact).detach()
    assert_mean_is(elbo_samples(model, batch), log_marginal(model, batch) - gap)


class LinearGenerator(Generator):
    """g_t = A g_{t-1} + B [u_t, v_t]."""

    def __init__(self, input_dim: int, state_dim: int) -> None:
        super().__init__()
        self.drive = torch.nn.Linear(input_dim, state_dim, bias=False)
        self.recurrent = torch.nn.Linear(state_dim, state_dim, bias=False)

    def forward(self, inputs: Tensor, state: Tensor) -> Tensor:
        return self.recurrent(state) + self.drive(inputs)

    @property
    def recurrent_kernels(self) -> list[Tensor]:
        return [self.recurrent.weight]


def linear_sequential_vae(*, num_forecast_bins: int) -> SequentialVAE:
    """All Gaussian but for the controller, which shapes the posterior and not the model."""
    spec = toy_spec(
        num_neurons=3, num_time_bins=4, num_inputs=1, num_forecast_bins=num_forecast_bins
    )
    model = SequentialVAE(
        spec,
        factor_dim=2,
        generator_dim=3,
        initial_condition_dim=2,
        inferred_input_dim=1,
        controller_dim=4,
        controller_encoder_dim=4,
        dropout=0.0,
        state_clip=math.inf,
        encoder=partial(TrialGRU, hidden_dim=4, head=partial(NormalHead, initial_std=1.2)),
        generator=LinearGenerator,
        inferred_input_prior=partial(AR1, time_constant=0.05, std=0.5),
        observation=Gaussian,
    )
    scramble(model, size=0.15)
    with torch.no_grad():  # wider than the exact posterior, as importance sampling needs it
        model.decoder.posterior.bias[1] = math.log(math.expm1(0.6))
    return model.eval()


def log_marginal_of_sequence(model: SequentialVAE, batch: Batch) -> Tensor:
    """Density of x_1..T, from the map of (initial condition, u, external inputs) to means."""
    num_bins, kernel = batch.target.shape[1], model.decoder.factors.weight
    kernel = kernel / kernel.norm(dim=1, keepdim=True)
    generator, readout = model.generator, model.observation.readout

    def mean(latents: Tensor, external: Tensor) -> Tensor:
        state = model.initial_state(latents[:2])
        means = []
        for t in range(num_bins):
            drive = torch.cat([latents[2 + t : 3 + t], external[t]])
            state = generator.recurrent.weight @ state + generator.drive.weight @ drive
            means.append(readout.weight @ (kernel @ state) + readout.bias)
        return torch.cat(means)

    start = model.initial_condition_prior((2,), 0.02)
    chain = model.inferred_input_prior((num_bins, 1), 0.02)
    lag = (torch.arange(num_bins)[:, None] - torch.arange(num_bins)).abs()
    covariance = torch.block_diag(
        torch.diag(start.variance), chain.stationary_std**2 * chain.decay**lag
    )
    centre = torch.cat([start.mean, torch.zeros(num_bins)])
    values = []
    for i in range(len(batch)):
        jacobian = torch.autograd.functional.jacobian(
            partial(mean, external=batch.inputs[i]), centre
        )
        noise = torch.diag(model.observation.std.square().repeat(num_bins))
        density = MultivariateNormal(
            mean(centre, batch.inputs[i]), jacobian @ covariance @ jacobian.T + noise
        )
        seen = batch.target[i].flatten()
        values.append(density.log_prob(seen))
    return torch.stack(values).detach()


@pytest.mark.parametrize("num_forecast_bins", [0, 2])
def test_sequential_bound_is_below_the_marginal_and_its_weights_reach_it(num_forecast_bins: int):
    model = linear_sequential_vae(num_forecast_bins=num_forecast_bins)
    batch = toy_batch(model.spec, num_trials=5, data_kind="real")
    expected = log_marginal_of_sequence(model, batch)
    one = torch.stack([bound(answer(model, batch, 1000), batch).elbo() for _ in range(10)])
    assert (one.mean(0) < expected).all()
    tight = importance_weighted_bound(answer(model, batch, 100_000), batch)
    torch.testing.assert_close(tight, expected, rtol=0, atol=0.06)


def test_learning_a_linear_vae_finds_the_best_marginal_likelihood():
    """The maximum of probabilistic PCA is known in closed form (Tipping & Bishop 1999)."""
    truth = linear_vae(num_time_bins=1)
    with torch.no_grad():
        truth.observation.log_std.fill_(math.log(0.6))
        loading, bias, variance = parts(truth)
        latent = torch.randn(1500, 1, LATENT_DIM)
        activity = latent @ loading.T + bias + variance.sqrt() * torch.randn(1500, 1, NUM_NEURONS)
    batch = toy_batch(truth.spec, num_trials=1500, data_kind="real")
    batch = Batch(**{**vars(batch), "target": activity, "observed": activity})
    model = linear_vae(num_time_bins=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.998)
    for _ in range(900):
        optimizer.zero_grad()
        (-bound(model(batch, 2), batch).elbo().mean()).backward()
        optimizer.step()
        schedule.step()
    elbo = bound(answer(model, batch, 20), batch).elbo().mean()
    values = activity[:, 0]
    residual = values - values.mean(0)
    variances = torch.linalg.eigvalsh(residual.T @ residual / len(values)).flip(0)
    rest = variances[LATENT_DIM:].mean()
    log_determinant = variances[:LATENT_DIM].log().sum() + rest.log() * (NUM_NEURONS - LATENT_DIM)
    best = -0.5 * (NUM_NEURONS * math.log(2 * math.pi) + log_determinant + NUM_NEURONS)
    assert best - 0.02 < elbo < best + 0.02
