"""What inference by linearisation sees of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from seqvae.observations import GeneralizedLinear
from seqvae.types import Batch, DataSpec


class Sight(NamedTuple):
    """The held-in neurons of a batch, with forecast bins, where nothing is seen.

    Attributes:
        values: in the units in which they are learned from.
        seen: which values are there.
        target: the values in the units of the data, among all neurons.
        weight: of each of those: 1 where it is seen, else 0.
        observation: reads the factors.
        heldin: the neurons.
    """

    values: Float[Tensor, "batch time heldin"]
    seen: Bool[Tensor, "batch time heldin"]
    target: Float[Tensor, "batch time neuron"]
    weight: Float[Tensor, "batch time neuron"]
    observation: GeneralizedLinear
    heldin: list[int]

    def in_blocks(self, length: int) -> Iterator[Sight]:
        """Yield what is seen, by so many bins after each other; targets stay whole."""
        blocks = zip(self.values.split(length, dim=1), self.seen.split(length, dim=1), strict=True)
        return (self._replace(values=values, seen=seen) for values, seen in blocks)


def sight_of(batch: Batch, spec: DataSpec, observation: GeneralizedLinear) -> Sight:
    """Return what inference sees of a batch."""
    heldin = list(spec.heldin)
    later = (0, 0, 0, batch.target.shape[1] - batch.observed.shape[1])
    seen = functional.pad(batch.observed_mask, later)
    values = observation.standardized(batch.observed, heldin)
    values = torch.where(seen, functional.pad(values, later), 0.0)
    target, weight = torch.zeros_like(batch.target), torch.zeros_like(batch.target)
    target[..., heldin] = torch.where(seen, functional.pad(batch.observed, later), 0.0)
    weight[..., heldin] = seen.to(weight.dtype)
    return Sight(values, seen, target, weight, observation, heldin)
