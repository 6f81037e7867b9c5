"""A simulated Poisson linear dynamical system is found again from its spikes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from linear import simulate
from seqvae.analysis.posterior import deterministic
from seqvae.learning import EM
from seqvae.models import LinearDynamics
from seqvae.models.scores import Scores
from seqvae.state_space import Dynamics, LinearStateSpace, PoissonEmission, path_bound, variational
from seqvae.state_space.e_steps import converged
from seqvae.types import Batch, DataSpec


def rotations(size: int, *, num_neurons: int, radius: float = 0.97) -> LinearStateSpace:
    """Latents of unit variance that turn at 0.05 to 0.35 rad a bin; about 0.25 counts a bin."""
    generator = torch.Generator().manual_seed(0)
    speeds = torch.linspace(0.05, 0.35, size // 2, dtype=torch.float64)
    skew = torch.zeros(size, size, dtype=torch.float64)
    for plane, speed in enumerate(speeds):
        skew[2 * plane, 2 * plane + 1] = speed
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator).double())
    identity = torch.eye(size, dtype=torch.float64)
    dynamics = Dynamics(
        transition=radius * basis @ torch.linalg.matrix_exp(skew - skew.mT) @ basis.mT,
        input_matrix=identity[:, :0],
        offset=identity.new_zeros(size),
        noise_covariance=(1 - radius**2) * identity,
        initial_mean=identity.new_zeros(size),
        initial_covariance=identity,
    )
    loadings = torch.randn(num_neurons, size, generator=generator).double() * 0.8 / size**0.5
    spread = torch.randn(num_neurons, generator=generator).double() * 0.3
    bias = math.log(0.25) - 0.5 * loadings.square().sum(1) + spread
    return LinearStateSpace(dynamics, PoissonEmission(loadings, bias))


def co_smoothing(
    state_space: LinearStateSpace, test: Batch, null_counts: Tensor, inference: str
) -> float:
    """Bits per spike of each quarter of the neurons, predicted from the others, averaged."""
    _, num_bins, num_neurons = test.target.shape
    size, found = state_space.emission.loadings.shape[1], []
    for fold in range(4):
        heldin = [n for n in range(num_neurons) if n % 4 != fold]
        spec = DataSpec(tuple(heldin), num_neurons, 0, num_bins, num_bins, 0.02)
        model = LinearDynamics(spec, latent_dim=size, inference=inference)
        model.take(state_space)
        seen = replace(
            test,
            observed=test.observed[..., heldin],
            observed_mask=test.observed_mask[..., heldin],
        )
        scores = Scores(spec, null_counts, counts=True)
        with deterministic(model, 0):
            scores.update(model(seen, 30), seen)
        found.append(scores.compute()["co_bps"])
    return sum(found) / 4


def total_bound(state_space: LinearStateSpace, test: Batch) -> float:
    """The bound of the test trials, all neurons seen, by the best Gaussian posterior."""
    prior = state_space.dynamics.chain(test.inputs)
    given = {"target": test.target, "weight": test.weight}
    found = converged(variational, prior, state_space.emission, **given)
    return float(path_bound(found, prior, state_space.emission, **given).elbo.sum())


def largest_angle(one: Tensor, other: Tensor) -> float:
    """Largest principal angle between the column spaces, in degrees."""
    bases = [torch.linalg.qr(loadings).Q for loadings in (one, other)]
    return math.degrees(math.acos(float(torch.linalg.svdvals(bases[0].mT @ bases[1]).min())))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("inference", "size", "num_neurons", "num_bins", "num_trials", "num_sets", "gap"),
    [
        ("variational", 3, 40, 100, (40, 20), 2, 70),
        ("laplace", 3, 40, 100, (40, 20), 2, 70),
    ],
    ids=["small-variational", "small-laplace"],
)
def test_simulated_poisson_dynamics_are_recovered(
    inference, size, num_neurons, num_bins, num_trials, num_sets, gap
):
    truth = rotations(size, num_neurons=num_neurons)
    scores, oracles, missed = [], [], []
    for number in range(num_sets):
        train, test = (
            simulate(truth, num_trials=trials, num_bins=num_bins, seed=10 * number + i)
            for i, trials in enumerate(num_trials)
        )
        null_counts = train.target.mean((0, 1))
        model = LinearDynamics(
            DataSpec(tuple(range(num_neurons)), num_neurons, 0, num_bins, num_bins, 0.02),
            latent_dim=size,
            inference=inference,
        )
        *_, last = EM(max_iterations=60, progress=False).iterations(model, train)
        learned = last.learned
        scores.append(co_smoothing(learned, test, null_counts, inference))
        oracles.append(co_smoothing(truth, test, null_counts, inference))
        missed.append(total_bound(truth, test) - total_bound(learned, test))
        angle = largest_angle(learned.emission.loadings, truth.emission.loadings)
        print(
            f"{inference}, D={size}: {last.iteration} iterations, co-smoothing {scores[-1]:.4f} "
            f"of {oracles[-1]:.4f} bits per spike, angle {angle:.1f} degrees, bound of the test "
            f"trials {missed[-1]:.0f} nats below that of the true parameters"
        )
        assert angle <= 9
    assert sum(scores) >= 0.985 * sum(oracles)
    assert sum(missed) / num_sets <= gap
