"""All mass at one point."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size


class Delta(Distribution):
    """A point: p(z) is one at ``value`` and zero elsewhere, elementwise; batch shape of ``value``.

    As a posterior it turns a variational autoencoder into an autoencoder; its divergence from any
    prior is 0 by definition (``seqvae.distributions.divergence``).

    Args:
        value: the point.
        validate_args: as in ``torch.distributions``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"value": constraints.real}
    support = constraints.real
    has_rsample = True

    def __init__(self, value: Tensor, validate_args: bool | None = None) -> None:
        self.value = value
        super().__init__(value.shape, validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: Delta | None = None) -> Delta:
        """Return the same point with a larger batch shape."""
        return Delta(self.value.expand(batch_shape), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The point."""
        return self.value

    @property
    def variance(self) -> Tensor:
        """Zero."""
        return torch.zeros_like(self.value)

    def rsample(self, sample_shape: _size = ()) -> Tensor:
        """Return the point, repeated to sample_shape + batch_shape."""
        return self.value.expand(self._extended_shape(Size(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return 0 at the point and -inf elsewhere."""
        return torch.where(value == self.value, 0.0, -torch.inf).to(self.value.dtype)
