"""One fit of a search: with the settings of its task, scored on the validation trials."""

from __future__ import annotations

import copy
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqvae.analysis.seeds import SCORES
from seqvae.config import from_config, override, read_arguments
from seqvae.data import NeuralData
from seqvae.data.masking import CoordinatedDropout
from seqvae.errors import InputError, UnwritableError, one_line
from seqvae.learning import GradientLearner, Learner
from seqvae.learning.learner import without_progress
from seqvae.runs import ModelFactory
from seqvae.runs.memory import RunInMemory
from seqvae.tuning import Record, Task
from seqvae.verbs.fit import fit
from seqvae.verbs.seeds import Report, heard, validated


def parts_of(config: Mapping[str, Any]) -> tuple[ModelFactory, Learner, dict[str, Any]]:
    """Build model and learner of a config, and what of the data does not change what is scored."""
    sections = {name: config[name] for name in ("model", "learner")}
    built = read_arguments(fit, sections, trust=True)
    of_data = config["data"]["init_args"]
    dropout = from_config(
        of_data.get("coordinated_dropout"), CoordinatedDropout | None, key="coordinated_dropout"
    )
    if not isinstance(size := of_data["batch_size"], int) or size < 1:
        raise InputError(f"data.batch_size must be at least 1, got {size!r}")
    return built["model"], built["learner"], {"batch_size": size, "coordinated_dropout": dropout}


def fit_of_task(
    data: NeuralData,
    stages: Sequence[Mapping[str, Any]],
    place: Callable[[int], Path],
    task: Task,
) -> Record:
    """Fit one, keep its run, and score it; why it failed is noted, unless the disk did.

    Args:
        data: as it is without a search.
        stages: the complete config of the fits of each generation.
        place: the run folder of a fit, by its number.
        task: what it is to be.
    """
    begun, folder, config = time.perf_counter(), place(task.number), stages[task.generation]
    data = copy.copy(data)
    shutil.rmtree(folder, ignore_errors=True)  # of a fit that was ended
    score, measure, error = None, None, None
    with heard(Report(task.number, [], [])):
        try:
            for setting in task.settings.items():
                config = override(fit, config, setting, trust=True)
            model, learner, of_data = parts_of(config)
            for name, value in of_data.items():
                setattr(data, name, value)
            learner = without_progress(_by_heldin(learner))
            run = fit(
                data,
                model,
                learner,
                init_from=None if task.parent is None else str(place(task.parent)),
                in_memory=True,
                seed=config["seed"] + task.generation,
            )
            scores = validated(run, data)
            measure = next(name for name in SCORES if f"val/{name}" in scores)
            score = scores[f"val/{measure}"]
            if measure == "log_likelihood" and (data.spec.heldout or data.spec.num_forecast_bins):
                raise InputError(
                    "a posterior that is a point has no bound, and the log-likelihood knows what "
                    "is held out; give data.heldout [] and data.forecast_bins 0, or another model"
                )
            if not math.isfinite(score):
                raise InputError(f"{measure} is {score}")
            assert isinstance(run, RunInMemory)
            run.save(folder)
        except UnwritableError:
            raise
        except Exception as failure:
            score, error = None, f"{type(failure).__name__}: {one_line(str(failure))}"
    seconds = round(time.perf_counter() - begun, 1)
    return Record(task.number, task.settings, score, measure, seconds, error, task.parent)


def _by_heldin(learner: Learner) -> Learner:
    """Return a learner that learns from no validation trial, and picks weights as fits are scored.

    A refit would learn from what scores it, and a choice by the bound of all neurons, or by any
    score of what is held out, would let held-out neurons into the search.
    """
    if not isinstance(learner, GradientLearner):
        return learner
    by_heldin = learner.select.startswith(("val/heldin", "val/speckled", "val/log_likelihood"))
    return replace(learner, refit=False, select=learner.select if by_heldin else "val/heldin_elbo")
