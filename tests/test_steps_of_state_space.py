from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize
from torch.testing import assert_close

from linear import random_dynamics, random_model, simulate
from seqvae.state_space import (
    GaussianEmission,
    PoissonEmission,
    estimate_log_evidence,
    laplace,
    variational,
)
from seqvae.state_space.dynamics import PathMoments, maximize_dynamics
from seqvae.state_space.e_steps import converged
from seqvae.state_space.particle_filter import Proposal


def known_path(num_trials: int, num_bins: int, size: int = 2) -> PathMoments:
    """Paths that are known without error: a readout is then a plain regression on them."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.randn(num_trials, num_bins, size, generator=generator, dtype=torch.float64)
    none = mean.new_zeros(1, num_bins, size, size)
    return PathMoments(mean, none, none[:, 1:])


@pytest.mark.parametrize("bias", [-6.0, 6.0], ids=["rates-far-too-low", "rates-far-too-high"])
def test_poisson_readout_steps_reach_the_regression_of_scipy_from_afar(bias):
    """From far too low rates a whole Newton step overshoots, and must be halved."""
    path, ridge = known_path(3, 20), 0.5
    generator = torch.Generator().manual_seed(1)
    target = torch.poisson((0.7 * path.mean.sum(-1, keepdim=True)).exp(), generator=generator)
    weight = torch.ones_like(target)
    design = np.concatenate([path.mean.flatten(0, 1).numpy(), np.ones((60, 1))], axis=1)
    counts = target.flatten().numpy()

    def loss(values: np.ndarray) -> float:
        predictor = design @ values
        penalty = 0.5 * ridge * values[:2] @ values[:2]
        return float((np.exp(predictor) - counts * predictor).sum() + penalty)

    emission = PoissonEmission(path.mean.new_zeros(1, 2), path.mean.new_full((1,), bias))
    reached = [loss(np.array([0.0, 0.0, bias]))]
    for _ in range(25):
        emission = emission.maximized(path, target=target, weight=weight, ridge=ridge)
        found = torch.cat([emission.loadings[0], emission.bias]).numpy()
        reached.append(loss(found))
    assert (np.diff(reached) <= 1e-9).all()
    best = optimize.minimize(loss, np.zeros(3), tol=1e-10)
    np.testing.assert_allclose(found, best.x, atol=1e-4)


def test_a_neuron_that_is_predicted_exactly_keeps_the_least_std():
    """What is left of it is rounding, of either sign."""
    path = known_path(4, 15)
    readout = torch.randn(40, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    target = path.mean @ readout.mT + 10 * torch.arange(40.0, dtype=torch.float64)
    zeros = torch.zeros_like(readout)
    one = torch.ones_like(zeros[:, 0])
    emission = GaussianEmission(zeros, zeros[:, 0], one, 1e-3 * one)
    found = emission.maximized(path, target=target, weight=torch.ones_like(target), ridge=0.0)
    assert_close(found.loadings, readout, rtol=0, atol=1e-8)
    assert_close(found.std, torch.full_like(found.std, 1e-3), rtol=0, atol=1e-4)


def test_first_steps_of_short_and_long_trials_make_the_initial_distribution():
    """Whatever a trial's length; only trials without a bin are left out."""
    moments = known_path(4, 6)
    covariance = torch.eye(2, dtype=torch.float64) * torch.arange(1.0, 5.0).double()[:, None, None]
    moments = PathMoments(
        moments.mean,
        covariance[:, None].expand(4, 6, 2, 2),
        moments.cross_covariance.expand(4, 5, 2, 2),
    )
    time_mask = torch.arange(6) < torch.tensor([[6], [1], [0], [3]])
    inputs = moments.mean.new_zeros(4, 6, 0)
    found = maximize_dynamics(random_dynamics(2), moments, inputs=inputs, time_mask=time_mask)
    first = moments.mean[[0, 1, 3], 0].numpy()
    np.testing.assert_allclose(found.initial_mean.numpy(), first.mean(0))
    expected = np.cov(first.T, ddof=0) + covariance[[0, 1, 3]].mean(0).numpy()
    np.testing.assert_allclose(found.initial_covariance.numpy(), expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_particles_are_drawn_anew_where_fewer_than_half_of_them_count(scale):
    """(sum w)^2 / sum w^2, whatever the scale of the weights."""
    number = 1000
    weight = torch.ones(number, 2, 1, dtype=torch.float64)
    weight[: number // 2, 0] = 2.0  # 0.9 of the particles count
    weight[: 9 * number // 10, 1] = 1e-6  # 0.1 of them
    seen = []

    def propose(step: int, before: torch.Tensor | None) -> Proposal:
        if before is None:
            particles = torch.arange(number).double()[:, None, None].expand(number, 2, 1)
            return Proposal(particles, (scale * weight).log())
        seen.append(before)
        return Proposal(before, torch.zeros_like(weight))

    torch.manual_seed(0)
    found = estimate_log_evidence(propose, 2)
    assert torch.equal(seen[0][:, 0, 0], torch.arange(number).double())
    assert float(seen[0][:, 1].min()) >= 9 * number // 10 - 1
    assert_close(found.runs, (scale * weight).mean(0).log(), rtol=1e-9, atol=0)


def test_a_converged_posterior_is_that_of_many_passes():
    model = random_model("poisson", 2, num_neurons=8)
    batch = simulate(model, num_trials=3, num_bins=15)
    prior = model.dynamics.chain(batch.inputs)
    given = {"target": batch.target, "weight": batch.weight}
    last = once = variational(
        prior, model.emission, **given, last=laplace(prior, model.emission, **given)
    )
    for _ in range(30):
        last = variational(prior, model.emission, **given, last=last)
    found = converged(variational, prior, model.emission, **given, tolerance=1e-13, max_passes=40)
    assert_close(found.mean, last.mean, rtol=0, atol=1e-6)
    assert_close(found.covariance, last.covariance, rtol=0, atol=1e-6)
    assert float((once.mean - last.mean).abs().max()) > 1e-4  # one pass is not enough
