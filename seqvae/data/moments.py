"""The moments of each neuron, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from seqvae.types import Batch, Moments


def batch_moments(batches: Callable[[], Iterable[Batch]], num_neurons: int) -> Moments:
    """Return the moments over batches, in double precision.

    The batches are read twice, so that squares are of what is left of x without its mean.
    """
    total = square = nonzero = count = torch.zeros(num_neurons, dtype=torch.float64)
    for batch in batches():
        target, weight = batch.target.double(), batch.weight.double()
        total = total + (weight * target).sum((0, 1))
        nonzero = nonzero + (weight * (target != 0)).sum((0, 1))
        count = count + weight.sum((0, 1))
    count = count.clamp(min=1)
    mean, share = total / count, nonzero / count
    for batch in batches():
        square = square + (batch.weight.double() * (batch.target - mean) ** 2).sum((0, 1))
    std = (square / count).sqrt()
    return Moments(mean.float(), std.float(), share.float())
