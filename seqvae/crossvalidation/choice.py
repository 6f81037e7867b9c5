"""The choice of a dimension from the scores of a cross-validation, as a pure function."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from seqvae.errors import InputError

Rule: TypeAlias = Literal["paired_1se", "min", "1se"]
RULES: tuple[Rule, ...] = ("paired_1se", "min", "1se")


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
    - ``1se`` the smallest k within one standard error of the winner's own score over cells, the
      classical rule, which chooses too small where cells differ in difficulty.

    With one cell there is no error, and every rule is ``min``. A dimension with a missing score
    (NaN) is left out, and a choice at the upper end of the grid warned about: more may be better.

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
    num_cells, total = len(whole_scores), whole_scores.sum(axis=0)
    winner = int(np.argmax(total))  # the first of equals
    difference = whole_scores[:, [winner]] - whole_scores
    loss, loss_se = difference.sum(axis=0), sum_error(difference)
    if rule == "paired_1se":
        allowed = loss_se
    elif rule == "1se":
        allowed = np.full(len(sizes), sum_error(whole_scores[:, [winner]])[0])
    else:
        allowed = np.zeros(len(sizes))
    chosen = int(np.argmax(loss <= (allowed if num_cells > 1 else 0.0)))
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
