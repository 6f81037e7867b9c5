"""By how much a posterior departs from the true one, quantity by quantity, and with which error."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.stats import f as f_distribution
from scipy.stats import norm, t

Kind = Literal["entries", "sums", "density"]
"""Latents one by one, their sums over time, and log p(x, z), which knows the data, too. What no
entry shows alone, as a dependence that is missing, the other two may (Modrak et al. 2023)."""

DENSITY = "log p(x, z)"

NUM_BATCHES = 20
"""Batches of the reference draws, whose spread tells the error of a mean over dependent draws."""


class Departure(NamedTuple):
    """How mean or variance of a quantity under the model's posterior depart from the true ones.

    Attributes:
        quantity: its name.
        kind: what it is made of.
        aspect: of its distribution.
        size: of ``mean`` how much too high, in standard deviations; of ``variance`` the ratio of
            the model's to the true one. Of many columns or entries that of the worst.
        error: Monte Carlo standard error of ``size``.
        p_value: of no departure in any column.
    """

    quantity: str
    kind: Kind
    aspect: Literal["mean", "variance"]
    size: float
    error: float
    p_value: float

    @property
    def sentence(self) -> str:
        """What is the matter, with its Monte Carlo error."""
        if self.aspect == "variance":
            return f"variance of {self.quantity} {self.size:.2f} +- {self.error:.2f} times the true"
        way = "high" if self.size > 0 else "low"
        return f"{self.quantity} too {way} by {abs(self.size):.2f} +- {self.error:.2f} sd"


def departures_of_ranks(
    ranks: Int[np.ndarray, "trial ..."], num_draws: int, *, quantity: str, kind: Kind
) -> list[Departure]:
    """Test ranks of true values among posterior draws for mean and variance.

    A rank among L draws is uniform on 0..L if the posterior is exact. With u = (rank + 1/2)/(L + 1)
    the Legendre polynomials P_1(u) and P_2(u), the first two components of Neyman's smooth test
    (1937), tell a shift and a wrong width; before the second the normal scores Phi^-1(u) are
    centred, so that a shift is no width. Where a trial has one value, the variance of a component
    is known; those of its bins, which are dependent, are averaged, and trials read by Student's t.
    The last axis is tested column by column, and the least p-value multiplied by their number
    (Bonferroni). Where truths lie beyond all draws, sizes are no larger than L draws can tell.

    Args:
        ranks: from 0 to ``num_draws``: (trial,), (trial, column) or (trial, time, column).
        num_draws: L.
        quantity: its name.
        kind: what it is made of.
    """
    cells = ranks.reshape(len(ranks), -1, ranks.shape[-1] if ranks.ndim > 1 else 1)
    levels = (np.arange(num_draws + 1) + 0.5) / (num_draws + 1)
    scale = norm.ppf(levels).std()
    scores = norm.ppf(levels)[cells] / scale  # (trial, time, column)
    mean = scores.mean((0, 1))
    squares = np.square(2 * levels - 1)
    first = ((2 * levels - 1) / (2 * levels - 1).std())[cells].mean(1)
    second = np.square(2 * norm.cdf((scores - mean) * scale) - 1)
    second = ((second - squares.mean()) / squares.std()).mean(1)
    is_known = cells.shape[1] == 1
    spread = np.square(scores - mean).mean(1)  # (trial, column)
    variance, number = np.maximum(spread.mean(0), 1 / num_draws), len(ranks)
    answers: list[Departure] = []
    sizes: dict[Literal["mean", "variance"], tuple[np.ndarray, np.ndarray, np.ndarray]] = {
        "mean": (first, -mean, scores.mean(1).std(0, ddof=1) / number**0.5),
        "variance": (second, 1 / variance, spread.std(0, ddof=1) / number**0.5 / variance**2),
    }
    for aspect, (component, size, error) in sizes.items():
        p_values = _of_no_mean(component, is_known=is_known)
        answers.append(_worst(quantity, kind, aspect, size=size, error=error, p_values=p_values))
    return answers


def _of_no_mean(
    component: Float[np.ndarray, "trial column"], *, is_known: bool
) -> Float[np.ndarray, " column"]:
    """Return the p-value of a mean of zero of each column; ``is_known``: the variance is 1."""
    number = len(component)
    if is_known:
        return 2 * norm.sf(np.abs(component.mean(0)) * number**0.5)
    error = np.maximum(component.std(0, ddof=1) / number**0.5, 1e-12)
    return 2 * t.sf(np.abs(component.mean(0)) / error, number - 1)


def departures_of_draws(
    model: Shaped[np.ndarray, "model_draw ..."],
    reference: Shaped[np.ndarray, "chain draw ..."],
    *,
    quantity: str,
    kind: Kind,
) -> list[Departure]:
    """Test draws of the model's posterior against dependent draws of the true one.

    Means are compared entry by entry, variances (their logarithms) averaged over time. The
    reference's errors are those of ``NUM_BATCHES`` means of successive draws (batch means); the
    model's draws are independent. Differences are read by Student's t with one degree of freedom
    less than batches, and the least p-value multiplied by the number of entries or columns.

    Args:
        model: (draw,), (draw, column) or (draw, time, column).
        reference: likewise, of each chain.
        quantity: its name.
        kind: what it is made of.
    """
    shape = (-1, model.shape[-1] if model.ndim > 1 else 1)
    ours = model.reshape(len(model), *shape)
    theirs = reference.reshape(*reference.shape[:2], *shape)
    mean, sd = theirs.mean((0, 1)), np.maximum(theirs.std((0, 1)), 1e-12)
    ours, theirs = (ours - mean) / sd, (theirs - mean) / sd
    batches = in_batches(theirs)

    def error(of_batch: np.ndarray, of_draw: np.ndarray) -> np.ndarray:
        variance = of_batch.var(0, ddof=1) / len(of_batch) + of_draw.var(0) / len(of_draw)
        return np.maximum(np.sqrt(variance), 1e-12)

    shift = ours.mean(0)
    squares = np.square(ours - shift).mean(1)
    ratio = np.maximum(squares.mean(0), 1e-12)
    answers: list[Departure] = []
    shift_error = error(batches.mean(1), ours)
    log_error = error(np.square(batches).mean((1, 2)), squares / ratio)
    statistics: dict[Literal["mean", "variance"], tuple[np.ndarray, np.ndarray, np.ndarray]] = {
        "mean": (shift, shift_error, shift / shift_error),
        "variance": (ratio, ratio * log_error, np.log(ratio) / log_error),
    }
    for aspect, (value, value_error, statistic) in statistics.items():
        p_values = 2 * t.sf(np.abs(statistic), len(batches) - 1)
        answers.append(
            _worst(quantity, kind, aspect, size=value, error=value_error, p_values=p_values)
        )
    return answers


def in_batches(draws: Shaped[np.ndarray, "chain draw ..."]) -> Shaped[np.ndarray, "batch step ..."]:
    """Return about ``NUM_BATCHES`` batches of successive draws; what is left over is left out."""
    chains, length = draws.shape[:2]
    size = max(1, chains * length // NUM_BATCHES)
    return draws[:, : length // size * size].reshape(-1, size, *draws.shape[2:])


def _worst(
    quantity: str,
    kind: Kind,
    aspect: Literal["mean", "variance"],
    *,
    size: np.ndarray,
    error: np.ndarray,
    p_values: np.ndarray,
) -> Departure:
    place = int(np.argmin(p_values))
    corrected = min(1.0, float(p_values.size * p_values.flat[place]))
    number = p_values.shape[-1]
    name = f"{quantity}, dimension {place % number + 1}" if number > 1 else quantity
    return Departure(
        name, kind, aspect, float(size.flat[place]), float(error.flat[place]), corrected
    )


def hotelling(
    values: Float[np.ndarray, "trial component"], excess: Float[np.ndarray, " component"]
) -> float:
    """Return the p-value of a mean that differs from the expected one by ``excess``.

    With S the covariance of the values, N excess' S^-1 excess (N - p) / (p (N - 1)) has the law
    F(p, N - p) (Hotelling 1931). An excess in a direction in which the values never vary is no
    chance: 0.
    """
    number, size = values.shape
    covariance = np.cov(values.T).reshape(size, size)
    inverse = np.linalg.pinv(covariance)
    apart = covariance @ (inverse @ excess) - excess
    if np.abs(apart).max() > 1e-6 + 1e-6 * np.abs(excess).max():
        return 0.0
    statistic = number * float(excess @ inverse @ excess)
    scaled = statistic * (number - size) / (size * (number - 1))
    return float(f_distribution.sf(scaled, size, number - size))
