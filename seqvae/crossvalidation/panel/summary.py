"""The panel as the summary of a cross-validation holds it, and its table in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from seqvae.crossvalidation.choice import Rule
from seqvae.crossvalidation.panel.estimates import estimates
from seqvae.crossvalidation.panel.few_shot import few_shot

if TYPE_CHECKING:
    import pandas as pd


def panel_summary(
    activity: Float[np.ndarray, "trial time neuron"],
    table: pd.DataFrame,
    summary: Mapping[str, Any],
    *,
    counts: bool,
    rule: Rule,
    k_shot: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Return what each estimator says, as JSON has it.

    Args:
        activity: all that was cross-validated.
        table: of the scores.
        summary: of the cross-validation.
        counts: whether the data are counts.
        rule: of the cross-validation.
        k_shot: trials of the few-shot score; 0: there is none.
        seed: of the estimators.
    """
    found = estimates(activity, counts=counts, seed=seed)
    if k_shot:
        of_models = (
            few_shot(table, name, rule=rule, shots=k_shot) for name in of_dimension(summary)
        )
        found += [one for one in of_models if one is not None]
    return [{**one._asdict(), "details": dict(one.details)} for one in found]


def of_dimension(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return the models of a summary whose size is a number of latents, not of anything else."""
    models = summary["models"]
    return {
        name: entry for name, entry in models.items()
        if entry.get("swept", "dimension") == "dimension"
    }  # fmt: skip


def panel_lines(summary: Mapping[str, Any]) -> list[str]:
    """Lay out the panel of a summary, cross-validation first; without one nothing."""
    if "panel" not in summary:
        return []
    rows, entries = panel_rows(summary), summary["models"].values()
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{name.ljust(width)}  {answer:>5}  {words}" for name, answer, words in rows]
    few = []
    if summary.get("scheme") == "fold_in" and not any("k_shot" in one for one in entries):
        few = ["few-shot co-smoothing is in the panel with k_shot, the trials of its readout"]
    return ["panel: how many latents, and what each estimator assumes", *lines, *few]


def panel_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, answer and what it assumes: of cross-validated models, and of the panel."""
    rows = []
    for name, entry in of_dimension(summary).items():
        among = ", ".join(map(str, entry["confidence_set"]))
        words = f"independent trial folds; not excluded at 95 %: {among}"
        rows.append((f"cross-validation ({name})", str(entry["chosen_dim"]), words))
    for one in summary["panel"]:
        rows.append((one["estimator"], answer(one), one["assumes"]))
    return rows


def answer(estimate: Mapping[str, Any]) -> str:
    """Write the answer of an estimator: a number, a ratio to one digit, or that there is none."""
    dimension, details = estimate["dimension"], estimate["details"]
    if dimension is None:
        return "-"
    if details.get("is_largest"):
        return f">={dimension}"
    return f"{dimension:.1f}" if isinstance(dimension, float) else str(dimension)
