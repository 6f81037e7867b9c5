"""Dropout with cheap masks: 16 random bits an entry."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqvae.errors import InputError
from seqvae.random_bits import LEVELS, LOWEST, random_int16


def dropout_mask(
    shape: tuple[int, ...],
    rate: float,
    *,
    like: Tensor,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*shape"]:
    """Draw a mask: 0 with probability q, else 1 / (1 - q), so that its mean is 1.

    q is ``rate`` rounded to a multiple of 1 / 65536.

    Args:
        shape: of the mask.
        rate: probability that an entry is 0.
        like: gives dtype and device, and, if it has the same shape, the order in memory.
        generator: source of randomness; None: torch's own.

    Raises:
        InputError: if the rate is not from 0 to below 1.
    """
    num_dropped = _num_dropped(rate)
    mask = torch.empty_like(like) if like.shape == shape else like.new_empty(shape)
    torch.ge(random_int16(mask, generator), LOWEST + num_dropped, out=mask)
    return mask.mul_(LEVELS / (LEVELS - num_dropped))


class Dropout(nn.Module):
    """Sets entries to 0 in training and scales the others, so that the mean stays; see the mask.

    Args:
        rate: probability with which an entry is dropped.

    Raises:
        InputError: if the rate is not from 0 to below 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        _num_dropped(rate)
        self.rate = rate

    def forward(self, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the inputs with a fresh mask, or as they are when not in training."""
        if not self.training or self.rate == 0:
            return inputs
        return inputs * dropout_mask(inputs.shape, self.rate, like=inputs)

    def extra_repr(self) -> str:
        """Tell the rate."""
        return f"rate={self.rate:g}"


def _num_dropped(rate: float) -> int:
    """Return how many of the levels of a draw stand for a dropped entry."""
    if not 0 <= rate < 1:
        raise InputError(f"dropout must be from 0 to below 1, got {rate:g}")
    return min(round(rate * LEVELS), LEVELS - 1)
