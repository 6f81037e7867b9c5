"""From the predictor eta = w . f + b of a neuron to the mean of its counts."""

from __future__ import annotations

import typing
from typing import Annotated, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import softplus

from seqvae.config.arguments import InConfig
from seqvae.errors import InputError

_LinkName: TypeAlias = Literal["exp", "softplus"]
Link: TypeAlias = Annotated[_LinkName, InConfig(tells_default=False)]
"""exp: m = exp(eta). softplus: m = log(1 + exp(eta)), which grows no faster than eta itself."""

_FAR = 40.0
"""From here on log(1 + exp(eta)) is eta, and from -40 down exp(eta), to float64."""

_HIGHEST = 30.0
"""Counts beyond exp(30) are no expectation that inference should follow."""


def check_link(link: str) -> None:
    """Refuse another word.

    Raises:
        InputError: naming it and the choices.
    """
    if link not in typing.get_args(_LinkName):
        raise InputError(f"link must be 'exp' or 'softplus', got {link!r}")


def log_mean(predictor: Tensor, link: Link) -> Tensor:
    """Return log m at a predictor of any shape; finite, with its gradient, for all finite eta."""
    if link == "exp":
        return predictor
    is_near = predictor > -_FAR
    near = softplus(torch.where(is_near, predictor, 0.0), threshold=_FAR).log()
    return torch.where(is_near, near, predictor)


def mean_and_slope(predictor: Tensor, link: Link) -> tuple[Tensor, Tensor]:
    """Return m and dm / d eta at a predictor of any shape, which is held below 30."""
    if link == "exp":
        mean = predictor.clamp(max=_HIGHEST).exp()
        return mean, mean
    mean = log_mean(predictor, link).exp()
    return mean, torch.sigmoid(predictor)


def predictor_at(mean: Tensor, link: Link) -> Tensor:
    """Return the predictor eta of a mean above 0, of any shape."""
    return mean.log() if link == "exp" else mean + (-torch.expm1(-mean)).log()
