"""Events of real size among exact zeros."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid
from torch.types import _size

from seqvae.types import Moments

_SHAPE_RANGE = (0.05, 100.0)
_LEAST_SHARE = 1e-6


class ZeroInflatedGammaLogScale(Distribution):
    """Zero, or a gamma variable beyond a threshold [Wei, Zhou, ..., Paninski 2020].

        P(x = 0) = 1 - q,   x - s ~ Gamma(shape k, scale theta) else,   q = 1 / (1 + exp(-logits)).

    The density is against Lebesgue measure plus a point mass of 1 at zero:

        log p(0) = log(1 - q),
        log p(x) = log q + (k - 1) log(x - s) - (x - s) / theta - log G(k) - k log theta,  x > s,

    and 0 in between. Measured in a unit c times smaller, a nonzero entry loses log c, under
    whatever such distribution.

    Args:
        logits: log-odds of an event.
        log_shape: log k.
        log_scale: log theta, theta in data units; the three broadcast to the batch shape.
        threshold: s, in data units, 0 or above.
        validate_args: as in ``torch.distributions``.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "logits": constraints.real,
        "log_shape": constraints.real,
        "log_scale": constraints.real,
    }
    support = constraints.nonnegative

    def __init__(
        self,
        logits: Tensor,
        log_shape: Tensor,
        log_scale: Tensor,
        *,
        threshold: float = 0.0,
        validate_args: bool | None = False,
    ) -> None:
        parts = torch.broadcast_tensors(logits, log_shape, log_scale)
        self.logits, self.log_shape, self.log_scale = parts
        self._narrow_log_shape = log_shape  # what depends on it alone is computed once
        self.threshold = threshold
        super().__init__(self.logits.shape, validate_args=validate_args)

    @classmethod
    def of_moments(cls, moments: Moments, *, threshold: float = 0.0) -> ZeroInflatedGammaLogScale:
        """Return that of each neuron's share of events, and mean and variance of their sizes.

        The shape (mean - s)^2 / variance is held between 0.05 and 100. An event of a neuron that
        has shown none is as large as those of the others, and rare.
        """
        mean, std, nonzero = (part.double() for part in moments)
        share = nonzero.clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
        size, seen = mean / share, mean > 0
        size = torch.where(seen, size, size[seen].mean() if bool(seen.any()) else 1.0)
        variance = (std.square() + mean.square()) / share - size.square()
        beyond = torch.maximum(size - threshold, 1e-3 * size)
        shape = beyond.square() / variance.clamp_min(torch.finfo(variance.dtype).tiny)
        shape = torch.where(seen, shape, 1.0).clamp(*_SHAPE_RANGE)
        parts = (share.logit(), shape.log(), (beyond / shape).log())
        return cls(*(part.to(moments.mean) for part in parts), threshold=threshold)

    def expand(
        self, batch_shape: _size, _instance: ZeroInflatedGammaLogScale | None = None
    ) -> ZeroInflatedGammaLogScale:
        """Return the same events with a larger batch shape."""
        return ZeroInflatedGammaLogScale(
            self.logits.expand(batch_shape),
            self._narrow_log_shape,
            self.log_scale.expand(batch_shape),
            threshold=self.threshold,
        )

    @property
    def _event_mean(self) -> Tensor:
        return self.threshold + (self.log_shape + self.log_scale).exp()

    @property
    def mean(self) -> Tensor:
        """The expected value, q (s + k theta)."""
        return self.logits.sigmoid() * self._event_mean

    @property
    def variance(self) -> Tensor:
        """The variance, q k theta^2 + q (1 - q) (s + k theta)^2."""
        share = self.logits.sigmoid()
        within = share * (self.log_shape + 2 * self.log_scale).exp()
        return within + share * (-self.logits).sigmoid() * self._event_mean.square()

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draw values of shape sample_shape + batch_shape; an event is always beyond s."""
        with torch.no_grad():
            shape = self._extended_shape(Size(sample_shape))
            gamma = torch._standard_gamma(self.log_shape.exp().expand(shape).contiguous())
            event = self.threshold + gamma * self.log_scale.exp()
            least = torch.full_like(event, max(self.threshold, torch.finfo(event.dtype).tiny))
            event = event.maximum(least.nextafter(torch.full_like(event, math.inf)))
            is_event = torch.bernoulli(self.logits.sigmoid().expand(shape))
            return torch.where(is_event > 0, event, 0.0)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value), elementwise, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        beyond = value - self.threshold
        is_event = beyond > 0
        beyond = torch.where(is_event, beyond, 1.0)  # whose gradient is finite
        log_shape = self._narrow_log_shape
        shape = log_shape.exp()
        scaled = beyond.log() - self.log_scale
        size = shape * scaled - scaled.exp() - beyond.log() - torch.lgamma(shape)
        event = torch.where(is_event, logsigmoid(self.logits) + size, -math.inf)
        return torch.where(value == 0, logsigmoid(-self.logits), event)
