"""The model of a cell: learned on its training rows, and as it answers from the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from seqvae.crossvalidation.division import Division, Holdout
from seqvae.crossvalidation.job import Found, Job
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays
from seqvae.errors import InputError
from seqvae.learning import Learner
from seqvae.models import Mixture, Model
from seqvae.runs import ModelFactory, begin, build_model
from seqvae.storage.weights import load_weights, save_weights
from seqvae.types import DataSpec


def learn(job: Job, heldin: tuple[int, ...]) -> Model:
    """Learn the model of a job on its training rows."""
    assert job.factory is not None
    assert job.learner is not None
    cell, learner = job.cell, job.learner
    data = data_of(job, heldin)
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


def searched(job: Job, heldin: tuple[int, ...]) -> Found:
    """Search the settings of the model of a job on its training rows, and learn it with the best.

    Those of its training rows that validate choose; what the cell holds out is not there.
    """
    assert job.factory is not None
    assert job.learner is not None
    assert job.search is not None
    factory = sized(job.factory, job.cell.dim, job.argument)
    data = data_of(job, heldin)
    return job.search.found(data, factory, job.learner, folder=job.study, seed=job.seed)


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
    cell = job.cell
    data = data_of(job, job.division.heldin(cell.neuron_fold))
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


def data_of(job: Job, heldin: tuple[int, ...]) -> NeuralData:
    """Return what the model of a job learns from; some of it is for validation, if that chooses."""
    assert job.learner is not None
    return learning_data(
        job.division,
        job.cell.trial_fold,
        heldin,
        learner=job.learner,
        settings=job.settings,
        seed=job.seed,
        is_searched=job.search is not None,
    )


def learning_data(
    division: Division,
    trial_fold: int,
    heldin: tuple[int, ...],
    *,
    learner: Learner,
    settings: Mapping[str, Any],
    seed: int,
    is_searched: bool = False,
) -> NeuralData:
    """Return the training rows of a fold; some are to validate, where learner or search selects."""
    train = division.train(trial_fold)
    arguments = dict(settings)
    if not (learner.selects or is_searched):
        arguments["val_fraction"] = 0.0
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
