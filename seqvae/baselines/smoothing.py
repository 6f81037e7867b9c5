"""Gaussian smoothing that knows of edges and gaps, and the choice of its width.

Arrays are (trial, time, neuron), NaN = missing.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from seqvae.distributions.kinds import DataKind

_WIDTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
MOST_BINS = 20_000
"""Bins by which settings are chosen; more would not change the choice, but take longer."""
PRIOR_BINS = (1e9, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3)


def kernel_sums(
    activity: Float[np.ndarray, "trial encoded_time neuron"],
    width: float,
    *,
    num_bins: int,
    leave_out: bool = False,
) -> tuple[Float[np.ndarray, "trial time neuron"], Float[np.ndarray, "#trial time #neuron"]]:
    """Sums over present entries s of k(t - s) x_s and of k(t - s); k(0) = 1, or 0 if left out."""
    lag = np.arange(num_bins)[:, None] - np.arange(activity.shape[1])
    kernel = np.exp(-0.5 * (lag / width) ** 2)
    if leave_out:
        kernel[lag == 0] = 0.0
    present = np.isfinite(activity)
    if present.all():
        return kernel @ activity, kernel.sum(1)[None, :, None]
    return kernel @ np.where(present, activity, 0.0), kernel @ present.astype(np.float64)


def shrunk(
    sums: tuple[Float[np.ndarray, "trial time neuron"], Float[np.ndarray, "#trial time #neuron"]],
    mean: Float[np.ndarray, " neuron"],
    *,
    bins: float,
) -> Float[np.ndarray, "trial time neuron"]:
    """Local average, shrunk to ``mean`` as if that had been seen in so many ``bins`` more."""
    total, weight = sums
    average = total + bins * mean
    average /= weight + bins
    return average


def choose_smoothing(
    activity: Float[np.ndarray, "trial time neuron"],
    mean: Float[np.ndarray, " neuron"],
    *,
    unit: Float[np.ndarray, " neuron"],
    kind: DataKind,
) -> tuple[float, float]:
    """Kernel width and prior bins that predict each entry best from the other bins.

    Among equals the strongest prior wins.
    """
    scores = {}
    activity = activity[some_trials(activity)]
    for width in widths(activity.shape[1]):
        sums = kernel_sums(activity, width, num_bins=activity.shape[1], leave_out=True)
        for bins in PRIOR_BINS:
            predicted = kind.inside_support(shrunk(sums, mean, bins=bins))
            terms = kind.log_likelihood(activity, predicted, unit=unit)
            scores[width, bins] = float(np.nansum(terms))
    return max(scores, key=scores.__getitem__)


def widths(num_bins: int) -> list[float]:
    """Kernel widths worth trying."""
    return [width for width in _WIDTHS if width <= num_bins]


def some_trials(activity: Float[np.ndarray, "trial time neuron"]) -> slice:
    """Return trials evenly spaced of 20,000 to 40,000 bins, or all where there are fewer."""
    return slice(None, None, max(1, activity.shape[0] * activity.shape[1] // MOST_BINS))
