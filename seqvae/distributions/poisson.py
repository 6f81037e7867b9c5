"""Poisson counts in log-rate form."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Size, Tensor
from torch.distributions import Distribution, constraints
from torch.distributions.utils import lazy_property
from torch.types import _size

_TABLE_SIZE = 4096


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

    @lazy_property
    def mean(self) -> Tensor:
        """The expected count, exp(log_rate)."""
        return self.log_rate.exp()

    @property
    def variance(self) -> Tensor:
        """The variance, equal to the mean."""
        return self.mean

    def sample(self, sample_shape: _size = ()) -> Tensor:
        """Draw counts of shape sample_shape + batch_shape."""
        with torch.no_grad():
            return torch.poisson(self.mean.expand(self._extended_shape(Size(sample_shape))))

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(value), elementwise, in nats."""
        if self._validate_args:
            self._validate_sample(value)
        # 0 * log(0) = 0: a rate of exactly zero explains a count of zero perfectly
        gain = (value * self.log_rate).nan_to_num_(nan=0.0, posinf=math.inf, neginf=-math.inf)
        return gain.sub_(self.mean).sub_(log_factorial(value))

    def weighted_log_prob(self, value: Tensor, weight: Tensor) -> Tensor:
        """Return the sum over the last two axes of weight * log p(value), in nats.

        It is ``(weight * log_prob(value)).sum((-2, -1))``, forward and backward in a third of the
        time. An entry of weight 0 may hold any finite value.
        """
        if value.requires_grad or weight.requires_grad:
            return (weight * self.log_prob(value)).sum((-2, -1))
        if self._validate_args:
            self._validate_sample(value)
        counts = weight * value
        constant = (weight * log_factorial(value)).sum((-2, -1))
        log_rate = self.log_rate.to(torch.promote_types(self.log_rate.dtype, counts.dtype))
        log_rate = log_rate.expand(torch.broadcast_shapes(log_rate.shape, counts.shape))
        return _WeightedGain.apply(log_rate, counts, weight) - constant


class _WeightedGain(torch.autograd.Function):
    """Sum over the last two axes of w x log_rate - w exp(log_rate), given w x and w.

    The gradient w (x - exp(log_rate)) is at hand in the forward pass and kept.
    """

    @staticmethod
    def forward(ctx: Any, log_rate: Tensor, counts: Tensor, weight: Tensor) -> Tensor:
        rate = log_rate.exp().mul_(weight)
        gain = (counts * log_rate).nansum((-2, -1)) - rate.sum((-2, -1))  # nan: 0 * log(0) = 0
        ctx.save_for_backward(log_rate, counts, weight, torch.sub(counts, rate, out=rate))
        return gain

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        log_rate, counts, weight, slope = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated once more
            slope = counts - weight * log_rate.exp()
        return grad[..., None, None] * slope, None, None


def log_factorial(counts: Tensor) -> Tensor:
    """Return log x!, elementwise, in nats; finite also for what is finite but no count.

    On a CPU the gamma function takes as long as five exponentials, so small counts are looked up.
    """
    counts = counts if counts.is_floating_point() else counts.to(torch.get_default_dtype())
    if counts.device.type == "cpu" and counts.numel() and not counts.requires_grad:
        least, most = torch.aminmax(counts)
        if least >= 0 and most < _TABLE_SIZE and counts.frac().amax() == 0:
            values = _table(counts.dtype).index_select(0, counts.to(torch.int32).flatten())
            return values.view(counts.shape)
    return torch.lgamma(counts.clamp(0.0, 1e30) + 1)


@cache
def _table(dtype: torch.dtype) -> Tensor:
    """Return log 0!, log 1!, ..."""
    with torch.inference_mode(False):
        return torch.lgamma(torch.arange(1, _TABLE_SIZE + 1, dtype=torch.float64)).to(dtype)
