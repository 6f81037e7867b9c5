"""Mean and standard deviation of each neuron, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.types import Batch


class Moments(NamedTuple):
    """Mean and standard deviation of each neuron over the scored entries, per bin."""

    mean: Float[Tensor, " neuron"]
    std: Float[Tensor, " neuron"]


def moments(batches: Iterable[Batch], num_neurons: int) -> Moments:
    """Return the moments over batches, by sums of x and x^2 in double precision."""
    total = square = count = torch.zeros(num_neurons, dtype=torch.float64)
    for batch in batches:
        target, weight = batch.target.double(), batch.weight.double()
        total = total + (weight * target).sum((0, 1))
        square = square + (weight * target**2).sum((0, 1))
        count = count + weight.sum((0, 1))
    mean = total / count.clamp(min=1)
    variance = square / count.clamp(min=1) - mean**2
    return Moments(mean.float(), variance.clamp(min=0).sqrt().float())
