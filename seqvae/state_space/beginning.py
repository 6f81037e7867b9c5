"""A few iterations of EM, for models that begin at a linear one."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seqvae.state_space.canonical import canonical
from seqvae.state_space.e_steps import EStep, path_bound
from seqvae.state_space.emissions import LinearEmission
from seqvae.state_space.initialization import from_moments, from_smoothing
from seqvae.state_space.m_step import LinearStateSpace, maximize
from seqvae.types import Batch

LEAST_BINS_FOR_MOMENTS = 4


def linear_starts(
    emission: LinearEmission, batch: Batch, *, ridge: float
) -> list[LinearStateSpace]:
    """Return where EM may begin: from smoothing and, with bins enough, from lagged covariances.

    Args:
        emission: says how the data are read, and how many latents there are.
        batch: the trials to learn from; what has weight is seen.
        ridge: of the loadings.
    """
    starts = [from_smoothing(emission, batch, ridge=ridge)]
    if batch.target.shape[1] >= LEAST_BINS_FOR_MOMENTS:
        starts.append(from_moments(emission, batch))
    return starts


@torch.no_grad()
def begin_linear(
    emission: LinearEmission,
    batch: Batch,
    *,
    e_step: EStep,
    iterations: int,
    ridge: float = 1.0,
    begun: Sequence[LinearStateSpace] = (),
) -> LinearStateSpace:
    """Return linear dynamics after some iterations of EM from the better of two starts.

    Args:
        emission: says how the data are read, and how many latents there are.
        batch: the trials to learn from, in double precision; what has weight is seen.
        e_step: of EM.
        iterations: of EM from each start.
        ridge: of the loadings.
        begun: starts in their place.
    """
    same_length = bool((batch.lengths == batch.target.shape[1]).all())
    lengths = None if same_length else batch.lengths
    data = {"target": batch.target, "weight": batch.weight}
    ended = []
    for start in begun or linear_starts(emission, batch, ridge=ridge):
        learned, posterior, bound = canonical(start, batch.target.shape[1]), None, float("-inf")
        for _ in range(iterations):
            prior = learned.dynamics.chain(batch.inputs, lengths=lengths)
            posterior = e_step(prior, learned.emission, **data, last=posterior)
            elbo = path_bound(posterior, prior, learned.emission, **data).elbo.sum()
            bound = float(elbo - learned.emission.penalty(ridge))
            learned = maximize(learned, posterior, batch=batch, ridge=ridge)
        ended.append((bound, learned))
    return canonical(max(ended, key=lambda end: end[0])[1], batch.target.shape[1])
