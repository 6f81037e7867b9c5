"""Fits of one model by several seeds, compared: the best, and those that went astray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SCORES = {"heldin_elbo": 1.0, "log_likelihood": 1e-3}
"""What fits are compared by, the first that there is, and how far an outlier lies below at least:
nats per trial, and nats per entry, held-out ones among them, where a posterior is a point and
there is no bound."""
KEPT = ("best", "whole")
"""What becomes of the seeds that the ensemble holds."""
MOST_DEVIATIONS = 5.0
"""An outlier lies further below the median than so many median absolute deviations."""


@dataclass(frozen=True)
class Seed:
    """What became of a seed.

    Attributes:
        seed: the seed.
        hash: of its run; None if it could not be fitted.
        score: on the validation trials, as ``SCORES`` says; None without any.
        status: ``best``, ``whole``, ``outlier``, or why it could not be fitted.
    """

    seed: int
    hash: str | None
    score: float | None
    status: str


def compared(scores: Mapping[int, float | None], *, least: float) -> list[Seed]:
    """Tell the best of some seeds, and those that are outliers.

    With the median m of the scores and the median d of |score - m|, an outlier has a score below
    m - 5 d and below m - ``least``. Half of the seeds are never outliers.

    Args:
        scores: of each seed; None: of none.
        least: how far an outlier lies below the median at least.
    """
    known = {seed: score for seed, score in scores.items() if score is not None}
    if len(known) < len(scores) or not known:
        return [Seed(seed, None, score, "whole") for seed, score in scores.items()]
    median = float(np.median([*known.values()]))
    deviation = float(np.median([abs(score - median) for score in known.values()]))
    lowest = median - max(MOST_DEVIATIONS * deviation, least)
    best = max(known, key=known.__getitem__)
    rows = []
    for seed, score in known.items():
        status = "best" if seed == best else "outlier" if score < lowest else "whole"
        rows.append(Seed(seed, None, score, status))
    return rows
