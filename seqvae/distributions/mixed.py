"""A mixture of distributions that need not be of one family."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size


class Mixed(Distribution):
    """p(x) = sum_m w_m p_m(x), each entry on its own: counts, say, some of them overdispersed.

    Args:
        components: p_m, of one batch shape and without an event shape.
        weights: w_m, not negative and of sum 1; axes after the first are those of the batch shape,
            counted from its end.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(
        self, components: Sequence[Distribution], weights: Float[Tensor, "component ..."]
    ) -> None:
        self.components = tuple(components)
        self.weights = weights
        super().__init__(components[0].batch_shape, validate_args=False)

    @property
    def support(self) -> Any:
        """Of the first component; all have the same."""
        return self.components[0].support

    @property
    def mean(self) -> Tensor:
        """The weighted mean of the means."""
        return self._average([component.mean for component in self.components])

    @property
    def variance(self) -> Tensor:
        """The variance, by the law of total variance."""
        mean = self.mean
        return self._average([one.variance + (one.mean - mean).square() for one in self.components])

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value), elementwise, in nats."""
        pairs = zip(self.weights.log(), self.components, strict=True)
        return reduce(torch.logaddexp, (weight + one.log_prob(value) for weight, one in pairs))

    @torch.no_grad()
    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draw sample_shape + batch_shape values: a component for each, then of it."""
        draws = torch.stack([one.sample(Size(sample_shape)) for one in self.components])
        shares = self.weights.movedim(0, -1).expand(*draws.shape[1:], -1)
        chosen = torch.multinomial(shares.reshape(-1, shares.shape[-1]), 1)
        return draws.gather(0, chosen.view(1, *draws.shape[1:]))[0]

    def _average(self, values: Sequence[Tensor]) -> Tensor:
        pairs = zip(self.weights, values, strict=True)
        return reduce(torch.add, (weight * value for weight, value in pairs))
