"""A cell of the grid: one model of one size, learned on one fold and scored on what it left out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from seqvae.crossvalidation.division import Division, Holdout
from seqvae.crossvalidation.gabriel import fold_errors
from seqvae.crossvalidation.scoring import Sums, k_shot_gain, mean_rate_of, score, sums
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays
from seqvae.distributions.kinds import DataKind
from seqvae.errors import InputError, UnwritableError
from seqvae.learning import Learner
from seqvae.models import Mixture, Model
from seqvae.runs import ModelFactory, begin, build_model
from seqvae.storage.files import write_text
from seqvae.storage.weights import load_plain, load_weights, save_weights
from seqvae.storage.yaml_json import read_json
from seqvae.types import DataSpec

MEAN_RATE = "mean_rate"


@dataclass(frozen=True)
class Cell:
    """Where a job stands in the grid.

    Attributes:
        model: its name; ``mean_rate`` for dimension 0, which all models share.
        dim: its size, the value of what is swept.
        trial_fold: the rows left out.
        neuron_fold: the neurons left out; None: one fit serves all folds of neurons.
        seed: the how-many-eth repetition.
    """

    model: str
    dim: int
    trial_fold: int
    neuron_fold: int | None
    seed: int


@dataclass(frozen=True, eq=False)
class Job:
    """A cell, and all that its result depends on.

    Attributes:
        cell: where it stands.
        facts: what the key is made of: checksum of the data, configs, folds, version.
        factory: of the model; None: the mean-rate model, or a factorisation of a matrix.
        learner: how it is learned; None likewise.
        division: of the recording.
        kind: of the data.
        num_samples: posterior samples for the score.
        k_shot: trials of the few-shot score; 0: none.
        settings: of ``NeuralData``.
        folder: where the result goes.
        keeps_weights: whether what is learned is kept, too, for the next size to begin from.
        before: the job of the next smaller size, where learning begins; None: anew.
        members: of an ensemble the jobs whose models it is made of; else none.
        argument: of the factory that the size is; None: the one that the class names.
    """

    cell: Cell
    facts: Mapping[str, Any]
    factory: ModelFactory | None
    learner: Learner | None
    division: Division
    kind: DataKind
    num_samples: int
    k_shot: int
    settings: Mapping[str, Any]
    folder: Path
    keeps_weights: bool = False
    before: Job | None = None
    members: tuple[Job, ...] = ()
    argument: str | None = None

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits of cell and facts: what has the same key has the same result."""
        before = None if self.before is None else self.before.key
        text = json.dumps([asdict(self.cell), self.facts, before], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        """The file of the result."""
        return self.folder / "cells" / f"{self.key}.json"

    @property
    def weights(self) -> Path:
        """The file of what was learned."""
        return self.path.with_suffix(".pt")

    @property
    def seed(self) -> int:
        """The seed of model and data: a function of the key, whoever does the job and when."""
        return int(self.key, 16) >> 1

    @property
    def neuron_folds(self) -> list[int | None]:
        """The folds of neurons that the job scores."""
        if self.division.scheme == "speckled":
            return [None]
        if self.cell.neuron_fold is not None:
            return [self.cell.neuron_fold]
        return list(range(self.division.num_neuron_folds))


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
        result |= {"status": "done", "rows": scored}
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


def _scored(job: Job) -> list[dict[str, Any]]:
    if job.division.scheme == "gabriel":
        return _gabriel_rows(job)
    cell, division = job.cell, job.division
    train = division.train(cell.trial_fold)
    null = mean_rate_of(train, job.kind)
    learned = [(member, learned_by(member)) for member in job.members]
    if job.factory is not None:
        learned = [(job, learn(job, division.heldin(cell.neuron_fold)))]
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
    return rows


def _row(fold: int | None, gained: Sums) -> dict[str, Any]:
    return {"neuron_fold": fold, **asdict(gained)}


def learn(job: Job, heldin: tuple[int, ...]) -> Model:
    """Learn the model of a job on its training rows."""
    assert job.factory is not None
    assert job.learner is not None
    cell, learner = job.cell, job.learner
    data = learning_data(
        job.division,
        cell.trial_fold,
        heldin,
        learner=learner,
        settings=job.settings,
        seed=job.seed,
    )
    torch.manual_seed(job.seed)
    model = begin(sized(job.factory, cell.dim, job.argument), data, seed=job.seed)
    if job.before is not None:
        smaller = build_model(sized(job.factory, job.before.cell.dim, job.argument), data.spec)
        load_weights(job.before.weights, smaller)
        model.begin_from(smaller, leading_blocks=True)
    learner.learn(model, data)
    if job.keeps_weights:
        save_weights(job.weights, model, step=0, score=0.0)
    return model.eval()


def answering(job: Job, learned: Sequence[tuple[Job, Model]], part: Holdout) -> Model:
    """Return what is scored on a part: the model of a job, or the mixture of its members."""
    serving = [(one, _serving(one, model, part)) for one, model in learned]
    return _mixture(serving) if job.members else serving[0][1]


def learned_by(job: Job) -> Model:
    """Return the model of a job that is done and has kept its weights.

    Raises:
        InputError: if it has none, as it failed.
    """
    assert job.factory is not None
    assert job.learner is not None
    cell = job.cell
    data = learning_data(
        job.division,
        cell.trial_fold,
        job.division.heldin(cell.neuron_fold),
        learner=job.learner,
        settings=job.settings,
        seed=job.seed,
    )
    model = build_model(sized(job.factory, cell.dim, job.argument), data.spec)
    try:
        load_weights(job.weights, model)
    except InputError as error:
        raise InputError(f"{cell.model} of dimension {cell.dim}, a member: {error}") from error
    model.seed = job.seed
    return model.eval()


def _mixture(members: Sequence[tuple[Job, Model]]) -> Model:
    """Return the models of some jobs as one, with equal weights."""
    lead = members[0][1]
    mixture = Mixture(
        lead.spec,
        members={job.cell.model: partial(_as_it_is, model) for job, model in members},
        seeds={job.cell.model: model.seed for job, model in members},
    )
    mixture.null_counts.copy_(lead.null_counts)
    mixture.seed = lead.seed
    return mixture.to(lead.null_counts.device).eval()


def _as_it_is(model: Model, spec: DataSpec) -> Model:
    return model


def learning_data(
    division: Division,
    trial_fold: int,
    heldin: tuple[int, ...],
    *,
    learner: Learner,
    settings: Mapping[str, Any],
    seed: int,
) -> NeuralData:
    """Return the training rows of a fold; a learner that selects gets some for validation."""
    train = division.train(trial_fold)
    arguments = dict(settings)
    arguments["val_fraction"] = arguments["val_fraction"] if learner.selects else 0.0
    heldout = sorted(set(range(train.num_neurons)) - set(heldin))
    return NeuralData(Arrays(train), heldout=heldout, seed=seed, **arguments)


def sized(factory: ModelFactory, dim: int, argument: str | None = None) -> ModelFactory:
    """Return the factory of a model of one size, that of an argument or of its class."""
    model_class: Any = factory.func if isinstance(factory, partial) else factory
    return partial(factory, **{argument or model_class.dimension_argument: dim})


def _serving(job: Job, learned: Model, part: Holdout) -> Model:
    """Return the learned model as it answers from a part's held-in neurons."""
    if learned.spec.heldin == part.heldin:
        return learned
    assert learned.serves_any_heldin
    assert job.factory is not None
    spec = dataclasses.replace(learned.spec, heldin=part.heldin)
    model = build_model(sized(job.factory, job.cell.dim, job.argument), spec)
    model.load_state_dict(learned.state_dict())
    model.seed = learned.seed
    return model.to(learned.null_counts.device).eval()


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
