"""Where learning begins: two ways from the data to a linear state-space model.

``from_moments`` needs enough trials and bins, not enough counts in a bin; ``from_smoothing`` works
with a single bin, too. Both see all neurons of the trials to learn from.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.state_space.dynamics import Dynamics, PathMoments, maximize_dynamics, positive
from seqvae.state_space.emissions import (
    LEAST_BIAS,
    GaussianEmission,
    LinearEmission,
    PoissonEmission,
)
from seqvae.state_space.m_step import LinearStateSpace
from seqvae.types import Batch

NUM_LAGS = 5
LARGEST_RADIUS = 0.98
KERNEL_BINS = 4.0
READOUT_STEPS = 8


@torch.no_grad()
def from_moments(emission: LinearEmission, batch: Batch) -> LinearStateSpace:
    """Match the covariances of the linear predictors at lags of 1 to 5 bins.

    Private noise has no memory, so lagged covariances are those of the predictor, G_k = C A^k S C';
    for counts they follow from those of the data, log(1 + Cov_k / (mean mean')). The loadings span
    the leading directions of the mean of G_k G_k' + G_k' G_k, in units of each neuron's noise; A
    is regressed over the lags; S is the least-squares fit.

    Args:
        emission: says how the data are read, and how many latents there are.
        batch: the trials to learn from, of several bins: what has weight is seen.
    """
    mean, variance = _moments(batch.target, batch.weight)
    covariances, noise = _lagged_covariances(batch, mean), variance
    if isinstance(emission, PoissonEmission):
        safe = mean.clamp_min(1e-3)
        covariances = (covariances / (safe[:, None] * safe)).clamp(-0.8, 10.0).log1p()
        noise = safe.reciprocal()
    unit = noise.clamp_min(torch.finfo(noise.dtype).tiny ** 0.5).sqrt()
    scaled = covariances / (unit[:, None] * unit)
    # of squares, because those of a rotation differ in sign from lag to lag
    _, vectors = torch.linalg.eigh((scaled @ scaled.mT + scaled.mT @ scaled).mean(0))
    size = emission.loadings.shape[1]
    directions = 0.1 * torch.randn(len(mean), size).to(vectors)  # more latents than neurons
    directions[:, : len(mean)] = vectors.flip(1)[:, :size]

    back = torch.linalg.pinv(directions)
    transition, stationary = _autoregression(back @ scaled @ back.mT)
    innovation = stationary - transition @ stationary @ transition.mT
    dynamics = replace(
        _start(emission, batch),
        transition=transition,
        noise_covariance=positive(innovation, floor=1e-2),
        initial_covariance=stationary,
    )
    loadings = unit[:, None] * directions
    explained = torch.einsum("ni,ij,nj->n", loadings, stationary, loadings)
    return LinearStateSpace(dynamics, _readout(emission, loadings, mean, variance, explained))


@torch.no_grad()
def from_smoothing(emission: LinearEmission, batch: Batch, *, ridge: float) -> LinearStateSpace:
    """Take the principal components of smoothed activity for the path, and learn all from it.

    Activity (its square root for counts) is averaged with a Gaussian kernel over the bins there
    are; of the components, in unit variance, ``from_path`` learns.

    Args:
        emission: says how the data are read, and how many latents there are.
        batch: the trials to learn from: what has weight is seen.
        ridge: of the loadings.
    """
    weight = batch.weight
    mean, variance = _moments(batch.target, weight)
    counts = isinstance(emission, PoissonEmission)
    steps = torch.arange(batch.target.shape[1]).to(mean)
    kernel = torch.exp(-0.5 * ((steps[:, None] - steps) / KERNEL_BINS).square())
    # as if one bin at the mean had been seen, too
    smooth = (kernel @ (weight * batch.target) + mean) / (kernel @ weight + 1.0)
    if counts:
        smooth, mean_feature = smooth.clamp_min(0).sqrt(), mean.sqrt()
        unit = torch.ones_like(mean)
    else:
        mean_feature, unit = mean, variance.clamp_min(torch.finfo(mean.dtype).tiny ** 0.5).sqrt()
    features = batch.time_mask[..., None] * (smooth - mean_feature) / unit
    flat = features.flatten(0, 1)
    _, vectors = torch.linalg.eigh(flat.mT @ flat)
    size = emission.loadings.shape[1]
    scores = kernel @ torch.randn(*features.shape[:2], size).to(mean)  # if more than neurons
    scores[..., : len(mean)] = features @ vectors.flip(1)[:, :size]
    scale = scores.flatten(0, 1).std(0, correction=0)
    scores = scores / torch.where(scale > 1e-6 * scale.max(), scale, torch.inf)

    return from_path(emission, batch, scores, ridge=ridge)


@torch.no_grad()
def from_path(
    emission: LinearEmission,
    batch: Batch,
    path: Float[Tensor, "batch time latent"],
    *,
    ridge: float,
) -> LinearStateSpace:
    """Learn dynamics and readout from a path of unit variance, as if it were a posterior mean.

    A tenth of a unit of variance is put around it, and M-steps give the rest.

    Args:
        emission: says how the data are read, and how many latents there are.
        batch: the trials to learn from: what has weight is seen.
        path: of each of them.
        ridge: of the loadings.
    """
    moments = _around(path, len(path))
    return LinearStateSpace(
        _dynamics(emission, batch, moments), _maximized(emission, batch, moments, ridge=ridge)
    )


@torch.no_grad()
def dynamics_along(
    emission: LinearEmission, batch: Batch, path: Float[Tensor, "batch time latent"]
) -> Dynamics:
    """Learn the dynamics alone, for which the data of the batch are not read."""
    return _dynamics(emission, batch, _around(path, 1))


@torch.no_grad()
def readout_along(
    emission: LinearEmission,
    batch: Batch,
    path: Float[Tensor, "batch time latent"],
    *,
    ridge: float,
) -> LinearEmission:
    """Learn the readout alone, of each neuron from the trials in which it has weight."""
    return _maximized(emission, batch, _around(path, 1), ridge=ridge)


def _around(path: Float[Tensor, "batch time latent"], copies: int) -> PathMoments:
    """Return the moments of a path with a tenth of a unit of variance around it."""
    _, num_steps, size = path.shape
    return PathMoments(
        path,
        (0.1 * torch.eye(size).to(path)).expand(copies, num_steps, size, size),
        torch.zeros(copies, num_steps - 1, size, size).to(path),
    )


def _dynamics(emission: LinearEmission, batch: Batch, moments: PathMoments) -> Dynamics:
    return maximize_dynamics(
        _start(emission, batch), moments, inputs=batch.inputs, time_mask=batch.time_mask
    )


def _maximized(
    emission: LinearEmission, batch: Batch, moments: PathMoments, *, ridge: float
) -> LinearEmission:
    mean, variance = _moments(batch.target, batch.weight)
    start = torch.zeros_like(emission.loadings)
    readout = _readout(emission, start, mean, variance, torch.zeros_like(mean))
    for _ in range(READOUT_STEPS if isinstance(emission, PoissonEmission) else 1):
        readout = readout.maximized(moments, target=batch.target, weight=batch.weight, ridge=ridge)
    return readout


def shaken(learned: LinearStateSpace, generator: torch.Generator) -> LinearStateSpace:
    """Return a model with noise added to its loadings, of their own root mean square."""
    loadings = learned.emission.loadings
    noise = torch.randn(loadings.shape, generator=generator, dtype=torch.float64).to(loadings)
    size = loadings.square().mean().sqrt()
    return learned._replace(emission=replace(learned.emission, loadings=loadings + size * noise))


def _lagged_covariances(
    batch: Batch, mean: Float[Tensor, " neuron"]
) -> Float[Tensor, "lag neuron neuron"]:
    """Cov(x_{t+k}, x_t) over the pairs of bins that are both seen."""
    residual, lagged = batch.weight * (batch.target - mean), []
    for lag in range(1, 1 + min(NUM_LAGS, residual.shape[1] - 1)):
        pairs = _product(batch.weight[:, lag:], batch.weight[:, :-lag])
        lagged.append(_product(residual[:, lag:], residual[:, :-lag]) / pairs.clamp_min(1.0))
    return torch.stack(lagged)


def _autoregression(
    lagged: Float[Tensor, "lag latent latent"],
) -> tuple[Float[Tensor, "latent latent"], Float[Tensor, "latent latent"]]:
    """Transition A, of a radius below one, and covariance S with A^k S nearest to those given."""
    num_lags = len(lagged)
    before, after = (part.transpose(0, 1).flatten(1) for part in (lagged[:-1], lagged[1:]))
    transition = after @ torch.linalg.pinv(before, rtol=1e-3)
    radius = float(torch.linalg.eigvals(transition).abs().max())
    transition = transition * min(1.0, LARGEST_RADIUS / max(radius, 1e-6))
    powers = torch.cat([torch.linalg.matrix_power(transition, k + 1) for k in range(num_lags)])
    covariance = torch.linalg.pinv(powers, rtol=1e-3) @ lagged.flatten(0, 1)
    return transition, positive(covariance, floor=1e-2)


def _start(emission: LinearEmission, batch: Batch) -> Dynamics:
    """Slow latents of unit variance, not driven."""
    size = emission.loadings.shape[1]
    identity = torch.eye(size).to(batch.target)
    return Dynamics(
        transition=0.9 * identity,
        input_matrix=batch.inputs.new_zeros(size, batch.inputs.shape[-1]),
        offset=identity.new_zeros(size),
        noise_covariance=(1 - 0.9**2) * identity,
        initial_mean=identity.new_zeros(size),
        initial_covariance=identity,
    )


def _readout(
    emission: LinearEmission,
    loadings: Float[Tensor, "neuron latent"],
    mean: Float[Tensor, " neuron"],
    variance: Float[Tensor, " neuron"],
    explained: Float[Tensor, " neuron"],
) -> LinearEmission:
    """Give each neuron the mean (and variance) of the data; one that is silent reads nothing."""
    if isinstance(emission, PoissonEmission):
        bias = (mean.log() - 0.5 * explained).clamp_min(LEAST_BIAS)
        return PoissonEmission(loadings * (mean > 0)[:, None], bias)
    assert isinstance(emission, GaussianEmission)
    std = torch.maximum(variance - explained, 0.1 * variance).sqrt()
    return GaussianEmission(loadings, mean, std.maximum(emission.least_std), emission.least_std)


def _moments(
    target: Float[Tensor, "batch time neuron"], weight: Float[Tensor, "batch time neuron"]
) -> tuple[Float[Tensor, " neuron"], Float[Tensor, " neuron"]]:
    """Mean and variance of the scored entries of each neuron."""
    total = weight.sum((0, 1))
    total = total.clamp_min(torch.finfo(total.dtype).tiny)
    mean = (weight * target).sum((0, 1)) / total
    return mean, (weight * (target - mean).square()).sum((0, 1)) / total


def _product(
    one: Float[Tensor, "batch steps neuron"], other: Float[Tensor, "batch steps neuron"]
) -> Float[Tensor, "neuron neuron"]:
    return one.flatten(0, 1).mT @ other.flatten(0, 1)
