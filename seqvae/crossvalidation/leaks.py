"""What is held out of a cell, altered: does what it gets, learns and predicts stay the same?"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from seqvae.analysis.leaks import (
    Check,
    check,
    inference_check,
    learning_check,
    others,
    pooled,
    repeated,
    trials_check,
    twins_of,
    units_check,
)
from seqvae.crossvalidation.division import Division, Scheme
from seqvae.crossvalidation.ensembles import checked_ensembles, ensemble_jobs
from seqvae.crossvalidation.gabriel import fold_errors
from seqvae.crossvalidation.job import Job
from seqvae.crossvalidation.learned import answering, learn
from seqvae.crossvalidation.plan import checked_models, make_plan, suited
from seqvae.crossvalidation.scoring import seen_data
from seqvae.crossvalidation.sizes import checked_sizes
from seqvae.data import NeuralData, Recording
from seqvae.learning import Learner, LearnerFactory
from seqvae.models import Model
from seqvae.runs import ModelFactory

FOLD = 0
"""The trial fold, and the fold of neurons, whose cell is asked; others differ in nothing else."""

ENSEMBLE = "ensemble"


def cell_checks(
    data: NeuralData,
    models: Mapping[str, ModelFactory] | None,
    learner: Learner | LearnerFactory | None,
    *,
    scheme: Scheme,
    dim: int,
    trial_folds: int,
    neuron_folds: int,
    seed: int,
    num_samples: int,
) -> list[Check]:
    """Return the answers of a cell of a cross-validation; of several models, of their ensemble.

    The folds are held as they are: which neurons and trials are held out together may depend on
    mean rates and conditions of all trials, what is learned and predicted may not.

    Args:
        data: as for ``crossvalidate``.
        models: of one size, ``dim``; None: as ``crossvalidate`` takes it.
        learner: of all of them; None: as ``crossvalidate`` takes it.
        scheme: of the cross-validation.
        dim: size of the models.
        trial_folds: folds of trials.
        neuron_folds: folds of neurons.
        seed: of folds and fits.
        num_samples: posterior samples of the comparison.

    Raises:
        InputError: if folds, models and learner do not fit the data.
    """
    factories = checked_models(models, scheme=scheme)
    learners = {} if learner is None else dict.fromkeys(factories, learner)
    grouped = {ENSEMBLE: list(factories)} if len(factories) > 1 else None
    sizes = checked_sizes([dim], None, factories, scheme=scheme)
    dims = {each: own.dims for each, own in sizes.items()}
    rows = checked_ensembles(grouped, dims, scheme=scheme)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*neurons")  # told when they were loaded
        division = Division.of(
            data.pool(), scheme=scheme, rows="auto", trial_folds=trial_folds,
            neuron_folds=neuron_folds, gap=None, seed=seed,
        )  # fmt: skip
        factories, suits = suited(factories, learners, data=data, division=division)
        with tempfile.TemporaryDirectory() as folder:
            chains, _, _ = make_plan(
                data, division, factories, suits, sizes=sizes, seeds=1, num_samples=num_samples,
                k_shot=0, warm_starts=False, folder=Path(folder), members=set(),
            )  # fmt: skip
    jobs = [job for chain in chains for job in chain] + ensemble_jobs(rows, chains)
    name = ENSEMBLE if rows else next(iter(factories))
    job = next(
        job for job in jobs
        if job.cell.model == name
        and job.cell.trial_fold == FOLD
        and job.cell.neuron_fold in (None, FOLD)
    )  # fmt: skip
    scored = division.scored(FOLD)
    heldout = scored.copy()
    if scheme != "speckled":
        heldout[..., list(division.heldin(FOLD))] = False
    known = _altered(data, division, scored), _altered(data, division, heldout)
    checks = [_recordings_check(division, known)]
    if scheme == "gabriel":
        checks.append(_matrix_check(job, heldout))
    else:
        checks += _fit_checks(job, known, num_samples=num_samples)
    train = division.train(FOLD)
    heldin = division.heldin(None if scheme == "speckled" else FOLD)
    unseen = sorted(set(range(train.num_neurons)) - set(heldin))
    pairs = twins_of(train, heldin, unseen, np.arange(train.num_trials)) if unseen else []
    checks.append(units_check(pairs, asked=bool(unseen)))
    if scheme != "speckled":  # whose scored entries are of the trials that teach
        checks.append(trials_check(repeated(division.test(FOLD), train)))
    return checks


def _altered(
    data: NeuralData, division: Division, entries: Bool[np.ndarray, "trial time neuron"]
) -> Division:
    """Return the folds of a recording with other values in some entries."""
    recording = division.recording
    if recording.shape == data.pool().shape:
        return division.holding(recording.changed(activity=pooled(data, entries).read()))
    return division.holding(recording.changed(activity=others(recording.read(), entries)))


def _recordings_check(division: Division, known: tuple[Division, Division]) -> Check:
    """Tell whether scored values stand in what a cell gets to learn from and to see."""
    of_scored, of_heldout = known
    fold = None if division.scheme == "speckled" else FOLD
    differing = [
        name
        for name, one, other in (
            ("the training rows", division.train(FOLD), of_scored.train(FOLD)),
            ("what inference sees", division.part(FOLD, fold).seen,
             of_heldout.part(FOLD, fold).seen),
        )
        if not _equal(one, other)
    ]  # fmt: skip
    return check(
        "hidden",
        not differing,
        "what is learned from and what inference sees hold no value that is scored",
        f"with other values where it is scored, {' and '.join(differing)} differ: see what "
        "transforms make of all trials",
    )


def _equal(one: Recording, other: Recording) -> bool:
    return one.shape == other.shape and np.array_equal(one.read(), other.read(), equal_nan=True)


def _fit_checks(job: Job, known: tuple[Division, Division], *, num_samples: int) -> list[Check]:
    """Tell whether learning and predictions are the same; the keys, so the seeds, are."""
    fold = job.neuron_folds[0]
    learned, again = _learned(job, job.division), _learned(job, known[0])
    differing = [
        each
        for (_, one), (_, other) in zip(learned, again, strict=True)
        if not (each := learning_check(one, other)).passed
    ]
    first = learning_check(learned[0][1], again[0][1])
    parts = job.division.part(FOLD, fold), known[1].part(FOLD, fold)
    inferred = inference_check(
        (answering(job, learned, parts[0]), answering(job, learned, parts[1])),
        (seen_data(parts[0], dict(job.settings)), seen_data(parts[1], dict(job.settings))),
        np.arange(len(parts[0].truth)),
        num_samples=num_samples,
        seed=learned[0][1].seed,
    )
    return [differing[0] if differing else first, inferred]


def _learned(job: Job, division: Division) -> list[tuple[Job, Model]]:
    return [
        (one, learn(replace(one, division=division), division.heldin(one.cell.neuron_fold)))
        for one in (job.members or (job,))
    ]


def _matrix_check(job: Job, heldout: Bool[np.ndarray, "trial time neuron"]) -> Check:
    """Tell whether the held-out block enters its own prediction.

    The error |A - P|^2, in units of the training rows, is a parabola of unit curvature in A if the
    prediction P does not move with it: with M halfway between two blocks A and B,

        |A - P|^2 + |B - P|^2 - 2 |M - P|^2 = |A - B|^2 / 2.
    """
    counts, recording = job.kind.counts_events, job.division.recording
    root, square = (np.sqrt, np.square) if counts else (np.asarray, np.asarray)
    one = root(recording.read().astype(np.float64))
    other = root(others(recording.read(), heldout).astype(np.float64))
    errors = [
        fold_errors(
            job.division.holding(recording.changed(activity=square(each).astype(np.float32))),
            FOLD, dim=job.cell.dim, counts=counts,
        )[FOLD].error
        for each in (one, other, (one + other) / 2)
    ]  # fmt: skip
    train = root(job.division.train(FOLD).read().astype(np.float64)).reshape(-1, one.shape[2])
    unit = np.nanstd(train, axis=0)
    distance = np.where(heldout & (unit > 0), (one - other) / np.where(unit > 0, unit, 1.0), 0.0)
    expected = 0.5 * float(np.nansum(np.square(distance)))
    curvature = errors[0] + errors[1] - 2 * errors[2]
    return check(
        "inference",
        bool(abs(curvature - expected) <= 1e-4 * max(expected, 1.0)),
        "the prediction of the held-out block does not move with it",
        "the prediction of the held-out block moves with it: see what is computed of all rows",
    )
