"""Positive parameters, stored as their logarithm."""

from __future__ import annotations

import math

import torch
from torch import nn

from seqvae.errors import InputError


def log_parameter(name: str, value: float, size: int) -> nn.Parameter:
    """Return log(value) repeated ``size`` times as a parameter; ``name`` is for the error.

    Raises:
        InputError: ``value`` is not positive and finite.
    """
    if not (value > 0 and math.isfinite(value)):
        raise InputError(f"{name} must be positive and finite, got {value}")
    return nn.Parameter(torch.full((size,), math.log(value)))
