"""Dropout with cheap masks: 16 random bits an entry."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqvae.compute import noise
from seqvae.compute.noise import LEVELS, LOWEST
from seqvae.errors import InputError


def dropout_mask(
    shape: tuple[int, ...],
    rate: float,
    *,
    like: Tensor,
    trial_axis: int = 0,
    trials_inner: bool = False,
) -> Float[Tensor, "*shape"]:
    """Draw a mask: 0 with probability q, else 1 / (1 - q), so that its mean is 1.

    q is ``rate`` rounded to a multiple of 1 / 65536.

    Args:
        shape: of the mask: samples, if any, then trials, then the entries of each.
        rate: probability that an entry is 0.
        like: gives dtype and device.
        trial_axis: where the trials are.
        trials_inner: lay out the entries of all trials beside each other in memory.

    Raises:
        InputError: if the rate is not from 0 to below 1.
    """
    num_dropped = _num_dropped(rate)
    draws = noise.int16(shape, like=like, axis=trial_axis, trials_inner=trials_inner)
    axes = sorted(range(draws.ndim), key=draws.stride, reverse=True)
    draws = draws.permute(axes)  # as they lie in memory; any other order takes ten times as long
    mask = torch.empty(draws.shape, dtype=like.dtype, device=like.device)
    torch.ge(draws, LOWEST + num_dropped, out=mask)
    mask.mul_(LEVELS / (LEVELS - num_dropped))
    return mask.permute(sorted(range(mask.ndim), key=axes.__getitem__))


class Dropout(nn.Module):
    """Sets entries to 0 in training and scales the others, so that the mean stays; see the mask.

    Args:
        rate: probability with which an entry is dropped.
        trial_axis: of the inputs; their noise depends on the trial. Axes before it are samples.

    Raises:
        InputError: if the rate is not from 0 to below 1.
    """

    def __init__(self, rate: float, *, trial_axis: int = 0) -> None:
        super().__init__()
        _num_dropped(rate)
        self.rate = rate
        self.trial_axis = trial_axis

    def forward(self, inputs: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the inputs with a fresh mask, or as they are when not in training."""
        if not self.training or self.rate == 0:
            return inputs
        mask = dropout_mask(
            inputs.shape,
            self.rate,
            like=inputs,
            trial_axis=self.trial_axis,
            trials_inner=self._trials_inner(inputs),
        )
        return inputs * mask

    def _trials_inner(self, inputs: Tensor) -> bool:
        """Whether the entries of all trials are beside each other in memory."""
        axes = [*range(self.trial_axis + 1, inputs.ndim), *range(self.trial_axis + 1)]
        return not inputs.is_contiguous() and inputs.permute(axes).is_contiguous()

    def extra_repr(self) -> str:
        """Tell the rate."""
        return f"rate={self.rate:g}"


def _num_dropped(rate: float) -> int:
    """Return how many of the levels of a draw stand for a dropped entry."""
    if not 0 <= rate < 1:
        raise InputError(f"dropout must be from 0 to below 1, got {rate:g}")
    return min(round(rate * LEVELS), LEVELS - 1)
