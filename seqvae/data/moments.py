"""The moments of each neuron, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from seqvae.types import Batch, Moments


def batch_moments(batches: Iterable[Batch], num_neurons: int) -> Moments:
    """Return the moments over batches, by sums of x and x^2 in double precision."""
    total = square = nonzero = count = torch.zeros(num_neurons, dtype=torch.float64)
    for batch in batches:
        target, weight = batch.target.double(), batch.weight.double()
        total = total + (weight * target).sum((0, 1))
        square = square + (weight * target**2).sum((0, 1))
        nonzero = nonzero + (weight * (target != 0)).sum((0, 1))
        count = count + weight.sum((0, 1))
    mean = total / count.clamp(min=1)
    variance = square / count.clamp(min=1) - mean**2
    std, share = variance.clamp(min=0).sqrt(), nonzero / count.clamp(min=1)
    return Moments(mean.float(), std.float(), share.float())
