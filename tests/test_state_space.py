from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.testing import assert_close

from linear import kalman_smoother, random_dynamics, random_model, simulate
from seqvae.distributions import kl
from seqvae.distributions.gaussian_markov_chain import GaussianMarkovChain
from seqvae.state_space import (
    LinearStateSpace,
    Posterior,
    canonical,
    e_steps,
    exact,
    laplace,
    maximize,
    newton,
    path_bound,
    variational,
)
from seqvae.state_space.dynamics import maximize_dynamics, positive
from seqvae.state_space.e_steps import converged
from seqvae.types import Batch, Latent

E_STEPS = {"gaussian": exact, "poisson": variational}


def infer(e_step, model: LinearStateSpace, batch: Batch, **options) -> Posterior:
    prior = model.dynamics.chain(batch.inputs)
    return e_step(prior, model.emission, target=batch.target, weight=batch.weight, **options)


def elbo(model: LinearStateSpace, posterior: Posterior, batch: Batch) -> Tensor:
    prior = model.dynamics.chain(batch.inputs)
    return path_bound(
        posterior, prior, model.emission, target=batch.target, weight=batch.weight
    ).elbo


def log_joint(model: LinearStateSpace, path: Tensor, batch: Batch) -> Tensor:
    """log p(x, z) of each trial from its definition."""
    dynamics, emission = model
    first = MultivariateNormal(dynamics.initial_mean, dynamics.initial_covariance)
    ahead = path[:, :-1] @ dynamics.transition.mT + dynamics.offset
    ahead = ahead + batch.inputs[:, 1:] @ dynamics.input_matrix.mT
    later = MultivariateNormal(ahead, dynamics.noise_covariance, validate_args=False)
    predictor = path @ emission.loadings.mT + emission.bias
    data = torch.distributions.Poisson(predictor.exp(), validate_args=False)
    likelihood = (batch.weight * data.log_prob(batch.target)).sum((1, 2))
    return first.log_prob(path[:, 0]) + later.log_prob(path[:, 1:]).sum(1) + likelihood


@pytest.mark.parametrize("num_bins", [1, 2, 7, 20])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_exact_posterior_is_that_of_the_kalman_smoother(num_bins, missing):
    model = random_model("gaussian", 3, num_inputs=2)
    batch = simulate(model, num_trials=4, num_bins=num_bins, missing=missing)
    posterior = infer(exact, model, batch)
    likelihood = elbo(model, posterior, batch)
    for trial in range(4):
        truth = kalman_smoother(
            model, batch.target[trial], batch.weight[trial], batch.inputs[trial]
        )
        own = 0 if missing == 0 else trial
        for found, wanted in (
            (posterior.mean[trial], truth.mean),
            (posterior.covariance[own], truth.covariance),
            (posterior.cross_covariance[own], truth.cross_covariance),
        ):
            assert_close(found, torch.from_numpy(wanted), rtol=0, atol=1e-9)
        assert float(likelihood[trial]) == pytest.approx(truth.log_likelihood, rel=1e-8)
    assert len(posterior.covariance) == (1 if missing == 0 else 4)


def test_laplace_is_exact_under_a_gaussian_emission():
    model = random_model("gaussian")
    batch = simulate(model, num_trials=3, num_bins=9, missing=0.3)
    assert_close(infer(laplace, model, batch).mean, infer(exact, model, batch).mean)
    torch.testing.assert_close(
        infer(laplace, model, batch).covariance,
        infer(exact, model, batch).covariance,
        rtol=0,
        atol=1e-10,
    )


@pytest.mark.parametrize("num_bins", [1, 2, 15])
def test_laplace_is_at_the_mode_with_the_curvature_there(num_bins):
    model = random_model("poisson", 2, num_inputs=1)
    batch = simulate(model, num_trials=3, num_bins=num_bins, missing=0.2)
    posterior = infer(laplace, model, batch)
    path = posterior.mean.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(log_joint(model, path, batch).sum(), path)
    assert float(gradient.abs().max()) < 1e-8
    one = batch[[0]]
    hessian = torch.autograd.functional.hessian(
        lambda flat: log_joint(model, flat.reshape(1, num_bins, 2), one).sum(),
        posterior.mean[0].flatten(),
    )
    assert_close(posterior.precision.dense()[0], -hessian, rtol=0, atol=1e-9)
    assert float(posterior.logdet[0]) == pytest.approx(float((-hessian).logdet()), rel=1e-10)


def test_log_joint_never_falls_over_newton_steps(monkeypatch):
    model = random_model("poisson")
    batch = simulate(model, num_trials=6, num_bins=20)
    start = 8 * torch.randn(6, 20, 2, dtype=torch.float64)
    reached = [log_joint(model, start, batch)]
    for num_steps in range(1, 16):
        monkeypatch.setattr(newton, "MAX_STEPS", num_steps)
        mode = newton.find_mode(
            model.dynamics.chain(batch.inputs),
            model.emission,
            target=batch.target,
            weight=batch.weight,
            spread=torch.zeros(1, 1, 5, dtype=torch.float64),
            start=start,
        )
        reached.append(log_joint(model, mode.path, batch))
    rises = torch.stack(reached).diff(dim=0)
    assert (rises >= -1e-9 * reached[-1].abs()).all()
    assert_close(mode.path, infer(laplace, model, batch).mean, rtol=0, atol=1e-8)


def test_mode_of_a_trial_does_not_depend_on_the_others():
    model = random_model("poisson")
    batch = simulate(model, num_trials=5, num_bins=12)
    together = converged(
        variational,
        model.dynamics.chain(batch.inputs),
        model.emission,
        target=batch.target,
        weight=batch.weight,
    )
    alone = converged(
        variational,
        model.dynamics.chain(batch.inputs[2:3]),
        model.emission,
        target=batch.target[2:3],
        weight=batch.weight[2:3],
    )
    assert_close(together.mean[2:3], alone.mean, rtol=0, atol=1e-10)
    assert_close(together.covariance[2:3], alone.covariance, rtol=0, atol=1e-10)


def test_variational_posterior_is_stationary_and_bounds_tighter_than_laplace():
    model = random_model("poisson", 2, num_inputs=1)
    batch = simulate(model, num_trials=3, num_bins=10, missing=0.1)
    found = infer(variational, model, batch)
    first = elbo(model, found, batch)
    for _ in range(30):
        found = infer(variational, model, batch, last=found)
    assert (elbo(model, found, batch) >= first - 1e-9).all()
    assert (first > elbo(model, infer(laplace, model, batch), batch)).all()

    def dense_elbo(mean: Tensor, root: Tensor) -> Tensor:
        """The bound of trial 0 from its definition, with any covariance."""
        precision = model.dynamics.chain(batch.inputs).precision.dense()[0]
        covariance = root @ root.mT
        away = mean - model.dynamics.chain(batch.inputs).mean[0].flatten()
        divergence = 0.5 * (
            (precision * covariance).sum()
            + away @ precision @ away
            - precision.logdet()
            - covariance.logdet()
            - len(mean)
        )
        blocks = torch.stack([covariance[t : t + 2, t : t + 2] for t in range(0, len(mean), 2)])
        c = model.emission.loadings
        predictor = mean.reshape(-1, 2) @ c.mT + model.emission.bias
        spread = torch.einsum("ni,tij,nj->tn", c, blocks, c)
        rate = (predictor + 0.5 * spread).exp()
        target = batch.target[0]
        gain = target * predictor - rate - torch.lgamma(target + 1)
        return (batch.weight[0] * gain).sum() - divergence

    mean = found.mean[0].flatten().requires_grad_()
    root = torch.linalg.cholesky(torch.linalg.inv(found.precision.dense()[0])).requires_grad_()
    value = dense_elbo(mean, root)
    assert_close(value.detach(), elbo(model, found, batch)[0], rtol=1e-10, atol=0)
    for gradient in torch.autograd.grad(value, (mean, root)):
        assert float(gradient.abs().max()) < 1e-6


def test_a_precision_that_would_lower_the_bound_is_damped(monkeypatch):
    damped = []
    between = e_steps._between
    monkeypatch.setattr(e_steps, "_between", lambda *a: damped.append(a[-1]) or between(*a))
    # steep loadings: the precision asked for at one covariance overshoots the best one
    model = random_model("poisson", 1, num_neurons=1)
    steep = replace(
        model.emission,
        loadings=torch.full((1, 1), 8.0, dtype=torch.float64),
        bias=torch.full((1,), -3.0, dtype=torch.float64),
    )
    model = model._replace(emission=steep)
    batch = simulate(model, num_trials=8, num_bins=3)
    last, reached = None, []
    for _ in range(40):
        last = infer(variational, model, batch, last=last)
        reached.append(elbo(model, last, batch))
    assert damped
    rises = torch.stack(reached).diff(dim=0)
    assert (rises >= -1e-9 * reached[0].abs()).all()
    assert (rises[0] > 1e-3).any()
    assert_close(reached[-1], reached[-2], rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", E_STEPS)
def test_bound_is_the_one_by_the_divergence_of_chains(kind):
    model = random_model(kind, 2, num_inputs=1)
    batch = simulate(model, num_trials=3, num_bins=8, missing=0.2)
    found = infer(E_STEPS[kind], model, batch)
    prior = model.dynamics.chain(batch.inputs)
    terms = path_bound(found, prior, model.emission, target=batch.target, weight=batch.weight)
    posterior = GaussianMarkovChain(found.mean, found.precision)
    latent = Latent(posterior, prior, posterior.rsample((1,)))
    assert_close(terms.kl, kl(latent)[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", E_STEPS)
def test_a_change_of_coordinates_changes_neither_bound_nor_rates(kind):
    model = random_model(kind, 3, num_inputs=2)
    batch = simulate(model, num_trials=3, num_bins=11, missing=0.2)
    change = torch.randn(3, 3, dtype=torch.float64)
    shift = torch.randn(3, dtype=torch.float64)
    moved = model.transformed(change, shift)
    one, other = (infer(E_STEPS[kind], each, batch) for each in (model, moved))
    assert_close(elbo(moved, other, batch), elbo(model, one, batch), rtol=1e-9, atol=0)
    rates = [
        each.emission.predictor(posterior.mean) + 0.5 * each.emission.spread(posterior.covariance)
        for each, posterior in ((model, one), (moved, other))
    ]
    assert_close(*rates, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", E_STEPS)
def test_masked_neurons_are_dropped_neurons(kind):
    model = random_model(kind)
    batch = simulate(model, num_trials=3, num_bins=10)
    weight = batch.weight.clone()
    weight[..., [1, 3]] = 0
    masked = replace(batch, weight=weight)
    keep = [0, 2, 4]
    fewer = model._replace(emission=model.emission.select(keep))
    dropped = replace(batch, target=batch.target[..., keep], weight=batch.weight[..., keep])
    one, other = infer(E_STEPS[kind], model, masked), infer(E_STEPS[kind], fewer, dropped)
    assert_close(one.mean, other.mean, rtol=0, atol=1e-12)
    assert_close(elbo(model, one, masked), elbo(fewer, other, dropped), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", E_STEPS)
@pytest.mark.parametrize("truncated", [True, False])
def test_trailing_padding_is_a_shorter_trial(kind, truncated):
    model = random_model(kind, 2, num_inputs=1)
    batch = simulate(model, num_trials=3, num_bins=12, lengths=[12, 7, 1])
    prior = model.dynamics.chain(batch.inputs, lengths=batch.lengths if truncated else None)
    given = {"target": batch.target, "weight": batch.weight}
    found = E_STEPS[kind](prior, model.emission, **given)
    bounds = path_bound(found, prior, model.emission, **given).elbo
    for trial, length in enumerate([12, 7, 1]):
        short = Batch(
            *(
                tensor[trial : trial + 1, :length]
                for tensor in (batch.observed, batch.observed_mask, batch.target, batch.weight)
            ),
            batch.inputs[trial : trial + 1, :length],
            torch.tensor([length]),
            torch.tensor([0]),
        )
        alone = infer(E_STEPS[kind], model, short)
        assert_close(found.mean[trial, :length], alone.mean[0], rtol=0, atol=1e-10)
        assert_close(bounds[trial : trial + 1], elbo(model, alone, short), rtol=1e-9, atol=0)


@pytest.mark.parametrize("kind", E_STEPS)
def test_a_trial_without_data_is_the_prior_with_bound_zero(kind):
    model = random_model(kind, 2, num_inputs=1)
    batch = simulate(model, num_trials=2, num_bins=9)
    batch.weight[1] = 0
    found, prior = infer(E_STEPS[kind], model, batch), model.dynamics.chain(batch.inputs)
    assert_close(found.mean[1], prior.mean[1], rtol=0, atol=1e-12)
    assert_close(found.covariance[1], prior.covariance[1], rtol=0, atol=1e-10)
    assert abs(float(elbo(model, found, batch)[1])) < 1e-10


def expected_log_prior(dynamics, posterior: Posterior, batch: Batch) -> Tensor:
    """E_q[log p(z)] of all trials, from its definition."""
    total = torch.zeros((), dtype=torch.float64)
    for trial, length in enumerate(batch.lengths.tolist()):
        for step in range(length):
            mean, covariance = posterior.mean[trial, step], posterior.covariance[trial, step]
            if step == 0:
                away, spread = mean - dynamics.initial_mean, covariance
                scale = dynamics.initial_covariance
            else:
                before, cross = (
                    posterior.covariance[trial, step - 1],
                    posterior.cross_covariance[trial, step - 1],
                )
                a = dynamics.transition
                push = dynamics.input_matrix @ batch.inputs[trial, step] + dynamics.offset
                away = mean - a @ posterior.mean[trial, step - 1] - push
                spread = covariance - a @ cross.mT - cross @ a.mT + a @ before @ a.mT
                scale = dynamics.noise_covariance
            second = spread + torch.outer(away, away)
            total = total - 0.5 * (scale.logdet() + (torch.linalg.inv(scale) * second).sum())
    return total


def test_learned_dynamics_maximise_the_expected_log_prior():
    model = random_model("poisson", 2, num_inputs=2)
    batch = simulate(model, num_trials=4, num_bins=6, lengths=[6, 3, 5, 2], missing=0.1)
    posterior = infer(variational, model, batch)
    learned = maximize_dynamics(
        model.dynamics, posterior, inputs=batch.inputs, time_mask=batch.time_mask
    )
    names = list(vars(learned))
    values = [getattr(learned, name).clone().requires_grad_() for name in names]
    best = expected_log_prior(
        type(learned)(**dict(zip(names, values, strict=True))), posterior, batch
    )
    for gradient in torch.autograd.grad(best, values):
        assert float(gradient.abs().max()) < 1e-8
    assert best > expected_log_prior(model.dynamics, posterior, batch)


def test_with_one_trial_the_initial_covariance_is_held():
    model = random_model("poisson")
    batch = simulate(model, num_trials=1, num_bins=6)
    posterior = infer(variational, model, batch)
    learned = maximize(model, posterior, batch=batch, ridge=1e-3)
    assert torch.equal(learned.dynamics.initial_covariance, model.dynamics.initial_covariance)
    assert_close(learned.dynamics.initial_mean, posterior.mean[0, 0])


def test_with_one_bin_the_transition_stays():
    model = random_model("poisson")
    batch = simulate(model, num_trials=5, num_bins=1)
    posterior = infer(variational, model, batch)
    learned = maximize(model, posterior, batch=batch, ridge=1e-3).dynamics
    for name in ("transition", "offset", "noise_covariance"):
        assert torch.equal(getattr(learned, name), getattr(model.dynamics, name))


@pytest.mark.parametrize("kind", E_STEPS)
def test_readout_steps_rise_to_where_the_gradient_is_zero(kind):
    model = random_model(kind)
    batch = simulate(model, num_trials=4, num_bins=10, missing=0.2)
    posterior = infer(E_STEPS[kind], model, batch)
    ridge = 0.3

    def expected(emission) -> Tensor:
        mean, spread = emission.predictor(posterior.mean), emission.spread(posterior.covariance)
        value = emission.terms(batch.target, mean, spread).value + emission.constant(batch.target)
        return (batch.weight * value).sum() - emission.penalty(ridge)

    emission, reached = model.emission, [expected(model.emission)]
    for _ in range(12):
        emission = emission.maximized(
            posterior, target=batch.target, weight=batch.weight, ridge=ridge
        )
        reached.append(expected(emission))
    assert (torch.stack(reached).diff() >= -1e-9 * reached[-1].abs()).all()
    names = [name for name in ("loadings", "bias", "std") if hasattr(emission, name)]
    values = [getattr(emission, name).clone().requires_grad_() for name in names]
    best = expected(replace(emission, **dict(zip(names, values, strict=True))))
    for gradient in torch.autograd.grad(best, values):
        assert float(gradient.abs().max()) < 1e-7


def test_neurons_are_learned_in_chunks_as_at_once(monkeypatch):
    from seqvae.state_space import emissions

    model = random_model("poisson")
    batch = simulate(model, num_trials=4, num_bins=10)
    posterior = infer(variational, model, batch)
    given = {"target": batch.target, "weight": batch.weight, "ridge": 1e-3}
    whole = model.emission.maximized(posterior, **given)
    monkeypatch.setattr(emissions, "ENTRIES_AT_ONCE", 1)
    parts = model.emission.maximized(posterior, **given)
    assert_close(parts.loadings, whole.loadings, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", E_STEPS)
@pytest.mark.parametrize("num_bins", [1, 2, 30])
def test_canonical_form_is_one_for_all_coordinates(kind, num_bins):
    model = random_model(kind, 3, num_inputs=1)
    batch = simulate(model, num_trials=3, num_bins=num_bins)
    form = canonical(model, num_bins)
    change, shift = torch.randn(3, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    same = canonical(model.transformed(change, shift), num_bins)
    for part, twin in zip(form, same, strict=True):
        for name, value in vars(part).items():
            if isinstance(value, Tensor):
                assert_close(getattr(twin, name), value, rtol=0, atol=1e-8)
    prior = form.dynamics.chain(torch.zeros_like(batch.inputs))
    assert_close(prior.mean[0].mean(0), torch.zeros(3).double(), rtol=0, atol=1e-12)
    assert_close(prior.covariance[0].mean(0), torch.eye(3).double(), rtol=0, atol=1e-10)
    square = form.emission.loadings.mT @ form.emission.loadings
    assert_close(square, square.diagonal().diag(), rtol=0, atol=1e-12)
    assert (square.diagonal().diff() < 0).all()
    one, other = (infer(E_STEPS[kind], each, batch) for each in (model, form))
    assert_close(elbo(form, other, batch), elbo(model, one, batch), rtol=1e-9, atol=0)


def test_jitter_is_added_to_the_failed_trial_only_and_told():
    prior = random_dynamics(2).chain(torch.zeros(1, 5, 0, dtype=torch.float64))
    diagonal = prior.precision.diagonal.repeat(2, 1, 1, 1)
    diagonal[1, 2] = torch.tensor([[1.0, 1.0], [1.0, 1.0]]).double() * diagonal[1, 2, 0, 0] * 5
    diagonal[1, 2, 0, 0] -= 1e-9
    singular = replace(prior.precision, diagonal=diagonal, lower=0 * prior.precision.lower)
    with pytest.warns(UserWarning, match="1 posterior precisions were not positive definite"):
        factor = newton.factorize_surely(singular)
    assert factor.positive_definite.all()
    assert torch.equal(factor.matrix.diagonal[0], diagonal[0])


def test_positive_leaves_a_good_covariance_alone():
    good = random_dynamics(3).noise_covariance
    assert torch.equal(positive(good), (good + good.mT) / 2)
    bad = torch.diag(torch.tensor([1.0, -0.1, 0.0])).double()
    assert (torch.linalg.eigvalsh(positive(bad)) >= 0.99e-9).all()
