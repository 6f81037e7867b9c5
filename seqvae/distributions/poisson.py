"""Poisson counts in log-rate form."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.types import _size


class PoissonLogRate(Distribution):
    """Poisson counts told by their log-rate: log p(x) = x log_rate - exp(log_rate) - log x!.

    Unlike ``torch.distributions.Poisson`` the density and its gradient stay finite where the rate
    itself underflows (log_rate = -110 in float32). A log-rate of -inf is a count that is always 0.

    Args:
        log_rate: log of the expected count, any shape; it is the batch shape.
        validate_args: as in ``torch.distributions``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"log_rate": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, log_rate: Tensor, validate_args: bool | None = None) -> None:
        self.log_rate = log_rate
        super().__init__(log_rate.shape, validate_args=validate_args)

    def expand(self, batch_shape: _size, _instance: PoissonLogRate | None = None) -> PoissonLogRate:
        """Return the same counts with a larger batch shape."""
        return PoissonLogRate(self.log_rate.expand(batch_shape), validate_args=False)

    @property
    def mean(self) -> Tensor:
        """The expected count, exp(log_rate)."""
        return self.log_rate.exp()

    @property
    def variance(self) -> Tensor:
        """The variance, equal to the mean."""
        return self.log_rate.exp()

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draw counts of shape sample_shape + batch_shape."""
        with torch.no_grad():
            return torch.poisson(self.mean.expand(self._extended_shape(Size(sample_shape))))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value), elementwise, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        # 0 * log(0) = 0: a rate of exactly zero explains a count of zero perfectly
        gain = torch.where(value == 0, 0.0, value * self.log_rate)
        return gain - self.log_rate.exp() - torch.lgamma(value + 1)
