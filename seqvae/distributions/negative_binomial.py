"""Overdispersed counts in log-mean form."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import softplus
from torch.types import _size

from seqvae.distributions.poisson import log_factorial

# From here on three terms of Stirling's series are exact to float64.
_STIRLING_FROM = 64.0


class NegativeBinomialLogMean(Distribution):
    """Counts with mean m = exp(log_mean) and variance m + alpha m^2, alpha = exp(log_dispersion).

    With the concentration r = 1 / alpha

        log p(x) = log G(x + r) - log G(r) - log x! - x log r + x log m - (x + r) log(1 + m / r),

    G the gamma function: a Poisson whose rate is gamma distributed with shape r. As alpha -> 0 it
    becomes the Poisson, and the density here does so without the cancellation between the two gamma
    functions that makes ``torch.distributions.NegativeBinomial`` noise in float32.

    Args:
        log_mean: log of the expected count.
        log_dispersion: log of alpha; broadcasts with ``log_mean`` to the batch shape.
        validate_args: as in ``torch.distributions``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "log_mean": constraints.real,
        "log_dispersion": constraints.real,
    }
    support = constraints.nonnegative_integer

    def __init__(
        self, log_mean: Tensor, log_dispersion: Tensor, validate_args: bool | None = None
    ) -> None:
        self.log_mean, self.log_dispersion = torch.broadcast_tensors(log_mean, log_dispersion)
        self._own_dispersion = log_dispersion  # what depends on it alone is computed once
        super().__init__(self.log_mean.shape, validate_args=validate_args)

    def expand(
        self, batch_shape: _size, _instance: NegativeBinomialLogMean | None = None
    ) -> NegativeBinomialLogMean:
        """Return the same counts with a larger batch shape."""
        return NegativeBinomialLogMean(
            self.log_mean.expand(batch_shape), self._own_dispersion, validate_args=False
        )

    @property
    def mean(self) -> Tensor:
        """The expected count, exp(log_mean)."""
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        """The variance, m + alpha m^2."""
        return self.mean + (self.log_dispersion + 2 * self.log_mean).exp()

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draw counts of shape sample_shape + batch_shape: a Poisson with a gamma rate."""
        with torch.no_grad():
            shape = self._extended_shape(Size(sample_shape))
            gamma = torch._standard_gamma((-self.log_dispersion).exp().expand(shape))
            return torch.poisson(gamma * (self.log_mean + self.log_dispersion).exp())

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value), elementwise, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        log_dispersion = self._own_dispersion
        concentration = (-log_dispersion).exp()
        return (
            _log_rising_ratio(value, concentration, log_dispersion)
            - log_factorial(value)
            + value * self.log_mean
            - (value + concentration) * softplus(self.log_mean + log_dispersion)
        )


def _log_rising_ratio(value: Tensor, concentration: Tensor, log_dispersion: Tensor) -> Tensor:
    """Return log G(x + r) - log G(r) - x log r, which tends to 0 as r grows."""
    small = concentration.clamp(max=_STIRLING_FROM)
    direct = torch.lgamma(value + small) - torch.lgamma(small) + value * log_dispersion
    large = concentration.clamp(min=_STIRLING_FROM)
    total = value + large
    series = (total - 0.5) * torch.log1p(value / large) - value
    series = series + _stirling_tail(total) - _stirling_tail(large)
    return torch.where(concentration < _STIRLING_FROM, direct, series)


def _stirling_tail(value: Tensor) -> Tensor:
    """Return log G(v) - [(v - 1/2) log v - v + log(2 pi) / 2] for large v."""
    square = value.square()
    return (1 / 12 - (1 / 360 - 1 / (1260 * square)) / square) / value
