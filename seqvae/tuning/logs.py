"""A search in Weights & Biases: a run for each fit, and one with table and picture, in a group."""

from __future__ import annotations

import hashlib
from typing import Any

from seqvae.learning.weights_and_biases import kept_ids, unprompted
from seqvae.tuning.study import Study


def log_to_wandb(study: Study, *, picture: str, project: str) -> None:
    """Log to W&B, offline without an account; its files go to the folder of the study.

    A second call for the study goes on with the runs of the first.

    Args:
        study: with at least one fit that has a score.
        picture: the name of a figure in its folder.
        project: of W&B.
    """
    import wandb

    name = study.folder.resolve().name
    (whole,) = kept_ids(study.folder, 1)
    common: dict[str, Any] = {
        "project": project, "dir": str(study.folder), "group": name, "resume": "allow",
    }  # fmt: skip
    best = study.best
    with unprompted():
        for number, record in sorted(study.records.items()):
            facts = {**study.settings_of(number), "parent": record.parent, "error": record.error}
            key = hashlib.sha256(f"{whole} {number}".encode()).hexdigest()[:16]
            with wandb.init(
                name=f"{name}-{number:04d}", job_type="fit", config=facts, id=key, **common
            ) as run:
                run.summary["seconds"] = record.seconds
                if record.score is not None:
                    run.summary[record.measure] = record.score
        facts = {key: value for key, value in study.facts.items() if key != "config"}
        with wandb.init(name=name, job_type="search", config=facts, id=whole, **common) as run:
            table = study.table
            for column in table.select_dtypes(exclude="number"):  # words, lists of choices, nothing
                table[column] = table[column].astype(str)
            run.log({"fits": wandb.Table(dataframe=table)})
            run.log({"picture": wandb.Image(str(study.folder / picture))})
            run.summary.update(
                {"best": best.number, "score": best.score, "gain": study.gain,
                 "settings": dict(study.settings_of(best.number)),
                 "importance": dict(study.importance)}
            )  # fmt: skip
