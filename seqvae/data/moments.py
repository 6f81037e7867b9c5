"""The moments of each neuron, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from seqvae.types import Batch, Moments


def batch_moments(batches: Callable[[], Iterable[Batch]], num_neurons: int) -> Moments:
    """Return the moments over batches, of all neurons or some, in double precision.

    The batches are read twice, so that squares are of what is left of x without its mean.
    """
    total, square, nonzero, count = torch.zeros(4, num_neurons, dtype=torch.float64)
    for batch in batches():
        target, weight, there = batch.target.double(), batch.weight.double(), _place(batch)
        total[there] += (weight * target).sum((0, 1))
        nonzero[there] += (weight * (target != 0)).sum((0, 1))
        count[there] += weight.sum((0, 1))
    count = count.clamp(min=1)
    mean, share = total / count, nonzero / count
    for batch in batches():
        there = _place(batch)
        square[there] += (batch.weight.double() * (batch.target - mean[there]) ** 2).sum((0, 1))
    std = (square / count).sqrt()
    return Moments(mean.float(), std.float(), share.float())


def _place(batch: Batch) -> list[int] | slice:
    """Return which neurons a batch has."""
    return slice(None) if batch.neurons is None else list(batch.neurons)
