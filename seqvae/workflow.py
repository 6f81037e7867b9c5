"""The verbs: fit, infer, evaluate, check."""

from __future__ import annotations

import copy
import json
import math
import os
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from seqvae.config import to_config
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.evaluation import evaluate_model
from seqvae.files import RunFiles, write_text
from seqvae.inference import posterior_dataset
from seqvae.learning import Learner, default_learner
from seqvae.learning.learner import check_pair
from seqvae.run import (
    ModelFactory,
    Run,
    build_model,
    check_folder,
    check_resumable,
    create_run,
    write_config,
)

if TYPE_CHECKING:
    import xarray as xr


def fit(
    data: NeuralData,
    model: ModelFactory,
    learner: Learner | None = None,
    *,
    seed: int = 0,
    run_dir: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """Fit a model to data and keep everything about it in a run folder.

    Args:
        data: the recording, how it is split, and what inference may see.
        model: factory of the model: a class, or ``functools.partial`` of one.
        learner: how it is learned; None takes the model's own, with its defaults.
        seed: governs initial weights, order of trials, dropout and samples.
        run_dir: the run folder; None makes one under ``runs/`` named by model and time.
        resume: go on with the run in ``run_dir`` from its last checkpoint.
        overwrite: replace the run in ``run_dir``.

    Returns:
        The run, with the best weights by validation score.

    Raises:
        InputError: for anything the user can mend; nothing is written then.
    """
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
    if run_dir is None:
        run_dir = f"runs/{made.__name__.lower()}-{datetime.now():%Y%m%d-%H%M%S}"
    if not 0 <= seed < 2**63:
        raise InputError(f"seed must be from 0 to 2**63 - 1, got {seed}")
    folder = Path(run_dir)
    check_folder(folder, resume=resume, overwrite=overwrite)
    data.seed = seed
    data.setup()
    data.trials("train")
    config = to_config({"seed": seed, "data": data, "model": model, "learner": learner})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = build_model(model, data.spec)
        module.seed = seed
        module.initialize(data)
        files, checkpoint = RunFiles(folder), None
        if resume:
            check_resumable(Run(folder), config, data)
            checkpoint = files.last_checkpoint if files.last_checkpoint.exists() else None
        if isinstance(learner, Learner):
            check_pair(learner, module)
        learner.check(module, data, checkpoint=checkpoint)
        if resume:
            write_config(files, config)
        else:
            create_run(files, config, data, overwrite=overwrite)
        learner.learn(module, data, files, checkpoint=checkpoint, config=config)
    return Run(folder).remember(module, data)


def infer(
    run: Run | str,
    data: NeuralData | None = None,
    *,
    split: str = "all",
    num_samples: int = 50,
    out: str | None = None,
    trust: bool = False,
) -> xr.Dataset:
    """Infer rates, factors and latents of every trial with a fitted model.

    Args:
        run: a run or its folder.
        data: other data than the run was trained on; None takes those.
        split: "train", "val", "test" or "all" trials.
        num_samples: posterior samples that are averaged.
        out: netCDF file to write; it appears whole or not at all.
        trust: allow the run's config to import classes from anywhere.

    Returns:
        Dataset with dims trial, time (s), neuron, factor; variables ``rates`` (Hz) or ``mean``,
        ``factors``, ``<latent>_mean``, each with its ``_sd``, and ``elbo`` (nats per trial).
    """
    run, data, model = open_run(run, data, trust)
    _check_num_samples(num_samples)
    trials = data.trials(split)
    if out is not None:
        _check_writable(out)
    attributes = {
        "model": type(model).__name__,
        "run": run.hash,
        "num_samples": num_samples,
        **{f"{name}_version": run.provenance["versions"][name] for name in ("seqvae", "torch")},
    }
    return posterior_dataset(
        model,
        data,
        trials,
        num_samples=num_samples,
        path=out,
        attributes=attributes,
        seed=run.seed,
    )


def evaluate(
    run: Run | str,
    data: NeuralData | None = None,
    *,
    split: str | None = None,
    num_samples: int = 50,
    refine_steps: int = 0,
    out: str | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Score a fitted model, and beside it the baselines on the same trials.

    Args:
        run: a run or its folder.
        data: other data than the run was trained on; None takes those.
        split: the trials to score; None takes test if there is one, else val.
        num_samples: posterior samples.
        refine_steps: steps by which the posterior of each trial is refined from the encoder's
            answer on, to tell what amortised inference loses; 0: not at all.
        out: JSON file to write.
        trust: allow the run's config to import classes from anywhere.

    Returns:
        ``elbo`` and ``iwae`` (nats per trial), ``log_likelihood`` (nats per entry),
        ``bits_per_spike``, ``co_bps``, ``fp_bps``, ``rates_r2`` and ``behavior_r2`` as far as the
        data allow, and the same under ``baselines`` for the mean rate and smoothing + GLM. With
        ``refine_steps`` also ``elbo_refined`` and ``amortisation_gap`` (nats per trial).
    """
    run, data, model = open_run(run, data, trust)
    _check_num_samples(num_samples)
    if refine_steps < 0:
        raise InputError(f"refine_steps must be at least 0, got {refine_steps}")
    if out is not None:
        _check_writable(out)
    if split is None:
        split = next((word for word in ("test", "val") if word in data.split), "all")
    metrics = evaluate_model(
        model,
        data,
        split=split,
        num_samples=num_samples,
        refine_steps=refine_steps,
        seed=run.seed,
    )
    if out is not None:
        write_text(out, json.dumps(without_nan(metrics), indent=2) + "\n")
    return metrics


def check(data: NeuralData) -> dict[str, Any]:
    """Load and validate data, and return what is in them.

    Raises:
        InputError: naming the field, the first offending index and the cure.
    """
    data.setup()
    recording, spec = data.recording, data.spec
    counts = _is_counts(recording.activity)
    mean = data.train_mean.numpy() if "train" in data.split else None
    summary: dict[str, Any] = {
        "trials": {w: int((data.split == w).sum()) for w in ("train", "val", "test")},
        "time bins": spec.num_time_bins,
        "shortest trial (bins)": int(recording.lengths.min()),
        "forecast bins": spec.num_forecast_bins,
        "bin width (s)": spec.bin_width,
        "neurons held in": spec.num_heldin,
        "neurons held out": len(spec.heldout),
        "external inputs": spec.num_inputs,
        "behavior dimensions": 0 if recording.behavior is None else recording.behavior.shape[-1],
        "missing entries": int(np.isnan(recording.activity).sum()),
        "values": "counts" if counts else "real numbers",
    }
    if counts and spec.bin_width and mean is not None:
        rates = mean / spec.bin_width
        summary["mean rate (Hz)"] = round(float(rates.mean()), 3)
        summary["slowest and fastest neuron (Hz)"] = f"{rates.min():.3g} to {rates.max():.3g}"
    summary["checksum"] = recording.checksum
    return summary


def open_run(run: Run | str, data: NeuralData | None, trust: bool) -> tuple[Run, NeuralData, Any]:
    """Return a run, the data to look at (its own, or others that fit it), and its model."""
    run = run if isinstance(run, Run) else Run(run)
    model = run.model(trust=trust)
    if data is None:
        return run, run.data(trust=trust), model
    data.setup()
    data.recording.require(model.observation.data_kind)
    known = data.recording.checksum == run.provenance["data"]["checksum"]
    data = data.adapted(run.spec)
    if model.keeps_trials and not known:
        model = copy.deepcopy(model)
        model.make_room(data.recording.num_trials, data.spec.num_encoded_bins)
    return run, data, model


def _check_num_samples(num_samples: int) -> None:
    if num_samples < 1:
        raise InputError(f"num_samples must be at least 1, got {num_samples}")


def _check_writable(out: str) -> None:
    if Path(out).is_dir():
        raise InputError(f"out: {out!r} is a folder; give the name of a file in it")
    parent = Path(out).parent
    if not parent.is_dir():
        raise InputError(f"out: the folder {str(parent)!r} does not exist")
    if not os.access(parent, os.W_OK):
        raise InputError(f"out: the folder {str(parent)!r} cannot be written")


def without_nan(value: Any) -> Any:
    """Write NaN and infinity as null: JSON has no other word for what is no number."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_counts(activity: np.ndarray) -> bool:
    known = activity[np.isfinite(activity)]
    return bool((known >= 0).all() and (known == np.round(known)).all())
