"""The panel: what each estimator says of the number of latents, beside cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from seqvae.crossvalidation.panel.hard_threshold import hard_threshold
from seqvae.crossvalidation.panel.matrix import standardized_rows, trials_of
from seqvae.crossvalidation.panel.participation import participation_ratio
from seqvae.crossvalidation.panel.relevance import automatic_relevance
from seqvae.crossvalidation.panel.sign_flips import sign_flips, singular_values


class Estimate(NamedTuple):
    """What an estimator says.

    Attributes:
        estimator: its name.
        dimension: a number of components, or a ratio; None: it cannot tell.
        assumes: of the data, and what breaks it.
        details: what else it says.
    """

    estimator: str
    dimension: int | float | None
    assumes: str
    details: Mapping[str, Any]


def estimates(
    activity: Float[np.ndarray, "trial time neuron"], *, counts: bool, seed: int = 0
) -> list[Estimate]:
    """Ask parallel analysis, the hard threshold, the participation ratio and ARD.

    Args:
        activity: of all trials, NaN = missing.
        counts: whether it is counts.
        seed: of what is random in them.

    Raises:
        InputError: for too few bins or neurons (``standardized_rows``).
    """
    rows = standardized_rows(activity, counts=counts)
    flips, threshold = sign_flips(rows, seed=seed), hard_threshold(rows)
    relevance = automatic_relevance(rows.T @ rows / len(rows), len(rows))
    trials = trials_of(activity, counts=counts)
    lag = 1 if trials.shape[1] > 1 else 0
    ratio = participation_ratio(trials, lag=lag, seed=seed)
    return [
        Estimate(
            "parallel analysis (sign flips)", flips.upper_edge,
            "symmetric noise, independent between all entries; slow noise passes for components",
            {"pairwise": flips.pairwise, "threshold": flips.threshold,
             "singular_values": singular_values(rows).tolist()},
        ),
        Estimate(
            "hard threshold (Gavish-Donoho)", threshold.dimension,
            "noise of equal variance, independent between all entries; made for denoising, counts "
            "what can be estimated",
            {"threshold": threshold.threshold},
        ),
        Estimate(
            "participation ratio (unbiased)",
            None if np.isnan(ratio.dimension) else ratio.dimension,
            "independent trials; noise of a bin is left out, private slow noise is not; no count: "
            "unequal latents count for less than one"
            if lag else "independent trials of one bin, whose noise counts as dimensions",
            {"lag": lag, "trace_of_square": _number(ratio.trace_of_square),
             "chance": _number(ratio.chance)},
        ),
        Estimate(
            "factor analysis with ARD", relevance.dimension,
            "Gaussian rows, independent of each other; counts slow bins as more evidence than they "
            "are",
            {"relevance": list(relevance.relevance), "is_largest": relevance.is_largest},
        ),
    ]  # fmt: skip


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value
