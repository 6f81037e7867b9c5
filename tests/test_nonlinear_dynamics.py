"""Nonlinear dynamics: densities, derivatives, and inference against the linear models."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from seqvae.data import NeuralData
from seqvae.data.sources import SimulatedLinearDynamics
from seqvae.distributions import GaussianMarkovChain, NonlinearMarkovChain, kl_terms, log_ratio
from seqvae.errors import InputError
from seqvae.models import LinearDynamics, NonlinearDynamics
from seqvae.nn.smooth import SmoothMLP
from seqvae.objectives import bound
from seqvae.observations import (
    Bernoulli,
    Gaussian,
    GeneralizedLinear,
    NegativeBinomial,
    Poisson,
    ZeroInflatedGamma,
)
from seqvae.types import Batch, Latent
from toy import scramble, toy_batch, toy_spec, wrong_slopes

DIM, STEPS, TRIALS = 2, 5, 3
SPEC = toy_spec(heldout=(1, 4), num_inputs=2)
READERS = [
    Poisson,
    partial(Poisson, link="softplus"),
    NegativeBinomial,
    partial(NegativeBinomial, link="softplus"),
    Bernoulli,
    Gaussian,
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def covariance() -> Tensor:
    root = torch.eye(DIM).double() + 0.3 * torch.randn(DIM, DIM).double()
    return root @ root.mT


def linear_pair() -> tuple[NonlinearMarkovChain, GaussianMarkovChain]:
    """The same linear dynamics, told twice."""
    transition, offset = 0.4 * torch.randn(DIM, DIM).double(), torch.randn(TRIALS, STEPS - 1, DIM)
    noise, initial, mean = covariance(), covariance(), torch.randn(DIM).double()
    chain = GaussianMarkovChain.from_dynamics(
        transition,
        noise,
        initial_mean=mean,
        initial_covariance=initial,
        num_steps=STEPS,
        offset=offset.double(),
    )
    function = NonlinearMarkovChain(
        lambda path: path @ transition.mT,
        offset.double(),
        noise_covariance=noise,
        initial_mean=mean,
        initial_covariance=initial,
    )
    return function, chain


def nonlinear_prior() -> NonlinearMarkovChain:
    return NonlinearMarkovChain(
        lambda path: torch.sin(2 * path),
        torch.zeros(TRIALS, STEPS - 1, DIM).double(),
        noise_covariance=covariance(),
        initial_mean=torch.zeros(DIM).double(),
        initial_covariance=covariance(),
    )


def some_posterior() -> GaussianMarkovChain:
    _, chain = linear_pair()
    more = torch.eye(DIM).double() * torch.rand(TRIALS, STEPS, 1, 1).double()
    return GaussianMarkovChain(chain.mean, chain.precision.plus_diagonal(more))


def test_density_of_linear_transitions_is_that_of_the_gaussian_chain() -> None:
    function, chain = linear_pair()
    path = torch.randn(4, TRIALS, STEPS, DIM).double()
    assert_close(function.log_prob_terms(path), chain.log_prob_terms(path))


def test_linearized_prior_is_the_gaussian_chain_of_its_steps() -> None:
    transitions = 0.4 * torch.randn(TRIALS, STEPS - 1, DIM, DIM).double()
    drift, offset = torch.randn(2, TRIALS, STEPS - 1, DIM).double()
    settings = {"initial_mean": torch.randn(DIM).double(), "initial_covariance": covariance()}
    noise = covariance()
    chain = GaussianMarkovChain.from_dynamics(
        transitions, noise, num_steps=STEPS, offset=drift + offset, **settings
    )
    prior = NonlinearMarkovChain(torch.sin, offset, noise_covariance=noise, **settings)
    precision, information = prior.linearized(transitions.mT, drift)
    assert_close(precision.dense(), chain.precision.dense())
    assert_close(information, chain.precision.matvec(chain.mean))
    shared, of_each = prior.linearized(transitions[:1].mT, drift[:1])
    assert len(shared.diagonal) == 1
    assert_close(of_each[0], information[0])


def test_draws_have_the_moments_of_the_gaussian_chain() -> None:
    function, chain = linear_pair()
    draws = function.rsample(torch.Size((20_000,)))
    error = draws.std(0) / 20_000**0.5
    assert ((draws.mean(0) - chain.mean).abs() < 5 * error).all()
    variance = chain.variance.expand(TRIALS, STEPS, DIM)
    assert ((draws.var(0) / variance - 1).abs() < 5 * (2 / 20_000) ** 0.5).all()


def test_divergence_on_the_path_has_the_mean_of_the_closed_form() -> None:
    function, chain = linear_pair()
    posterior = some_posterior()
    path = posterior.rsample(torch.Size((4000,)))
    terms = kl_terms(Latent(posterior, function, path))
    truth = kl_terms(Latent(posterior, chain, path))
    error = terms.std(0) / 4000**0.5 + 1e-9
    assert ((terms.mean(0) - truth.mean(0)).abs() < 5 * error).all()


def test_divergence_from_a_nonlinear_chain_is_the_mean_log_ratio_with_less_noise() -> None:
    posterior, prior = some_posterior(), nonlinear_prior()
    latent = Latent(posterior, prior, posterior.rsample(torch.Size((20_000,))))
    divergence, ratio = kl_terms(latent).sum(-1), log_ratio(latent)
    error = (ratio - divergence).std(0) / 20_000**0.5
    assert ((divergence.mean(0) - ratio.mean(0)).abs() < 5 * error).all()
    assert (divergence.std(0) < ratio.std(0)).all()


def test_divergence_of_a_chain_from_itself_is_zero() -> None:
    function, chain = linear_pair()
    path = chain.rsample(torch.Size((3,)))
    terms = kl_terms(Latent(GaussianMarkovChain(chain.mean, chain.precision), function, path))
    assert_close(terms, torch.zeros_like(terms), atol=1e-10, rtol=0)


def test_network_tells_its_derivative() -> None:
    network = SmoothMLP((3, 5, 4), dropout=0.5).double().eval()
    points = torch.randn(2, 6, 3).double()
    value, slopes = network.linearized(points)
    assert_close(value, network(points))
    truth = torch.func.vmap(torch.func.vmap(torch.func.jacrev(network)))(points)
    assert_close(slopes, truth.mT)


@pytest.mark.parametrize("reader", READERS)
def test_score_and_information_are_those_of_the_density(reader: type[GeneralizedLinear]) -> None:
    observation = reader(2, 4).double()
    neurons = [2, 0]
    factors = torch.randn(7, 2).double()
    weight, bias = observation.loadings_of(neurons)
    predictor = factors @ weight.mT + bias
    response = observation.response(predictor, neurons)
    emission = observation(factors)
    assert_close(response.mean, emission.mean[:, neurons])
    assert_close(response.variance.expand(7, 2), emission.variance[:, neurons])
    assert_close(observation.predictor_of(response.mean, neurons), predictor)
    values = emission.sample()
    with torch.enable_grad():
        shifted = observation.readout.bias.detach().clone().requires_grad_()
        restored = observation.readout.bias
        observation.readout.bias = torch.nn.Parameter(shifted)
        total = observation(factors).log_prob(values).sum(0)[neurons]
        slopes = torch.autograd.grad(total.sum(), observation.readout.bias)[0][neurons]
        observation.readout.bias = restored
    assert_close(response.score(values[:, neurons]).sum(0), slopes)
    draws = observation(factors).sample((40_000,))[..., neurons]
    scores = response.score(draws)
    error = scores.square().std(0) / 200 + 1e-9
    assert ((scores.square().mean(0) - response.information).abs() < 6 * error).all()


def linear_twin(observation: type, **options: object) -> tuple[NonlinearDynamics, LinearDynamics]:
    """Linear dynamics and a linear readout, in both classes."""
    linear = LinearDynamics(SPEC, latent_dim=DIM, observation=observation, **options)
    scramble(linear, size=0.3)
    model = NonlinearDynamics(
        SPEC,
        latent_dim=DIM,
        dynamics_dims=(),
        decoder_dims=(),
        linearizations=12,
        observation=observation,
    ).double()
    model.begin_from(linear)
    return model.eval(), linear.eval()


def example(kind: str = "counts", **options: object) -> Batch:
    batch = toy_batch(SPEC, data_kind=kind, lengths=[8, 3, 6, 8], **options)
    return batch.to(torch.zeros((), dtype=torch.float64))


def test_posterior_of_a_linear_gaussian_model_is_exact() -> None:
    model, linear = linear_twin(Gaussian)
    model.linearizations = 1
    batch = example("real")
    ours, truth = (m(batch).latents["latents"].posterior for m in (model, linear))
    assert_close(ours.mean, truth.mean)
    assert_close(ours.covariance, truth.covariance)


def test_posterior_of_linear_counts_is_that_of_laplace() -> None:
    model, linear = linear_twin(Poisson, inference="laplace")
    batch = example()
    ours, truth = (m(batch).latents["latents"].posterior for m in (model, linear))
    assert_close(ours.mean, truth.mean, atol=1e-6, rtol=0)
    assert_close(ours.covariance, truth.covariance, atol=1e-6, rtol=0)


def nonlinear(**options: object) -> NonlinearDynamics:
    model = NonlinearDynamics(SPEC, latent_dim=DIM, **options).double()
    scramble(model, size=0.1)
    return model.eval()


@pytest.mark.parametrize("observation", [Poisson, NegativeBinomial, Bernoulli])
def test_iterated_linearisation_ends_at_the_most_likely_path(observation: type) -> None:
    model = nonlinear(linearizations=40, observation=observation)
    batch = example(observation(1, 1).kind.name)
    path = model(batch).latents["latents"].posterior.mean.detach().requires_grad_()
    (slope,) = torch.autograd.grad(log_joint(model, path, batch).sum(), path)
    assert float(slope.abs().max()) < 1e-5


def log_joint(model: NonlinearDynamics, path: Tensor, batch: Batch) -> Tensor:
    """Return log p(x, z) of each trial, x what inference sees."""
    emission = model.emission_given({"latents": path[None]}, batch)
    seen = batch.observed_mask
    terms = emission.log_prob(batch.target)[0][:, : seen.shape[1]][..., list(SPEC.heldin)]
    prior = model(batch).latents["latents"].prior
    return torch.where(seen, terms, 0.0).sum((1, 2)) + prior.log_prob(path)


@pytest.mark.parametrize("seed", range(4))
def test_no_linearisation_is_about_a_less_likely_path_than_the_one_before(seed: int) -> None:
    torch.manual_seed(seed)
    model = NonlinearDynamics(SPEC, latent_dim=DIM, linearizations=4).double()
    scramble(model, size=0.7)  # where whole steps overshoot
    batch, paths = example(), []
    solve = model.eval()._solved

    def recording(prior: object, path: Tensor, *rest: object, **options: object) -> object:
        paths.append(path)
        return solve(prior, path, *rest, **options)

    model._solved = recording  # type: ignore[method-assign]
    model(batch)
    model._solved = solve  # type: ignore[method-assign]
    joint = torch.stack([log_joint(model, path.expand(4, -1, -1), batch) for path in paths])
    assert len(joint) == 5
    assert (joint.diff(dim=0) >= -1e-9).all()
    assert (joint[-1] > joint[0]).any()


def test_no_answer_is_less_likely_than_the_origin_where_inference_begins() -> None:
    batch, num_damped = example(), 0
    for seed in range(6):
        torch.manual_seed(seed)
        model = NonlinearDynamics(SPEC, latent_dim=DIM).double().eval()
        scramble(model, size=1.0)
        solved, solve = [], model._solved

        def recording(*given: object, solve=solve, solved=solved, **options: object) -> object:
            solved.append(solve(*given, **options))
            return solved[-1]

        model._solved = recording  # type: ignore[method-assign]
        posterior = model(batch).latents["latents"].posterior
        model._solved = solve  # type: ignore[method-assign]
        origin = log_joint(model, torch.zeros_like(posterior.mean), batch)
        bare, kept = (log_joint(model, one.mean, batch) for one in (solved[-1], posterior))
        is_fine = bare >= origin
        assert (kept >= origin - 1e-9).all()
        assert_close(posterior.mean[is_fine], solved[-1].mean[is_fine], rtol=0, atol=0)
        assert_close(posterior.precision.diagonal, solved[-1].precision.diagonal, rtol=0, atol=0)
        (posterior.rsample() ** 2).sum().backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        num_damped += int((~is_fine).sum())
    assert num_damped > 2  # the bare answer would have been


def test_two_linearisations_are_near_the_most_likely_path_of_learned_dynamics() -> None:
    source = SimulatedLinearDynamics(latent_dim=2, num_trials=20, num_val=4, num_time_bins=20)
    data = NeuralData(source)
    model = NonlinearDynamics(data.spec, latent_dim=2)
    model.initialize(data)
    batch, paths = data.batch(data.trials("train")), []
    for model.linearizations in (2, 20):
        paths.append(model.eval()(batch).latents["latents"].posterior)
    near, truth = paths
    deviations = (near.mean - truth.mean) / truth.variance.sqrt()
    assert float(deviations.detach().abs().max()) < 0.1


@pytest.mark.parametrize("observation", READERS[:4])
def test_log_rates_begin_at_those_of_the_linear_model(observation: type) -> None:
    linear = LinearDynamics(SPEC, latent_dim=DIM)
    scramble(linear, size=0.3)
    model = NonlinearDynamics(
        SPEC, latent_dim=DIM, decoder_dims=(), observation=observation
    ).double()
    model.begin_from(linear)

    def log_rates(latent: Tensor) -> Tensor:
        path = latent.expand(1, 1, 1, DIM)
        return model.emission_given({"latents": path}, example()).mean.log().flatten()

    emission, origin = linear.state_space.emission, torch.zeros(DIM).double()
    assert_close(log_rates(origin), emission.bias)
    assert_close(torch.func.jacrev(log_rates)(origin), emission.loadings)


def test_learning_begins_at_linear_dynamics_of_the_data() -> None:
    source = SimulatedLinearDynamics(latent_dim=2, num_trials=20, num_val=4, num_time_bins=20)
    data = NeuralData(source)
    models = [NonlinearDynamics(data.spec, latent_dim=2, em_iterations=number) for number in (0, 2)]
    for model in models:
        model.initialize(data)
    batch = data.batch(data.trials("val"))
    before, after = (bound(model(batch, 20), batch).elbo().mean() for model in models)
    assert after > before + 10


def test_slope_of_the_bound_is_that_of_finite_differences() -> None:
    """Linear and Gaussian, as the posterior is then exact, whatever it is linearised about."""
    model = NonlinearDynamics(
        SPEC, latent_dim=DIM, dynamics_dims=(), decoder_dims=(), observation=Gaussian
    ).double()
    scramble(model)
    batch = toy_batch(SPEC, data_kind="real")

    def total() -> Tensor:
        torch.manual_seed(1)
        return bound(model.eval()(batch, 2), batch).elbo().sum()

    assert wrong_slopes(model, total) == {}


def test_blocks_of_bins_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch, slopes = nonlinear(), example(), []
    for size in (1, 512):
        monkeypatch.setattr("seqvae.models.nonlinear_dynamics.BLOCK_BINS", size)
        torch.manual_seed(1)
        model.zero_grad()
        bound(model(batch), batch).elbo().sum().backward()
        slopes.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert len(slopes[0]) > 10
    assert_close(*slopes)


def test_what_is_first_asked_without_gradients_does_not_lose_them() -> None:
    prior = nonlinear_prior()
    noise = prior.noise_covariance.requires_grad_()
    path = torch.randn(TRIALS, STEPS, DIM).double()
    with torch.no_grad():
        prior.log_prob(path)
    (gradient,) = torch.autograd.grad(prior.log_prob(path).sum(), noise)
    moves = (path - prior.expected(path))[:, 1:].flatten(0, 1)
    inverse = noise.detach().inverse()
    assert_close(gradient, 0.5 * inverse @ (moves.mT @ moves) @ inverse - len(moves) / 2 * inverse)


def test_an_observation_model_with_two_predictors_is_refused() -> None:
    with pytest.raises(InputError, match="one predictor a neuron"):
        NonlinearDynamics(SPEC, observation=ZeroInflatedGamma)


@pytest.mark.parametrize("option", ["latent_dim", "linearizations"])
def test_a_size_of_zero_is_refused(option: str) -> None:
    with pytest.raises(InputError, match=f"{option} must be at least 1, got 0"):
        NonlinearDynamics(SPEC, **{option: 0})
