"""From models and sizes to jobs; everything that the user can mend is refused here."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from seqvae.config import to_config
from seqvae.crossvalidation.division import Division
from seqvae.crossvalidation.gabriel import fold_errors
from seqvae.crossvalidation.job import MEAN_RATE, Cell, Job, Search
from seqvae.crossvalidation.learned import learning_data, sized
from seqvae.crossvalidation.sizes import Sizes
from seqvae.data import NeuralData
from seqvae.data.pieces import pieces
from seqvae.distributions.kinds import DataKind, kind_of
from seqvae.errors import InputError
from seqvae.learning import GradientLearner, Learner, LearnerFactory, completed_fit, learner_of
from seqvae.learning.learner import check_pair, without_progress
from seqvae.learning.unread import unread_by_model, unread_inputs, unread_settings
from seqvae.models import PCA, Model, NonlinearDynamics
from seqvae.runs import ModelFactory, begin

DEFAULT = "default"
"""The name of the model where none is named."""

DATA_ARGUMENTS = (
    "val_fraction",
    "batch_size",
    "eval_batch_size",
    "coordinated_dropout",
    "speckled_fraction",
)


class Plan(NamedTuple):
    """The jobs of a grid and the unit of its scores.

    Attributes:
        chains: jobs of ascending size that depend on each other; else each on its own.
        unit: of the scores.
        unread: a sentence for each thing that was given and is not read.
    """

    chains: list[list[Job]]
    unit: str
    unread: list[str]


def make_plan(
    data: NeuralData,
    division: Division,
    models: Mapping[str, ModelFactory],
    learners: Mapping[str, Learner],
    *,
    sizes: Mapping[str, Sizes],
    seeds: int,
    num_samples: int,
    k_shot: int,
    warm_starts: bool,
    folder: Path,
    members: Collection[str] = (),
    searches: Mapping[str, Search] | None = None,
) -> Plan:
    """Return a job for each model, size, fold and seed; first the mean-rate model.

    A model that serves any held-in neurons is learned once for all folds of neurons.

    Args:
        data: says how a model is given the recording.
        division: of the recording.
        models: factories by name.
        learners: by name of the model; the others have their own.
        sizes: what is swept of each model.
        seeds: repetitions.
        num_samples: posterior samples of the score.
        k_shot: trials of the few-shot score.
        warm_starts: whether each size begins where the one before it ended.
        folder: where results go.
        members: the models whose weights are kept, for ensembles of them.
        searches: by name of the model; others are learned as they are.

    Raises:
        InputError: if models, learners and data do not go together.
    """
    from importlib.metadata import version

    settings = _settings(data, division)
    facts = {
        "checksum": division.recording.checksum,
        "version": version("seqvae"),
        "scheme": division.scheme,
        "rows": division.rows,
        "folds": [division.num_trial_folds, division.num_neuron_folds, division.seed],
        "gap": division.gap,
        "settings": to_config(settings, key="data"),
        "num_samples": num_samples,
        "k_shot": k_shot,
    }
    if division.fraction != 1:
        facts["fraction"] = division.fraction
    fits: dict[str, tuple[ModelFactory | None, Learner | None, bool]] = {}
    is_matrix = division.scheme == "gabriel"
    kinds = {}
    unread: list[str] = []
    unread_by_all = {"coordinated_dropout", "speckled_fraction"}
    for name, factory in models.items():
        if is_matrix:
            unread += unread_inputs(_class_of(factory), division.recording.num_inputs)
            check_size(division, sizes[name].dims[-1])
            fold_errors(division, 0, dim=0)  # refuses what no matrix may hold
            fits[name] = (None, None, True)
            continue
        chosen = learners.get(name)
        learner = without_progress(learner_of(chosen, _class_of(factory)))
        if warm_starts and not learner.begins_from_model:
            raise InputError(
                f"warm_starts: models.{name} is learned by {type(learner).__name__}, which begins "
                "from the data alone; leave warm_starts out"
            )
        if warm_starts and learner.refit:
            raise InputError(
                f"warm_starts: models.{name} is refitted, so each size would begin from weights "
                "that have learned the trials which are to validate it; leave warm_starts or "
                "refit out"
            )
        if warm_starts and not sizes[name].is_dimension:
            raise InputError(
                f"warm_starts: a model of fewer {sizes[name].argument} is no part of one of more; "
                "leave warm_starts or sweep out"
            )
        model = _checked(
            name, factory, learner, division=division, sizes=sizes[name], settings=settings
        )
        kinds[name] = model.observation.kind
        unread += unread_by_model(model, division.recording.num_inputs)
        unread_by_all &= set(unread_settings(learner, data))
        whole = division.scheme == "speckled" or _class_of(factory).serves_any_heldin
        fits[name] = (factory, learner, whole)
    if fits and not is_matrix:
        unread += [f"no learner reads data.{setting}" for setting in sorted(unread_by_all)]
    recording = division.recording
    parts = (piece.values for piece in pieces(recording))
    kind = _one_kind(kinds) if kinds else kind_of(parts)

    def job(
        cell: Cell,
        factory: ModelFactory | None,
        learner: Learner | None,
        before: Job | None = None,
    ) -> Job:
        configs: dict[str, Any] = {}
        if factory is not None:
            of_size = sized(factory, cell.dim, sizes[cell.model].argument)
            configs["model"] = to_config(of_size, key=f"models.{cell.model}")
            configs["learner"] = to_config(learner, key=f"learners.{cell.model}")
        search = None if factory is None else (searches or {}).get(cell.model)
        if search is not None:
            configs["search"] = {"num_fits": search.num_fits, "space": search.space}
        return Job(
            cell=cell,
            facts={**facts, **configs},
            factory=factory,
            learner=learner,
            division=division,
            kind=kind,
            num_samples=num_samples,
            k_shot=k_shot,
            settings=settings,
            folder=folder,
            keeps_weights=factory is not None and (warm_starts or cell.model in members),
            before=before,
            argument=None if factory is None else sizes[cell.model].argument,
            search=search,
        )

    folds = range(division.num_trial_folds)
    chains = [[job(Cell(MEAN_RATE, 0, fold, None, 0), None, None)] for fold in folds]
    for name, (chosen_factory, chosen_learner, whole) in fits.items():
        neuron_folds = [None] if whole else list(range(division.num_neuron_folds))
        places = itertools.product(folds, neuron_folds, range(1 if is_matrix else seeds))
        columns: list[list[Job]] = []
        for fold, neuron_fold, seed in places:
            column: list[Job] = []
            for dim in sizes[name].dims:
                before = column[-1] if warm_starts and column else None
                column.append(
                    job(
                        Cell(name, dim, fold, neuron_fold, seed),
                        chosen_factory,
                        chosen_learner,
                        before,
                    )
                )
            columns.append(column)
        if warm_starts:
            chains += columns
        else:  # small sizes first, whatever the fold
            chains += [[one] for row in zip(*columns, strict=True) for one in row]
    unit = "variance_explained" if is_matrix else kind.score_unit
    return Plan(chains, unit, list(dict.fromkeys(unread)))


def checked_models(
    models: Mapping[str, ModelFactory] | None, *, scheme: str
) -> dict[str, ModelFactory]:
    """Return the models to compare.

    Raises:
        InputError: if there is none, a name is taken, or one cannot do what the scheme asks.
    """
    if models is None:
        models = {"pca": PCA} if scheme == "gabriel" else {DEFAULT: NonlinearDynamics}
    if models is not None and not isinstance(models, Mapping):
        raise InputError(
            f"models must map names to classes, e.g. {{'lds': LinearDynamics}}, got {models!r}"
        )
    if not models:
        raise InputError("models: name at least one, e.g. {'lds': LinearDynamics}")
    for name, factory in models.items():
        if name == MEAN_RATE:
            raise InputError(f"models: {MEAN_RATE!r} is dimension 0; give the model another name")
        model_class = _class_of(factory)
        if not (isinstance(model_class, type) and issubclass(model_class, Model)):
            raise InputError(
                f"models.{name} must be a class of Model or functools.partial of one, got "
                f"{getattr(model_class, '__name__', model_class)!r}"
            )
        if scheme == "gabriel" and not issubclass(model_class, PCA):
            raise InputError(
                f"models.{name}: scheme 'gabriel' factorises a matrix, which is PCA; use scheme "
                f"'fold_in' for {model_class.__name__}"
            )
    return dict(models)


def suited(
    models: Mapping[str, ModelFactory],
    learners: Mapping[str, Learner | LearnerFactory],
    *,
    data: NeuralData,
    division: Division,
) -> tuple[dict[str, ModelFactory], dict[str, Learner]]:
    """Return models and learners with what suits the training rows of a fold.

    That is asked of ``seqvae.learning.default_fit``, for each ``NonlinearDynamics``.
    """
    factories: dict[str, ModelFactory] = dict(models)
    if division.scheme == "gabriel":
        return factories, {}
    chosen: dict[str, Learner] = {}
    for name, factory in models.items():
        if _class_of(factory) is NonlinearDynamics:
            first = learning_data(
                division,
                0,
                division.heldin(None if division.scheme == "speckled" else 0),
                learner=GradientLearner(),
                settings=_settings(data, division),
                seed=division.seed,
            )
            suits = completed_fit(factory, first, learners.get(name), scores_others=True)
            assert suits is not None
            factories[name], chosen[name] = suits
        else:
            chosen[name] = learner_of(learners.get(name), _class_of(factory))
    return factories, chosen


def _settings(data: NeuralData, division: Division) -> dict[str, Any]:
    is_of_several = division.recording.trial_sessions is not None
    names = (*DATA_ARGUMENTS, *(("alignment",) if is_of_several else ()))
    return {name: getattr(data, name) for name in names}


def check_size(division: Division, dim: int) -> None:
    """Refuse more components than a held-in block has rows or columns.

    Raises:
        InputError: naming both numbers.
    """
    fewest = min(len(division.heldin(fold)) for fold in range(division.num_neuron_folds))
    if dim > fewest:
        raise InputError(
            f"dims: {dim} components need as many held-in neurons, but a fold leaves {fewest}; "
            "lower it"
        )


def _checked(
    name: str,
    factory: ModelFactory,
    learner: Learner,
    *,
    division: Division,
    sizes: Sizes,
    settings: Mapping[str, Any],
) -> Model:
    """Build the smallest and the largest model, let the learner look, and return the latter."""
    model_class = _class_of(factory)
    whole = division.scheme == "speckled" or model_class.serves_any_heldin
    heldin = division.heldin(None if whole else 0)
    data = learning_data(division, 0, heldin, learner=learner, settings=settings, seed=0)
    try:
        for dim in sorted({sizes.dims[0], sizes.dims[-1]}):
            with torch.random.fork_rng():
                model = begin(sized(factory, dim, sizes.argument), data)
                if model.keeps_trials:
                    raise InputError(
                        "a posterior of each trial's own says nothing of new trials; use an encoder"
                    )
                check_pair(learner, model)
                learner.check(model, data)
    except InputError as error:
        raise InputError(f"models.{name}: {error}") from error
    return model


def _one_kind(kinds: Mapping[str, DataKind]) -> DataKind:
    first, *others = kinds
    for other in others:
        if kinds[other] != kinds[first]:
            raise InputError(
                f"models.{other} reads {kinds[other]} and models.{first} {kinds[first]}, whose "
                "scores cannot be compared; give them like observation models"
            )
    return kinds[first]


def _class_of(factory: Any) -> Any:
    return factory.func if isinstance(factory, partial) else factory
