"""A cell of the grid: one model of one size, learned on one fold and scored on what it left out."""

from __future__ import annotations

import json
import shutil
import time
import traceback
import warnings
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqvae.crossvalidation.division import Holdout
from seqvae.crossvalidation.gabriel import fold_errors
from seqvae.crossvalidation.job import Job
from seqvae.crossvalidation.learned import answering, learn, learned_by, searched
from seqvae.crossvalidation.scoring import Sums, k_shot_gain, mean_rate_of, score, sums
from seqvae.errors import InputError, UnwritableError
from seqvae.storage.files import write_text
from seqvae.storage.weights import load_plain
from seqvae.storage.yaml_json import read_json


def run_chain(jobs: list[Job]) -> list[dict[str, Any]]:
    """Do jobs of ascending size, each of which begins where the one before ended."""
    return [run_job(job) for job in jobs]


def undone(chain: list[Job]) -> list[Job]:
    """Return the part of a chain from the first job on that is not done."""
    for place, job in enumerate(chain):
        if not is_done(job):
            return chain[place:]
    return []


def is_done(job: Job) -> bool:
    """Whether result (and weights, where they are kept) are there, and whole."""
    return read_result(job) is not None and (not job.keeps_weights or _is_whole(job.weights))


def _is_whole(weights: Path) -> bool:
    try:
        load_plain(weights)
    except (InputError, OSError):
        return False
    return True


def run_job(job: Job) -> dict[str, Any]:
    """Do a job on one thread, write its result atomically, and return it; a failure is a result."""
    began = time.monotonic()
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"key": job.key, "cell": asdict(job.cell)}
    try:
        with warnings.catch_warnings(record=True) as caught, torch.random.fork_rng():
            warnings.simplefilter("always")
            scored = _scored(job)
        result |= {"status": "done", **scored}
        words = (str(w.message) for w in caught if w.category is UserWarning)
        result["warnings"] = list(dict.fromkeys(words))
    except UnwritableError:  # says nothing of the cell
        raise
    except InputError as error:
        result |= {"status": "failed", "error": str(error)}
    except Exception:  # a defect in one cell must not end a grid of hours
        result |= {"status": "failed", "error": traceback.format_exc()}
    finally:
        torch.set_num_threads(num_threads)
    result["seconds"] = time.monotonic() - began
    write_result(job.path, result)
    if result["status"] == "done" and job.search is not None:  # else it is gone on with
        shutil.rmtree(job.study, ignore_errors=True)
    return result


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result; the file appears whole or not at all."""
    write_text(path, json.dumps(result, indent=1) + "\n")


def read_result(job: Job) -> dict[str, Any] | None:
    """Return the result of a job that was done; None for a failed, damaged or missing one."""
    try:
        result = read_json(job.path, str(job.path))
        whole = result["status"] == "done" and result["key"] == job.key
        return result if whole and len(result["rows"]) == len(job.neuron_folds) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _scored(job: Job) -> dict[str, Any]:
    """Return the ``rows`` of a result and, if settings were searched, what was ``tuned``."""
    if job.division.scheme == "gabriel":
        return {"rows": _gabriel_rows(job)}
    cell, division = job.cell, job.division
    train = division.train(cell.trial_fold)
    null = mean_rate_of(train, job.kind)
    learned = [(member, learned_by(member)) for member in job.members]
    told: dict[str, Any] = {}
    heldin = division.heldin(cell.neuron_fold)
    if job.search is not None:
        found = searched(job, heldin)
        told["tuned"] = {"fit": found.fit, "gain": found.gain, "settings": dict(found.settings)}
        learned = [(replace(job, factory=found.factory), found.model)]
    elif job.factory is not None:
        learned = [(job, learn(job, heldin))]
    rows = []
    for fold in job.neuron_folds:
        part = division.part(cell.trial_fold, fold)
        if not learned:
            rows.append(_row(fold, sums(null, part.truth, None)))
            continue
        model = answering(job, learned, part)
        gained = score(model, part, null, num_samples=job.num_samples, settings=dict(job.settings))
        rows.append(_row(fold, gained))
        if job.k_shot:
            hidden = np.ones(train.shape, dtype=bool)
            hidden[..., list(part.heldin)] = False
            shown = Holdout(train.hide(hidden), part.heldin, np.where(hidden, train.read(), np.nan))
            rows[-1]["k_shot_gain"] = k_shot_gain(
                model, part, shown, null, shots=job.k_shot, settings=dict(job.settings)
            )
    return {"rows": rows, **told}


def _row(fold: int | None, gained: Sums) -> dict[str, Any]:
    return {"neuron_fold": fold, **asdict(gained)}


def _gabriel_rows(job: Job) -> list[dict[str, Any]]:
    found = fold_errors(
        job.division, job.cell.trial_fold, dim=job.cell.dim, counts=job.kind.counts_events
    )
    rows = []
    for fold in job.neuron_folds:
        assert fold is not None
        one = found[fold]
        rows.append(_row(fold, Sums(-one.error, one.null - one.error, 0.0, one.entries, 0)))
    return rows
