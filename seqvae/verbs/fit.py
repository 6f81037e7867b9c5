"""Learn a model from data; leaves a run folder with weights, scores and figures."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from seqvae.compute import noise
from seqvae.compute.ranks import Place
from seqvae.compute.termination import terminable
from seqvae.config import to_config
from seqvae.data import NeuralData
from seqvae.errors import InputError, Terminated
from seqvae.learning import Learner, default_learner
from seqvae.learning.learner import check_pair
from seqvae.learning.warnings import tell
from seqvae.runs.provenance import Recipe
from seqvae.runs.run import (
    ModelFactory,
    Run,
    build_model,
    check_folder,
    check_resumable,
    continue_run,
    create_run,
)
from seqvae.storage.files import RunFiles
from seqvae.storage.locking import locked
from seqvae.verbs.advice import advice


def fit(
    data: NeuralData | None = None,
    model: ModelFactory | None = None,
    learner: Learner | None = None,
    *,
    from_run: Run | str | None = None,
    seed: int | None = None,
    run_dir: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    trust: bool = False,
) -> Run:
    """Fit a model to data and keep everything about it in a run folder.

    With ``from_run`` a run is repeated, and what is given beside it takes the place of its own. On
    the same machine the repetition is equal, bit for bit on the CPU.

    Args:
        data: the recording, how it is split, and what inference may see.
        model: factory of the model: a class, or ``functools.partial`` of one.
        learner: how it is learned; None takes that of ``from_run``, else the model's own, with its
            defaults.
        from_run: a run, its folder, or its provenance.json, to repeat.
        seed: governs initial weights, order of trials, dropout and samples; None takes that of
            ``from_run``, else 0.
        run_dir: the run folder; None makes one under ``runs/`` named by model and time.
        resume: go on with the run in ``run_dir`` from its last checkpoint.
        overwrite: replace the run in ``run_dir``.
        trust: allow the config of ``from_run`` to import classes from anywhere.

    Returns:
        The run, with the best weights by validation score.

    Raises:
        InputError: for anything the user can mend; nothing is written then.
    """
    recipe = None
    if from_run is not None:
        known = from_run if isinstance(from_run, Run) else None
        recipe = Recipe.read(str(from_run) if known is None else known.folder, trust=trust)
        if data is None and known is not None:
            data = known.data(trust=trust)  # which may have been in memory only
        data = recipe.build("data", NeuralData) if data is None else data
        model = recipe.build("model", ModelFactory) if model is None else model
        learner = recipe.build("learner", Learner) if learner is None else learner
        seed = recipe.config["seed"] if seed is None else seed
    if data is None or model is None:
        name = "data" if data is None else "model"
        raise InputError(f"{name} is required: give it, or from_run, a run to repeat")
    seed = 0 if seed is None else seed
    if not isinstance(data, NeuralData):
        raise InputError(f"data must be NeuralData, got {type(data).__name__}")
    if not (learner is None or hasattr(learner, "learn")):
        raise InputError(
            "learner must be a Learner, e.g. GradientLearner(partial(Trainer, max_epochs=50)), "
            f"got {type(learner).__name__}"
        )
    made = model.func if isinstance(model, partial) else model
    if not isinstance(made, type):
        name = getattr(made, "__qualname__", f"an instance of {type(made).__name__}")
        raise InputError(f"model: use a class or functools.partial of a class, got {name}")
    learner = default_learner(made)() if learner is None else learner
    place = learner.place() if isinstance(learner, Learner) else Place()
    if run_dir is None and place.started > 1:
        raise InputError(
            f"run_dir is required where {place.started} processes are started by srun, torchrun or "
            "strategy 'ddp': all need the same"
        )
    if run_dir is None:
        run_dir = f"runs/{made.__name__.lower()}-{datetime.now():%Y%m%d-%H%M%S}"
    if not 0 <= seed < 2**63:
        raise InputError(f"seed must be from 0 to 2**63 - 1, got {seed}")
    files = RunFiles(Path(run_dir))
    is_first = place.rank == 0  # of several processes one sees to the folder
    held = locked(files.folder, key="run_dir") if is_first else nullcontext()
    with terminable(), held:
        if is_first:
            check_folder(files.folder, resume=resume, overwrite=overwrite)
        if recipe is not None:
            recipe.load(data)
            apart = recipe.apart()
            if apart is not None:
                warnings.warn(apart, stacklevel=2)
        try:
            return _fit(
                data,
                model,
                learner,
                files,
                seed=seed,
                resume=resume,
                overwrite=overwrite,
                is_first=is_first,
            )
        except Terminated as end:
            has_begun = files.config.exists()
            cure = " with --resume" if has_begun else ""
            raise Terminated(f"terminated; give the same command again{cure}") from end


def shown(run: Run, arguments: Mapping[str, Any]) -> str:
    """Tell where the run lies, and what is in its folder."""
    names = sorted(path.name for path in run.folder.iterdir() if not path.name.startswith("."))
    return f"run folder: {run.folder}\n  {'  '.join(names)}"


def _fit(
    data: NeuralData,
    model: ModelFactory,
    learner: Learner,
    files: RunFiles,
    *,
    seed: int,
    resume: bool,
    overwrite: bool,
    is_first: bool,
) -> Run:
    """Fit a model in a run folder that is held, and may be written by the first process."""
    data.setup()
    data.trials("train")
    data = copy.copy(data)  # the caller's keeps its seed
    data.seed = seed
    config = to_config({"seed": seed, "data": data, "model": model, "learner": learner})
    with noise.apart(seed):
        module = build_model(model, data.spec)
        module.seed = seed
        module.initialize(data)
        checkpoint = None
        if resume:
            check_resumable(Run(files.folder), config, data)
            checkpoint = files.last_checkpoint if files.last_checkpoint.exists() else None
        if isinstance(learner, Learner):
            check_pair(learner, module)
        learner.check(module, data, checkpoint=checkpoint)
        if resume and is_first:
            continue_run(files, config)
        elif is_first:
            create_run(files, config, data, overwrite=overwrite)
        learner.learn(module, data, files, checkpoint=checkpoint, config=config)
    run = Run(files.folder).remember(module, data)
    try:
        tell(advice(run, module, data) if is_first else [])
    except Exception as error:  # what took hours is not lost for a diagnosis
        warnings.warn(f"the fit could not be diagnosed: {error!r}", stacklevel=2)
    return run
