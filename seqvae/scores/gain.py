"""How much better one model predicts than another, paired over trials."""

from __future__ import annotations

import math
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor


class PairedGain(NamedTuple):
    """A paired difference over trials: ratio of sums, and its standard error."""

    mean: float
    standard_error: float


def paired_gain(
    difference: Float[Tensor, " trial"], size: Float[Tensor, " trial"]
) -> PairedGain | None:
    """Return the ratio of sums g = sum_i d_i / sum_i n_i and its standard error over trials.

    By linearisation se(g) = sqrt(N / (N - 1) sum_i (d_i - g n_i)^2) / sum_i n_i for N independent
    trials [Cochran 1977, ch. 6]; where all n_i are equal it is that of the mean of d_i / n_i.

    Args:
        difference: d_i, what one row gains over another in trial i, in nats.
        size: n_i: spikes times ln 2, so that g is in bits per spike, or scored entries.

    Returns:
        None for fewer than two trials, or none with a spike (an entry).
    """
    num_trials, total = len(size), float(size.sum())
    if num_trials < 2 or total == 0:
        return None
    mean = float(difference.sum()) / total
    residual = float((difference - mean * size).square().sum())
    return PairedGain(mean, math.sqrt(residual * num_trials / (num_trials - 1)) / total)
