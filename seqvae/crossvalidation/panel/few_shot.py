"""The dimension from which few trials suffice to read out unseen neurons."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from seqvae.crossvalidation.choice import Rule, choose
from seqvae.crossvalidation.panel.estimates import Estimate
from seqvae.crossvalidation.table import Grid

if TYPE_CHECKING:
    import pandas as pd


def few_shot(table: pd.DataFrame, model: str, *, rule: Rule, shots: int) -> Estimate | None:
    """Choose a dimension by few-shot co-smoothing, with the rule of the cross-validation.

    Held-out neurons are read from the factors by a ridge-penalised GLM learned on ``shots``
    trials only [Dabholkar & Barak 2024, arXiv:2408.14442]. Of models that co-smooth as well, those
    whose latents hold what the data do not need are read worse from few trials, as the readout
    has to learn to ignore it. Its authors compare models by it; that it is asked here for a
    dimension, by the rule of the other score, is ours. The fewer trials, the lower the answer.

    Args:
        table: of the cross-validation, with few-shot scores.
        model: its name.
        rule: of choice.
        shots: trials of the readout.

    Returns:
        None where no dimension has all its scores.
    """
    grid = Grid(table, model, column="k_shot_gain_sum")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the other score has warned of the same
        choice = choose(grid.scores, grid.dims, rule=rule, name=model)
    if len(choice.dims) < 2:
        return None
    return Estimate(
        f"few-shot co-smoothing ({model})",
        choice.dim,
        f"{shots} trials suffice to read a neuron from what it needs; fewer lower the answer",
        {"dims": list(choice.dims), "gain": list(choice.total), "winner": choice.winner},
    )
