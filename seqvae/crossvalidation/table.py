"""From the results of cells to a table, a choice for each model, and the best of them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from seqvae.crossvalidation.choice import Rule, choose
from seqvae.crossvalidation.intervals import Interval, interval
from seqvae.crossvalidation.job import MEAN_RATE
from seqvae.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "model",
    "dim",
    "trial_fold",
    "neuron_fold",
    "seed",
    "score",
    "log_likelihood_sum",
    "gain_sum",
    "spikes",
    "entries",
    "left_out",
    "seconds",
    "status",
)
K_SHOT = ("k_shot_score", "k_shot_gain_sum")
SWEPT = ("swept",)
FEW_FOLDS = 2
"""Of rows, with which an interval is too wide to be of use."""

FOLD_COLUMNS = ["trial_fold", "neuron_fold"]


def scores_table(
    results: Iterable[dict[str, Any]],
    *,
    unit: str,
    k_shot: bool,
    swept: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return one row for each scored cell, in a fixed order.

    ``score`` is what ``gain_sum`` (nats over the mean-rate model) comes to in the unit: bits per
    spike; nats per entry, then not a gain but the log-likelihood itself; or, for factorised
    matrices, the share of variance explained. A failed cell has one row without numbers.

    Args:
        results: as ``run_job`` gives them.
        unit: ``bits_per_spike``, ``log_likelihood`` or ``variance_explained``.
        k_shot: whether there is a few-shot score.
        swept: what the sizes of each model are called, where that shall be told.
    """
    import pandas as pd

    rows = []
    for result in results:
        place = {**result["cell"], "seconds": result["seconds"], "status": result["status"]}
        if swept:
            place["swept"] = swept.get(place["model"], "")
        if result["status"] != "done":
            rows.append(place)
            continue
        for scored in result["rows"]:
            sums = {
                "neuron_fold": scored["neuron_fold"],
                "log_likelihood_sum": scored["log_likelihood"],
                "gain_sum": scored["gain"],
                **{name: scored[name] for name in ("spikes", "entries", "left_out")},
            }
            sums["score"] = ratio(sums["gain_sum"], sums, unit)
            if k_shot:
                gain = 0.0 if place["model"] == MEAN_RATE else scored["k_shot_gain"]
                sums |= {"k_shot_gain_sum": gain, "k_shot_score": ratio(gain, sums, unit)}
            rows.append(place | sums)
    columns = [*COLUMNS, *(K_SHOT if k_shot else ()), *(SWEPT if swept else ())]
    table = pd.DataFrame(rows, columns=columns)
    table["neuron_fold"] = table["neuron_fold"].astype("Int64")
    keys = ["model", "dim", "seed", *FOLD_COLUMNS]
    return table.sort_values(keys, kind="stable").reset_index(drop=True)


def tuned_table(results: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Return one row for each cell in which settings were searched: what was best.

    ``best_fit`` is its number, 0 the settings as they were, and ``gain`` what it scores more than
    these on the validation trials; then a column for each setting.

    Args:
        results: as ``run_job`` gives them.
    """
    import pandas as pd

    rows = [
        {**result["cell"], "best_fit": told["fit"], "gain": told["gain"], **told["settings"]}
        for result in results
        if (told := result.get("tuned")) is not None
    ]
    keys = ["model", "dim", "trial_fold", "neuron_fold", "seed"]
    table = pd.DataFrame(rows, columns=None if rows else keys)
    table["neuron_fold"] = table["neuron_fold"].astype("Int64")
    return table.sort_values(keys, kind="stable").reset_index(drop=True)


def ratio(gain: float, sums: Any, unit: str) -> float:
    """Turn summed nats into the unit of the score; a ratio of sums, never a mean of ratios."""
    if unit == "bits_per_spike":
        return gain / (math.log(2) * sums["spikes"]) if sums["spikes"] else math.nan
    if unit == "variance_explained":
        null = gain - sums["log_likelihood_sum"]  # the squared error of the mean
        return gain / null if null else math.nan
    null = sums["log_likelihood_sum"] - sums["gain_sum"]
    return (gain + null) / sums["entries"] if sums["entries"] else math.nan


class Grid:
    """The scores of one model as a matrix: cells by dimensions, the mean-rate model first.

    Args:
        table: of ``scores_table``.
        model: its name.
        column: the summed score: ``gain_sum`` or ``k_shot_gain_sum``.
    """

    def __init__(self, table: pd.DataFrame, model: str, *, column: str = "gain_sum") -> None:
        table = table.assign(neuron_fold=table["neuron_fold"].fillna(-1).astype(int))
        of_model = table[table["model"] == model]
        null = table[(table["model"] == MEAN_RATE) & (table["status"] == "done")]
        failed = set(of_model.loc[of_model["status"] != "done", "dim"])
        done = of_model[of_model["status"] == "done"]
        means = done.groupby([*FOLD_COLUMNS, "dim"])[column].mean().unstack("dim")
        cells = null.set_index(FOLD_COLUMNS)
        self.cells = cells.sort_index()
        self.rows = self.cells.index.get_level_values("trial_fold").to_numpy().astype(np.int64)
        self.dims = [0, *sorted({int(dim) for dim in of_model["dim"]})]
        scores = np.full((len(self.cells), len(self.dims)), np.nan)
        scores[:, 0] = 0.0
        aligned = means.reindex(self.cells.index)
        for place, dim in enumerate(self.dims[1:], start=1):
            if dim in aligned and dim not in failed:
                scores[:, place] = aligned[dim]
        self.scores = scores

    def of(self, dim: int) -> Float[np.ndarray, " cell"]:
        """Return the summed scores of a dimension."""
        return self.scores[:, self.dims.index(dim)]

    def interval(self, gain: Float[np.ndarray, " cell"]) -> Interval:
        """Return how far a sum over the cells can be trusted."""
        return interval(gain, self.rows)

    def unit_size(self, unit: str) -> float:
        """Return by how much summed nats are divided to be in the unit."""
        if unit == "bits_per_spike":
            return math.log(2) * float(self.cells["spikes"].sum())
        if unit == "variance_explained":
            return -float(self.cells["log_likelihood_sum"].sum())
        return float(self.cells["entries"].sum())

    def zero(self, unit: str) -> float:
        """Return the score of the mean-rate model in the unit."""
        if unit == "log_likelihood":
            return float(self.cells["log_likelihood_sum"].sum()) / self.unit_size(unit)
        return 0.0


def summarize(
    table: pd.DataFrame,
    models: list[str],
    *,
    rule: Rule,
    unit: str,
    k_shot: bool,
    fixed: Collection[str] = (),
    swept: Mapping[str, str],
) -> dict[str, Any]:
    """Choose a dimension for each model, and the model of the highest score at its own.

    Args:
        table: of ``scores_table``.
        models: their names.
        rule: how a dimension is chosen.
        unit: of the scores.
        k_shot: whether there is a few-shot score.
        fixed: those whose one size was asked for, so that no larger ones are advised.
        swept: what the sizes of each model are called.

    Returns:
        ``swept``: what those of all are called. ``models``: for each the chosen dimension, the
        rule, and, by dimension, ``mean`` score and its ``standard_error`` (``intervals``; of
        log-likelihoods that of what is gained over the mean rate), and ``paired_se`` of its
        difference to the winner, the constant of the rule; ``confidence_set``: the dimensions that
        the data do not exclude as the best at 95 %.
        ``best_model``; ``differences``: by how much it exceeds each other model (``Interval``);
        ``confidence_set``: the models that are not excluded as the best. All in ``unit``.
        ``folds``: how many there are of ``rows`` and of ``neurons``; ``notes``: what they cannot
        tell.

    Raises:
        InputError: if a model has no dimension without failures.
    """
    if not ((table["model"] == MEAN_RATE) & (table["status"] == "done")).any():
        raise InputError("every cell failed; read the 'error' in the files under cells/")
    summary: dict[str, Any] = {"unit": unit, "rule": rule, "models": {}}
    summary["swept"] = " or ".join(dict.fromkeys(swept.values()))
    chosen: dict[str, tuple[Grid, np.ndarray]] = {}
    problems = []
    for name in models:
        grid = Grid(table, name)
        size, zero = grid.unit_size(unit), grid.zero(unit)
        if not np.isfinite(grid.scores[:, 1:]).all(axis=0).any():
            problems.append(name)
            continue
        with warnings.catch_warnings():
            if name in fixed:
                warnings.filterwarnings("ignore", message=".*largest of the grid")
            choice = choose(grid.scores, grid.dims, rule=rule, name=name, swept=swept[name])
        means = [zero + total / size for total in choice.total]
        entry: dict[str, Any] = {
            "swept": swept[name],
            "chosen_dim": choice.dim,
            "winner": choice.winner,
            "rule": rule,
            "dims": list(choice.dims),
            "mean": means,
            "standard_error": [
                grid.interval(grid.of(dim)).in_unit(size)["standard_error"] for dim in choice.dims
            ],
            "paired_se": [error / size for error in choice.loss_se],
            "confidence_set": [
                dim
                for dim in choice.dims
                if dim == choice.dim
                or grid.interval(grid.of(choice.winner) - grid.of(dim)).low <= 0
            ],
            "score": means[choice.dims.index(choice.dim)],
            "failed_dims": list(choice.dropped),
        }
        if k_shot:
            shots = Grid(table, name, column="k_shot_gain_sum")
            columns = [shots.dims.index(dim) for dim in choice.dims]
            entry["k_shot"] = [
                zero + float(total) / size for total in shots.scores[:, columns].sum(axis=0)
            ]
        summary["models"][name] = entry
        chosen[name] = (grid, grid.of(choice.dim))
    if not chosen:
        raise InputError(
            f"{', '.join(problems)}: every {summary['swept']} has failed cells; read the 'error' "
            "in the files under cells/"
        )
    summary["failed_models"] = problems
    null = table[table["model"] == MEAN_RATE]
    summary["folds"] = {
        "rows": int(null["trial_fold"].nunique()),
        "neurons": max(int(null["neuron_fold"].nunique()), 1),
    }
    best = max(chosen, key=lambda name: summary["models"][name]["score"])
    gaps = {
        name: grid.interval(chosen[best][1] - scores)
        for name, (grid, scores) in chosen.items() if name != best
    }  # fmt: skip
    summary["best_model"] = best
    summary["differences"] = {
        name: gap.in_unit(chosen[name][0].unit_size(unit)) for name, gap in gaps.items()
    }
    summary["confidence_set"] = [best, *(name for name, gap in gaps.items() if gap.low <= 0)]
    summary["notes"] = _notes(summary["folds"]["rows"], rule)
    return summary


def _notes(num_folds: int, rule: Rule) -> list[str]:
    """Say what so few trial folds cannot tell."""
    if num_folds > FEW_FOLDS:
        return []
    notes = [
        f"{num_folds} trial folds cannot carry an interval (Student's t of {num_folds - 1} "
        "degree of freedom); give trial_folds 5"
    ]
    if rule == "1se":
        notes.append("rule '1se' takes too few dimensions with so few folds; give 'paired_1se'")
    return notes
