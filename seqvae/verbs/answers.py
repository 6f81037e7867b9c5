"""The verbs that ask a fitted model: infer, evaluate."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqvae.analysis.devices import chosen_devices
from seqvae.analysis.evaluation import evaluate_model
from seqvae.analysis.posterior import posterior_dataset
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.runs.run import Run
from seqvae.storage.files import check_writable, write_text
from seqvae.verbs.advice import advice

if TYPE_CHECKING:
    import xarray as xr


def infer(
    run: Run | str,
    data: NeuralData | None = None,
    *,
    split: str = "all",
    num_samples: int = 50,
    devices: str | int = "auto",
    out: str | None = None,
    trust: bool = False,
) -> xr.Dataset:
    """Infer rates, factors and latents of every trial with a fitted model.

    Args:
        run: a run or its folder.
        data: other data than the run was trained on; None takes those.
        split: "train", "val", "test" or "all" trials.
        num_samples: posterior samples that are averaged.
        devices: "auto" shares the trials out over all GPUs there are, for a model that is learned
            by gradients, and else takes the CPU; or "cpu", or how many GPUs.
        out: netCDF file to write; it appears whole or not at all.
        trust: allow the run's config to import classes from anywhere.

    Returns:
        Dataset with dims trial, time (s), neuron, factor; variables ``rates`` (Hz) or ``mean``,
        ``factors``, ``<latent>_mean``, each with its ``_sd``, and ``elbo`` (nats per trial).
    """
    run, data, model = open_run(run, data, trust)
    _check_num_samples(num_samples)
    trials, chosen = data.trials(split), chosen_devices(model, devices)
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
        devices=chosen,
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
        ``refine_steps`` also ``elbo_refined`` and ``amortisation_gap`` (nats per trial). Under
        ``advice``, for the data of the fit, what is wrong with it, and the setting to change; see
        ``seqvae.analysis.diagnosis``.
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
    if data.recording.checksum == run.provenance["data"]["checksum"] and "train" in data.split:
        metrics["advice"] = {
            finding.name: {"sentence": finding.sentence, "setting": finding.setting}
            for finding in advice(run, model, data, metrics)
        }
    if out is not None:
        write_text(out, json.dumps(without_nan(metrics), indent=2) + "\n")
    return metrics


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
    check_writable(parent)


def without_nan(value: Any) -> Any:
    """Write NaN and infinity as null: JSON has no other word for what is no number."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
