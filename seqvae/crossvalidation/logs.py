"""A cross-validation in Weights & Biases: one run with table and curve, one for each cell."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqvae.errors import InputError
from seqvae.learning.weights_and_biases import kept_ids, unprompted

if TYPE_CHECKING:
    import pandas as pd


def check_wandb(project: str | None, cells: bool) -> None:
    """Refuse runs of cells without a project.

    Raises:
        InputError: likewise.
    """
    if cells and project is None:
        raise InputError("wandb_cells needs a project: give wandb_project")


def log_to_wandb(
    folder: Path, table: pd.DataFrame, summary: dict[str, Any], *, project: str, cells: bool
) -> None:
    """Log to W&B, offline without an account; its files go to the folder.

    A second call for the folder goes on with the runs of the first.

    Args:
        folder: of the cross-validation, with ``curve.png`` in it.
        table: of the scores.
        summary: as written to ``summary.json``.
        project: of W&B.
        cells: whether each cell is a run of its own, in the group of this folder.
    """
    import wandb

    name = folder.resolve().name
    (whole,) = kept_ids(folder, 1)
    common: dict[str, Any] = {
        "project": project,
        "dir": str(folder),
        "group": name,
        "resume": "allow",
    }
    with unprompted():
        if cells:
            for row in table.to_dict("records"):
                title = "-".join(str(row[key]) for key in ("model", "dim", "trial_fold",
                                                           "neuron_fold", "seed"))  # fmt: skip
                place = {key: row[key] for key in ("model", "dim", "seed", "trial_fold")}
                place["neuron_fold"] = str(row["neuron_fold"])
                if "swept" in row:
                    place["swept"] = row["swept"]
                cell = hashlib.sha256(f"{whole} {title}".encode()).hexdigest()[:16]
                with wandb.init(
                    name=title, job_type="cell", config=place, id=cell, **common
                ) as run:
                    run.log({key: row[key] for key in ("score", "gain_sum", "seconds")})
        facts = {
            key: value for key, value in summary.items()
            if not isinstance(value, dict) and key != "panel"
        }  # fmt: skip
        with wandb.init(
            name=name, job_type="crossvalidation", config=facts, id=whole, **common
        ) as run:
            shown = table.astype({"neuron_fold": "string"})
            run.log({"scores": wandb.Table(dataframe=shown)})
            run.log({"curve": wandb.Image(str(folder / "curve.png"))})
            if "panel" in summary:
                run.log({"panel": wandb.Image(str(folder / "panel.png"))})
            if "growth" in summary:
                run.log({"growth": wandb.Image(str(folder / "growth.png"))})
                for model, entry in summary["growth"]["models"].items():
                    for ahead in entry["ahead"]:
                        field = f"{model}/with_{ahead['times']}_times_the_trials"
                        run.summary[field] = {key: ahead[key] for key in ("score", "gain", "dim")}
            for model, entry in summary["models"].items():
                run.summary[f"{model}/swept"] = entry["swept"]
                run.summary[f"{model}/chosen_dim"] = entry["chosen_dim"]
                run.summary[f"{model}/confidence_set"] = entry["confidence_set"]
                run.summary[f"{model}/score"] = entry["score"]
            for one in summary.get("panel", []):
                run.summary[f"panel/{one['estimator']}"] = one["dimension"]
            run.summary["best_model"] = summary["best_model"]
            run.summary["confidence_set"] = summary["confidence_set"]
