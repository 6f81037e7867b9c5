"""Sixteen random bits an entry: what a mask needs, at a fraction of a uniform number's price."""

from __future__ import annotations

import torch
from jaxtyping import Int16, Shaped
from torch import Tensor

LEVELS = 1 << 16
"""How many values 16 bits have."""

LOWEST = -(1 << 15)
"""The least of them, as a signed number."""


def random_int16(
    like: Shaped[Tensor, "*shape"], generator: torch.Generator | None = None
) -> Int16[Tensor, "*shape"]:
    """Draw one of ``LEVELS`` values, all alike, for each entry of a tensor.

    A draw is below ``LOWEST + n`` with probability n / ``LEVELS``, exactly. It has the shape,
    the device and the order in memory of ``like``.
    """
    words = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device)
    words.random_(-(2**63), None, generator=generator)  # one draw of 64 bits makes four
    strides = torch.empty_like(like, dtype=torch.int16).stride()
    return words.view(torch.int16).as_strided(like.shape, strides)
