"""The choice of a dimension from the scores of a cross-validation, as a pure function."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from seqvae.errors import InputError

Rule: TypeAlias = Literal["paired_1se", "within_1pct", "min", "1se"]
RULES: tuple[Rule, ...] = ("paired_1se", "within_1pct", "min", "1se")

SHARE = 0.01
"""Of what the winner gains, which ``within_1pct`` allows a smaller size to lose."""


@dataclass(frozen=True)
class Choice:
    """A chosen dimension, and what it was chosen by.

    Attributes:
        dim: the chosen dimension.
        winner: the dimension of the highest summed score.
        dims: those that were compared, in ascending order.
        total: summed score of each.
        loss: summed score of the winner less that of each.
        loss_se: standard error of each loss, from the paired differences over cells.
        dropped: dimensions left out because a cell has no score.
    """

    dim: int
    winner: int
    dims: tuple[int, ...]
    total: tuple[float, ...]
    loss: tuple[float, ...]
    loss_se: tuple[float, ...]
    dropped: tuple[int, ...]


def choose(
    scores: Float[np.ndarray, "cell dim"],
    dims: list[int],
    *,
    rule: Rule = "paired_1se",
    name: str = "the model",
    swept: str = "dimension",
) -> Choice:
    """Choose the dimension that the scores of C cells support; ties go to the smaller.

    The winner w has the highest summed score. With d_c(k) = score_c(w) - score_c(k),

    - ``min`` takes w, where the error is least;
    - ``paired_1se`` the smallest k with ``sum_c d_c <= sqrt(C / (C - 1) sum_c (d_c - mean d)^2)``,
      one standard error of the *difference*: cells differ in difficulty, and what they share
      cancels;
    - ``within_1pct`` the smallest k with ``sum_c d_c <= 0.01 sum_c d_c(smallest)``: that has 99 %
      of what the winner gains over the smallest of the grid, the mean rate of dimension 0. Where
      data are many errors are so small that the rule above takes dimensions that gain a thousandth;
    - ``1se`` the smallest k within one standard error of the winner's own score over cells, the
      classical rule, which chooses too small where cells differ in difficulty.

    With one cell there is no error, and the rules that go by it are ``min``. A dimension with a
    missing score (NaN) is left out, and a choice at the upper end of the grid warned about: more
    may be better.

    Args:
        scores: summed score (nats, or minus a squared error) of each cell and dimension; higher is
            better.
        dims: the dimensions, one for each column.
        rule: as above.
        name: of the model, for the warnings.
        swept: what the dimensions are called there.

    Raises:
        InputError: if no dimension has all its scores.
    """
    order = np.argsort(dims, kind="stable")
    scores, sizes = np.asarray(scores, dtype=np.float64)[:, order], np.asarray(dims)[order]
    whole = np.isfinite(scores).all(axis=0)
    dropped = tuple(int(size) for size in sizes[~whole])
    if not whole.any():
        raise InputError(f"{name}: no dimension has a score in every cell; see the failed cells")
    if dropped:
        warnings.warn(
            f"{name}: {swept} {', '.join(map(str, dropped))} has failed cells and is left out",
            stacklevel=2,
        )
    whole_scores, sizes = scores[:, whole], sizes[whole]
    total = whole_scores.sum(axis=0)
    winner = int(np.argmax(total))  # the first of equals
    difference = whole_scores[:, [winner]] - whole_scores
    loss, loss_se = difference.sum(axis=0), sum_error(difference)
    chosen = int(np.argmax(loss <= allowed_loss(whole_scores, winner, rule)))
    if len(sizes) > 1 and chosen == len(sizes) - 1:
        warnings.warn(
            f"{name}: the chosen {swept} {sizes[chosen]} is the largest of the grid; add larger "
            "ones to dims",
            stacklevel=2,
        )
    return Choice(
        int(sizes[chosen]),
        int(sizes[winner]),
        tuple(int(size) for size in sizes),
        tuple(total.tolist()),
        tuple(loss.tolist()),
        tuple(loss_se.tolist()),
        dropped,
    )


def allowed_loss(
    scores: Float[np.ndarray, "cell dim"], winner: int, rule: Rule, *, error_scale: float = 1.0
) -> Float[np.ndarray, " dim"]:
    """Return what a rule allows each size to lose against the winner.

    Args:
        scores: summed score of each cell and size, in ascending order of sizes.
        winner: column of the winner.
        rule: as in ``choose``.
        error_scale: by which errors are larger than those of these scores.
    """
    difference = scores[:, [winner]] - scores
    if rule == "paired_1se":
        return error_scale * sum_error(difference)
    if rule == "within_1pct":
        return np.full(scores.shape[1], SHARE * max(0.0, difference[:, 0].sum()))
    if rule == "1se":
        return np.full(scores.shape[1], error_scale * sum_error(scores[:, [winner]])[0])
    return np.zeros(scores.shape[1])


def sum_error(values: Float[np.ndarray, "cell dim"]) -> Float[np.ndarray, " dim"]:
    """Return sqrt(C / (C - 1) sum (d - mean d)^2), the error of a sum of C independent cells.

    It is the constant of the rules, good for choosing; cells are not independent, so for what is
    told of a difference see ``intervals``.
    """
    num_cells = len(values)
    if num_cells < 2:
        return np.zeros(values.shape[1])
    deviation = values - values.mean(axis=0)
    return np.sqrt(num_cells / (num_cells - 1) * (deviation**2).sum(axis=0))
