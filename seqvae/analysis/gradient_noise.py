"""How far gradient estimates are off, and how much they scatter, on a given model and batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqvae.compute import noise
from seqvae.models.latent_variable import LatentVariableModel
from seqvae.objectives import Objective, training_loss
from seqvae.types import Batch


class GradientNoise(NamedTuple):
    """One row of the table; norms and sums go over all parameters that were asked for.

    Attributes:
        name: of the estimator.
        size: norm of the reference gradient.
        bias: norm of the mean estimate minus the reference.
        standard_error: of that difference: what the norm would be, by root mean square, without
            any bias.
        variance: of a single estimate, summed over parameters.
        within_three_errors: share of the parameters whose mean estimate is within three standard
            errors of the reference; 0.997 without bias.
    """

    name: str
    size: float
    bias: float
    standard_error: float
    variance: float
    within_three_errors: float


def measure_gradient_noise(
    model: LatentVariableModel,
    batch: Batch,
    estimators: Mapping[str, Objective],
    *,
    reference: Objective | None = None,
    num_repeats: int = 200,
    reference_repeats: int = 400,
    parameters: Iterable[nn.Parameter] | None = None,
    seed: int = 0,
) -> list[GradientNoise]:
    """Measure gradient estimators against the mean of many estimates by a trusted one.

    Every gradient is that of the loss after the warm-ups, in the model's present mode (dropout is
    noise, too, so ``model.eval()`` shows the samples' alone).

    Args:
        model: any model; it stays as it is.
        batch: some trials.
        estimators: objectives by name.
        reference: the trusted objective; None: reparameterised, 100 samples, at beta = 1.
        num_repeats: estimates by each estimator.
        reference_repeats: estimates by the reference.
        parameters: what to differentiate by; None: all of the model.
        seed: of all noise; the caller's random state is left as it was.
    """
    by = list(model.parameters() if parameters is None else parameters)
    trusted = Objective(num_samples=100) if reference is None else reference
    objective = model.objective
    rows = []
    try:
        with noise.apart(seed):
            truth = _moments(model, batch, trusted, by, reference_repeats)
            for name, estimator in estimators.items():
                rows.append(_row(name, _moments(model, batch, estimator, by, num_repeats), truth))
    finally:
        model.objective = objective
    return rows


class _GradientMoments(NamedTuple):
    mean: Float[Tensor, " parameter"]
    variance: Float[Tensor, " parameter"]
    num_repeats: int


def _moments(
    model: LatentVariableModel,
    batch: Batch,
    objective: Objective,
    by: list[nn.Parameter],
    num_repeats: int,
) -> _GradientMoments:
    """Return mean and variance of a gradient over repeated estimates, by Welford's recursion."""
    model.objective = objective
    mean = torch.zeros(sum(parameter.numel() for parameter in by), dtype=torch.float64)
    squares = torch.zeros_like(mean)
    for i in range(num_repeats):
        output = model(batch, objective.num_samples)
        loss = training_loss(objective, output, batch, step=objective.ramp_end).value
        gradients = torch.autograd.grad(loss, by, allow_unused=True, materialize_grads=True)
        gradient = torch.cat([part.flatten() for part in gradients]).double().cpu()
        change = gradient - mean
        mean = mean + change / (i + 1)
        squares += change * (gradient - mean)
    return _GradientMoments(mean, squares / max(num_repeats - 1, 1), num_repeats)


def _row(name: str, estimate: _GradientMoments, truth: _GradientMoments) -> GradientNoise:
    difference = estimate.mean - truth.mean
    error = estimate.variance / estimate.num_repeats + truth.variance / truth.num_repeats
    within = difference.abs() <= 3 * error.sqrt() + 1e-12 * truth.mean.abs().max()
    return GradientNoise(
        name,
        size=float(truth.mean.norm()),
        bias=float(difference.norm()),
        standard_error=float(error.sum().sqrt()),
        variance=float(estimate.variance.sum()),
        within_three_errors=float(within.double().mean()),
    )
