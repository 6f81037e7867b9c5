"""Linear state-space models to test with, and the Kalman smoother in covariance form."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqvae.state_space import (
    Dynamics,
    GaussianEmission,
    LinearEmission,
    LinearStateSpace,
    PoissonEmission,
)
from seqvae.types import Batch


def random_dynamics(size: int, *, num_inputs: int = 0, radius: float = 0.95, seed: int = 0):
    """Damped rotations with full covariances."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    skew = 0.3 * normal(size, size)
    identity = torch.eye(size, dtype=torch.float64)
    root = 0.2 * normal(size, size)
    return Dynamics(
        transition=radius * torch.linalg.matrix_exp(skew - skew.mT),
        input_matrix=0.5 * normal(size, num_inputs),
        offset=0.05 * normal(size),
        noise_covariance=(1 - radius**2) * identity + 0.1 * root @ root.mT,
        initial_mean=0.5 * normal(size),
        initial_covariance=identity + root @ root.mT,
    )


def random_emission(
    kind: str, size: int, *, num_neurons: int, mean_count: float = 0.5, seed: int = 1
) -> LinearEmission:
    generator = torch.Generator().manual_seed(seed)
    loadings = 0.5 * torch.randn(num_neurons, size, generator=generator, dtype=torch.float64)
    noise = torch.randn(num_neurons, generator=generator, dtype=torch.float64)
    if kind == "gaussian":
        return GaussianEmission(loadings, noise, 0.5 + 0.1 * noise.abs(), 0 * noise + 1.001e-3)
    return PoissonEmission(loadings, math.log(mean_count) + 0.3 * noise)


def random_model(kind: str, size: int = 2, *, num_neurons: int = 5, **options) -> LinearStateSpace:
    emission = random_emission(kind, size, num_neurons=num_neurons)
    return LinearStateSpace(random_dynamics(size, **options), emission)


def simulate(
    model: LinearStateSpace,
    *,
    num_trials: int,
    num_bins: int,
    lengths: list[int] | None = None,
    missing: float = 0.0,
    seed: int = 0,
) -> Batch:
    """Trials of a model, all neurons held in; missing and padded entries are 0 in the target."""
    torch.manual_seed(seed)
    num_inputs = model.dynamics.input_matrix.shape[1]
    inputs = torch.randn(num_trials, num_bins, num_inputs, dtype=torch.float64)
    predictor = model.emission.predictor(model.dynamics.chain(inputs).rsample())
    if isinstance(model.emission, GaussianEmission):
        data = predictor + model.emission.std * torch.randn_like(predictor)
    else:
        data = torch.poisson(predictor.exp())
    ends = torch.tensor(lengths or [num_bins] * num_trials)
    there = (torch.arange(num_bins) < ends[:, None])[..., None]
    there = there & (torch.rand(data.shape) >= missing)
    data = torch.where(there, data, 0.0)
    return Batch(data, there, data, there.double(), inputs, ends, torch.arange(num_trials))


class Smoothed(NamedTuple):
    """What the Kalman smoother answers about one trial."""

    mean: np.ndarray
    covariance: np.ndarray
    cross_covariance: np.ndarray
    log_likelihood: float


def kalman_smoother(
    model: LinearStateSpace, target: Tensor, weight: Tensor, inputs: Tensor
) -> Smoothed:
    """Filter and smooth one trial (time, neuron) by covariances [Rauch, Tung & Striebel 1965]."""
    dynamics, emission = model
    assert isinstance(emission, GaussianEmission)
    transition, noise, start = (
        tensor.numpy()
        for tensor in (dynamics.transition, dynamics.noise_covariance, dynamics.initial_covariance)
    )
    loadings, bias, std = (t.numpy() for t in (emission.loadings, emission.bias, emission.std))
    mean, covariance = dynamics.initial_mean.numpy(), start
    filtered, predicted, total = [], [], 0.0
    for step, (data, seen, drive) in enumerate(zip(target, weight, inputs, strict=True)):
        if step:
            push = dynamics.input_matrix.numpy() @ drive.numpy() + dynamics.offset.numpy()
            mean = transition @ mean + push
            covariance = transition @ covariance @ transition.T + noise
        predicted.append((mean, covariance))
        rows = np.flatnonzero(seen.numpy())
        if len(rows):
            c = loadings[rows]
            innovation = data.numpy()[rows] - c @ mean - bias[rows]
            spread = c @ covariance @ c.T + np.diag(std[rows] ** 2)
            gain = covariance @ c.T @ np.linalg.inv(spread)
            total -= 0.5 * (
                innovation @ np.linalg.solve(spread, innovation)
                + np.linalg.slogdet(spread)[1]
                + len(rows) * math.log(2 * math.pi)
            )
            mean, covariance = mean + gain @ innovation, covariance - gain @ c @ covariance
        filtered.append((mean, covariance))
    means, covariances, crosses = [mean], [covariance], []
    for (mean, covariance), (ahead, spread) in zip(filtered[-2::-1], predicted[:0:-1], strict=True):
        gain = covariance @ transition.T @ np.linalg.inv(spread)
        crosses.append(covariances[-1] @ gain.T)
        means.append(mean + gain @ (means[-1] - ahead))
        covariances.append(covariance + gain @ (covariances[-1] - spread) @ gain.T)
    cross = np.array(crosses[::-1]).reshape(-1, *transition.shape)
    return Smoothed(np.array(means[::-1]), np.array(covariances[::-1]), cross, total)
