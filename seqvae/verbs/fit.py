"""Learn a model from data; leaves a run folder with weights, scores and figures."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from seqvae.compute import noise
from seqvae.compute.termination import terminable
from seqvae.config import to_config
from seqvae.data import NeuralData, as_data
from seqvae.data.front import BinWidth, DataLike
from seqvae.errors import InputError
from seqvae.learning import Learner, LearnerFactory, completed_fit, learner_of
from seqvae.learning.learner import check_pair, without_progress
from seqvae.learning.observers import Alarms, HistoryRows, Observer, tell
from seqvae.learning.unread import unread
from seqvae.runs import FitFolder, FitInMemory, ModelFactory, Origin, Recipe, Run, begin
from seqvae.storage.files import RunFiles
from seqvae.verbs import seeds as seed_table
from seqvae.verbs.advice import advice
from seqvae.verbs.seeds import Seeds, check_seeds
from seqvae.verbs.wandb_results import WandbResult, WandbResults, check_wandb_results


def fit(
    data: DataLike | None = None,
    model: ModelFactory | None = None,
    learner: Learner | LearnerFactory | None = None,
    *,
    bin_width: BinWidth = None,
    from_run: Run | str | None = None,
    init_from: Run | str | None = None,
    seed: int | None = None,
    run_dir: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    in_memory: bool = False,
    seeds: int = 1,
    jobs: int = 1,
    wandb_results: Sequence[WandbResult] = (),
    trust: bool = False,
) -> Run:
    """Fit a model to data and keep everything about it in a run folder, or in memory.

    With ``from_run`` a run is repeated, and what is given beside it takes the place of its own. On
    the same machine the repetition is equal, bit for bit on the CPU.

    With ``init_from`` a fitted model is learned on, on other data (of the same neurons in the same
    order, where there are as many) or with other settings: all of its weights that have the name
    and the shape of one of the new model are where learning begins, and a warning tells of those
    that have not. The training means, which inference and null rates are relative to, are those of
    the new data.

    Args:
        data: the recording, how it is split, and what inference may see.
        model: factory of the model: a class, or ``functools.partial`` of one. None takes that of
            ``from_run``, else ``NonlinearDynamics`` of a size that suits the data, learned as
            ``seqvae.learning.default_fit`` says; where it is named, what is not said of it is so.
        learner: how it is learned; None takes that of ``from_run``, else the model's own, with its
            defaults. A class of learners, or ``functools.partial`` of one, changes what it says of
            how ``default_fit`` learns; a learner stands as it is.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        from_run: a run, its folder, or its provenance.json, to repeat.
        init_from: a run, or its folder, whose weights learning begins with; None begins anew, or
            as ``from_run`` did.
        seed: governs initial weights, order of trials, dropout and samples; None takes that of
            ``from_run``, else 0.
        run_dir: the run folder; None makes one under ``runs/`` named by model and time.
        resume: go on with the run in ``run_dir`` from its last checkpoint.
        overwrite: replace the run in ``run_dir``.
        in_memory: write nothing at all; the run that is returned has no folder, and answers
            ``evaluate`` and ``infer`` as any, until it is saved (``run.save(folder)``) or lost. Its
            history is empty if learning took several processes.
        seeds: fits, by as many seeds from ``seed`` on, each in a folder of its own in ``run_dir``;
            the run that is returned is the ensemble of those that are no outliers, and
            ``seeds.json`` tells their scores on the validation trials, and the best.
        jobs: of several seeds, fits at a time, each on one core; -1: one for each core.
        wandb_results: what W&B gets at the end, beside metrics, config and figures: ``posterior``
            (a table of factors, and the file as an artifact), ``model`` (an artifact that is a run
            folder) and ``report`` (the page); needs a W&B logger.
        trust: allow the configs of ``from_run`` and ``init_from`` to import classes from anywhere.

    Returns:
        The run, with the best weights by validation score; of several seeds their ensemble.

    Raises:
        InputError: for anything the user can mend; nothing is written then.
    """
    recipe = None if from_run is None else Recipe.of(from_run, trust=trust)
    if recipe is not None:
        data = recipe.data() if data is None else data
        model = recipe.build("model", ModelFactory) if model is None else model
        learner = recipe.build("learner", Learner) if learner is None else learner
        seed = recipe.config["seed"] if seed is None else seed
    if data is None:
        raise InputError("data is required: give it, or from_run, a run to repeat")
    seed = 0 if seed is None else seed
    data = as_data(data, bin_width)
    if recipe is None and (suited := completed_fit(model, data, learner)) is not None:
        model, learner = suited
    assert model is not None
    model_class = checked_class(model, seed=seed)
    learner = learner_of(learner, model_class)
    if init_from is not None:
        _check_begins(learner, resume=resume)
    check_wandb_results(wandb_results, learner, in_memory=in_memory)
    place = learner.place()
    if seeds != 1 or jobs != 1:
        check_seeds(seeds, jobs, in_memory=in_memory, overwrite=overwrite, place=place)
        several = Seeds(
            _folder(run_dir, model_class, num_processes=1),
            range(seed, seed + seeds),
            to_config({"data": data, "model": model, "learner": learner}),
            resume=resume,
            num_workers=jobs,
        )
        one = partial(
            fit,
            copy.copy(data),  # which is loaded where it is fitted to
            model,
            learner if jobs == 1 else without_progress(learner),
            from_run=from_run,
            init_from=init_from,
            wandb_results=wandb_results,
            trust=trust,
        )
        if recipe is not None:
            recipe.load(data)
        _rehearse(data, model, learner, seed=seed)
        return several.fitted(one, data)
    folder: FitFolder | FitInMemory
    observers: Sequence[Observer]
    rows = HistoryRows()
    if in_memory:
        _check_in_memory(run_dir, resume=resume, overwrite=overwrite)
        folder, observers = FitInMemory(place.rank == 0), (rows, Alarms())
    else:
        files = RunFiles(_folder(run_dir, model_class, num_processes=place.started))
        if overwrite and init_from is not None and _lies_in(init_from, files.folder):
            raise InputError(
                "init_from: overwrite would remove the run that learning begins with; give "
                "another run_dir"
            )
        folder = FitFolder(files, resume=resume, overwrite=overwrite, is_first=place.rank == 0)
        observers = learner.observers_of(files)
    with terminable(), folder.held():
        if recipe is not None:
            recipe.load(data)
            if (apart := recipe.apart()) is not None:
                warnings.warn(apart, stacklevel=2)
        data.setup()
        data.trials("train")
        data = copy.copy(data)  # the caller's keeps its seed
        data.seed = seed
        config = to_config({"seed": seed, "data": data, "model": model, "learner": learner})
        with noise.apart(seed):
            checkpoint = folder.checkpoint(config, data)
            begun = begin(model, data, seed=seed, is_resumed=checkpoint is not None)
            origin = None
            if checkpoint is None:
                origin = _origin(init_from, None if resume else recipe, folder, trust=trust)
            if origin is not None:
                origin.check(data, begun)
                origin.hand_over(begun)
            check_pair(learner, begun)
            learner.check(begun, data, checkpoint=checkpoint)
            for sentence in unread(begun, learner, data) if folder.is_first else []:
                warnings.warn(sentence, stacklevel=2)
            moments = learner.learned_data(data).train_moments
            folder.write(config, data, moments=moments, origin=origin)
            if wandb_results and not in_memory:
                observers = [*observers, WandbResults(files, data, wandb_results)]
            learner.learn(begun, data, observers=observers, checkpoint=checkpoint, config=config)
        run = folder.run(begun, data, config=config, origin=origin, history=rows.rows)
        try:
            tell(advice(run, begun, data, trust=True) if folder.is_first else [])
        except Exception as error:  # what took hours is not lost for a diagnosis
            warnings.warn(f"the fit could not be diagnosed: {error!r}", stacklevel=2)
    return run


def shown(run: Run, arguments: Mapping[str, Any]) -> str:
    """Tell where the run lies, and what is in its folder."""
    if run.folder is None:
        return "the run was kept in memory: nothing was written"
    if arguments.get("seeds", 1) != 1:
        return seed_table.shown(run)
    chosen = ""
    if arguments.get("model") is None and arguments.get("from_run") is None:
        tree = run.config["model"]
        kind, size = tree["class_path"].rsplit(".", 1)[-1], tree["init_args"]["latent_dim"]
        chosen = f"no model was named: {kind} of {size} latents, see config.yaml\n"
        if isinstance(arguments.get("learner"), Learner):
            chosen += "a learner was given: all of its settings are its own, none the default's\n"
    if run.spec.bin_width is None and run.spec.num_time_bins > 1:
        chosen += "bin width unknown: time is in bins, and counts have no rates; give bin_width\n"
    names = sorted(path.name for path in run.folder.iterdir() if not path.name.startswith("."))
    return f"{chosen}run folder: {run.folder}\n  {'  '.join(names)}"


def checked_class(model: object, *, seed: int) -> type:
    """Refuse arguments of the wrong kind, and return the class of the model."""
    model_class = model.func if isinstance(model, partial) else model
    if not isinstance(model_class, type):
        kind = type(model_class).__name__
        name = getattr(model_class, "__qualname__", f"an instance of {kind}")
        raise InputError(f"model: use a class or functools.partial of a class, got {name}")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed must be from 0 to 2**63 - 1, got {seed}")
    return model_class


def _rehearse(data: NeuralData, model: ModelFactory, learner: Learner, *, seed: int) -> None:
    """Refuse what no seed could be fitted with, before anything is written."""
    data.setup()
    data.trials("train")
    with noise.apart(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each fit tells them
        begun = begin(model, data, seed=seed)
        check_pair(learner, begun)
        learner.check(begun, data)


def _check_in_memory(run_dir: str | None, *, resume: bool, overwrite: bool) -> None:
    """Refuse what concerns a folder where none is written."""
    named = {"run_dir": run_dir is not None, "resume": resume, "overwrite": overwrite}
    for name in (name for name, is_given in named.items() if is_given):
        raise InputError(f"in_memory writes no folder; leave {name} out, or in_memory")


def _check_begins(learner: Learner, *, resume: bool) -> None:
    """Refuse weights to begin with where learning does not begin, or not with weights."""
    if resume:
        raise InputError("init_from: a run that is resumed has begun already; leave init_from out")
    if not learner.begins_from_model:
        raise InputError(
            f"init_from: {type(learner).__name__} begins from the data alone; leave init_from out"
        )


def _lies_in(run: Run | str, folder: Path) -> bool:
    """Whether a run is that of a folder."""
    place = run.folder if isinstance(run, Run) else Path(run)
    return place is not None and place.resolve() == folder.resolve()


def _folder(run_dir: str | None, model_class: type, *, num_processes: int) -> Path:
    """Return the run folder, named by model and time unless it is given."""
    if run_dir is not None:
        return Path(run_dir)
    if num_processes > 1:
        raise InputError(
            f"run_dir is required where {num_processes} processes are started by srun, torchrun or "
            "strategy 'ddp': all need the same"
        )
    return Path(f"runs/{model_class.__name__.lower()}-{datetime.now():%Y%m%d-%H%M%S}")


def _origin(
    init_from: Run | str | None,
    recipe: Recipe | None,
    folder: FitFolder | FitInMemory,
    *,
    trust: bool,
) -> Origin | None:
    """Return the model to begin with: that of the argument, else that of the former fit."""
    if init_from is not None:
        return Origin.read(init_from, trust=trust)
    return folder.origin(trust=trust) if recipe is None else recipe.origin()
