"""How far a difference of cross-validated scores can be trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

LEVEL = 0.95


class Interval(NamedTuple):
    """A sum over cells, its standard error, and what holds the true one in 95 of 100 data sets.

    Attributes:
        mean: the sum itself, what is expected of another data set like this one.
        standard_error: of it; infinite where one trial fold tells of no spread.
        degrees_of_freedom: of the t distribution that ``low`` and ``high`` are read from.
        low: lower end.
        high: upper end.
    """

    mean: float
    standard_error: float
    degrees_of_freedom: int
    low: float
    high: float

    def in_unit(self, size: float) -> dict[str, float | int | None]:
        """Return all of it divided by a size, as JSON has it: what is infinite is None."""
        scaled = {name: getattr(self, name) / size for name in self._fields}
        as_json = {name: value if math.isfinite(value) else None for name, value in scaled.items()}
        return as_json | {"degrees_of_freedom": self.degrees_of_freedom}


def interval(difference: Float[np.ndarray, " cell"], rows: Int[np.ndarray, " cell"]) -> Interval:
    """Return the interval of a sum over cells that share rows, training rows and fits.

    Cells of one trial fold share trials, latents and the fit, so they count as one: d_r is the
    sum over the cells of fold r of R. Folds share most of their training rows; for this the
    variance of their sum is enlarged by the ratio of scored to training rows [Nadeau & Bengio
    2003, Machine Learning 52:239, eq. 7]:

        SE = sqrt(R / (R - 1) sum_r (d_r - mean d)^2) sqrt(1 + R / (R - 1)),

    read with Student's t of R - 1 degrees of freedom. The true error is 1.2 to 3.2 times that of
    independent cells in ``benchmarks/selection.py``, as what there is to gain differs between rows.

    Args:
        difference: of summed scores, in each cell.
        rows: the trial fold of each cell.
    """
    from scipy import stats

    folds, place = np.unique(rows, return_inverse=True)
    number, mean = len(folds), float(difference.sum())
    if number < 2:
        return Interval(mean, math.inf, 0, -math.inf, math.inf)
    each = np.bincount(place, weights=difference, minlength=number)
    spread = number / (number - 1) * float(((each - each.mean()) ** 2).sum())
    error = math.sqrt(spread * (1 + number / (number - 1)))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, number - 1)) * error
    return Interval(mean, error, number - 1, mean - reach, mean + reach)


def gap_words(gap: Mapping[str, Any]) -> str:
    """Say how large a difference is, and between which ends the data leave it.

    Args:
        gap: as ``Interval.in_unit`` returns it; one without ends is of an older summary.
    """
    if "low" not in gap:
        return f"{gap['mean']:.4f} (how sure that is, an older summary cannot tell; make it again)"
    if gap["low"] is None:
        return f"{gap['mean']:.4f} (one trial fold cannot tell how sure that is)"
    return (
        f"{gap['mean']:.4f}, 95 % interval {gap['low']:.4f} to {gap['high']:.4f} (t of "
        f"{gap['degrees_of_freedom']}, over trial folds)"
    )
