"""Where to begin to learn a switching model: regimes found on the path of one that does not."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from seqvae.distributions import DiscreteMarkovChain
from seqvae.state_space.dynamics import Dynamics, LinkMoments, PathMoments
from seqvae.state_space.m_step import LinearStateSpace
from seqvae.state_space.switching import (
    Switches,
    SwitchingPenalty,
    SwitchingStateSpace,
    maximize_regimes,
    maximize_switches,
)
from seqvae.types import Batch

CONFIDENCE = 0.9  # in the regime that a window is first given
SWEEPS = 20


@torch.no_grad()
def begin_switching(
    linear: LinearStateSpace,
    path: PathMoments,
    *,
    batch: Batch,
    mask: Bool[Tensor, "batch time"],
    num_states: int,
    penalty: SwitchingPenalty,
    window: int,
    seed: int,
) -> tuple[SwitchingStateSpace, DiscreteMarkovChain]:
    """Return a switching model and its states, learned on the path of a linear one.

    In windows of the path z_t is regressed on (z_{t-1}, u_t, 1); the coefficients, in units of the
    size of each regressor, are clustered by k-means. From there regimes and states are learned by
    turns, the path held.

    Args:
        linear: the fitted model.
        path: its posterior.
        batch: the trials.
        mask: the bins of each trial that inference has seen.
        num_states: regimes.
        penalty: of the parameters.
        window: bins.
        seed: of the clustering.
    """
    labels = _cluster(path, batch=batch, mask=mask, shape=(num_states, window), seed=seed)
    doubt = (1 - CONFIDENCE) / max(num_states - 1, 1)
    sure = functional.one_hot(labels, num_states).to(path.mean)
    sure = doubt + (1 - doubt * num_states) * sure if num_states > 1 else sure
    model = stacked(linear, num_states)
    # what is said of each bin alone: the states do not yet follow each other
    states = DiscreteMarkovChain(
        sure[:, 0].log(), sure[:, 1:, None, :].log().expand(-1, -1, num_states, -1)
    )
    for sweep in range(SWEEPS):
        dynamics = maximize_regimes(
            model.dynamics, path, states, inputs=batch.inputs, mask=mask, links=penalty.links
        )
        switches = model.switches
        if sweep:
            switches = maximize_switches(switches, states, mask=mask, penalty=penalty)
        model = SwitchingStateSpace(dynamics, switches, linear.emission)
        densities = model.densities(batch.inputs, mask)
        expected = densities.expected_log_density(path.mean, path.covariance, path.cross_covariance)
        states = switches.chain(*mask.shape).given(expected).states
    return model, states


def stacked(linear: LinearStateSpace, num_states: int) -> SwitchingStateSpace:
    """Return a switching model whose states are all the same linear one; they tend to stay."""

    def repeated(matrix: Tensor) -> Tensor:
        return matrix.expand(num_states, *matrix.shape)

    dynamics, emission = linear
    uniform = dynamics.offset.new_full((num_states,), 1.0 / num_states)
    sticky = 0.1 * uniform + 0.9 * torch.eye(num_states).to(uniform)
    return SwitchingStateSpace(
        Dynamics(
            repeated(dynamics.transition),
            repeated(dynamics.input_matrix),
            repeated(dynamics.offset),
            repeated(dynamics.noise_covariance),
            dynamics.initial_mean,
            dynamics.initial_covariance,
        ),
        Switches(uniform.log(), sticky.log()),
        emission,
    )


def _cluster(
    path: PathMoments,
    *,
    batch: Batch,
    mask: Bool[Tensor, "batch time"],
    shape: tuple[int, int],
    seed: int,
) -> Int[Tensor, "batch time"]:
    """Label of every bin, the first of a trial like the second."""
    num_states, window = shape
    num_trials, num_steps = mask.shape
    labels = torch.zeros_like(mask, dtype=torch.int64)
    if num_states == 1 or num_steps < 2:
        return labels
    weight = mask[:, 1:].to(path.mean)
    mean_path = PathMoments(path.mean, 0 * path.covariance[:1], 0 * path.cross_covariance[:1])
    pooled = LinkMoments.of(mean_path, inputs=batch.inputs, weight=weight)
    coefficients = pooled.regression()
    constant = torch.ones_like(path.mean[:, 1:, :1])
    regressors = torch.cat([path.mean[:, :-1], batch.inputs[:, 1:], constant], dim=-1)
    residual = path.mean[:, 1:] - regressors @ coefficients.mT

    def windows(values: Tensor) -> Tensor:
        missing = -values.shape[1] % window
        padded = functional.pad(values, (0, 0, 0, missing))
        return padded.unflatten(1, (-1, window)).flatten(0, 1)

    unit = (pooled.square.diagonal() / pooled.count).sqrt()
    regressors = regressors / unit.clamp_min(torch.finfo(unit.dtype).tiny ** 0.5)
    weighted = windows(regressors * weight[..., None])
    identity = torch.eye(len(unit)).to(unit)
    square = weighted.mT @ windows(regressors) + identity  # as if a bin had seen no difference
    features = torch.linalg.solve(square, weighted.mT @ windows(residual)).flatten(1)
    importance = windows(weight[..., None]).sum((1, 2))
    window_labels = _k_means(features, importance, num_states=num_states, seed=seed)
    bins = window_labels.unflatten(0, (num_trials, -1)).repeat_interleave(window, dim=1)
    labels[:, 1:] = bins[:, : num_steps - 1]
    labels[:, 0] = labels[:, 1]
    return labels


def _k_means(
    features: Float[Tensor, "window feature"],
    importance: Float[Tensor, " window"],
    *,
    num_states: int,
    seed: int,
) -> Int[Tensor, " window"]:
    """Labels by k-means++ and Lloyd's iterations, the same for the same seed."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if int((importance > 0).sum()) < num_states:
        return torch.arange(len(features), device=features.device) % num_states
    means = KMeans(num_states, n_init=1, random_state=seed % 2**32)
    with warnings.catch_warnings():
        # of fewer distinct windows than clusters: some regimes begin empty
        warnings.simplefilter("ignore", ConvergenceWarning)
        means.fit(features.cpu().numpy(), sample_weight=importance.cpu().numpy())
    return torch.from_numpy(means.labels_.astype(np.int64)).to(features.device)
