"""Score a learned model beside the baselines; prints a table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch

from seqvae.analysis.evaluation import Training, evaluate_model
from seqvae.data.front import BinWidth, DataLike
from seqvae.errors import InputError
from seqvae.runs import Run
from seqvae.storage.files import write_text
from seqvae.types import Moments
from seqvae.verbs.advice import advice
from seqvae.verbs.opening import check_num_samples, check_out, open_run, without_nan


def evaluate(
    run: Run | str,
    data: DataLike | None = None,
    *,
    bin_width: BinWidth = None,
    split: str | None = None,
    num_samples: int = 50,
    refine_steps: int = 0,
    out: str | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Score a fitted model, and beside it the baselines on the same trials.

    Args:
        run: a run or its folder.
        data: other data than the run was trained on, as for ``infer``; None takes those. Null rates
            are those of the run, and baselines are learned on its training trials: where these are
            not at hand, the mean rate on what the run noted of them, and smoothing + GLM not.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        split: the trials to score; None takes test if there is one, else val; of other data
            without a split of their own all.
        num_samples: posterior samples.
        refine_steps: steps by which the posterior of each trial is refined from the encoder's
            answer on, to tell what amortised inference loses; 0: not at all.
        out: JSON file to write.
        trust: allow the run's config to import classes from anywhere.

    Returns:
        ``elbo`` and ``iwae`` (nats per trial), ``log_likelihood`` (nats per entry),
        ``bits_per_spike``, ``co_bps``, ``fp_bps``, ``rates_r2`` and ``behavior_r2`` as far as the
        data allow, and the same under ``baselines`` for the mean rate and smoothing + GLM; of other
        data, ``baselines_learned_on`` tells what these knew. With
        ``refine_steps`` also ``elbo_refined`` and ``amortisation_gap`` (nats per trial). Under
        ``advice``, for the data of the fit, what is wrong with it, and the setting to change; see
        ``seqvae.analysis.diagnosis``.
    """
    opened = open_run(run, data, trust, bin_width=bin_width)
    run, data, model, is_new = opened
    check_num_samples(num_samples)
    if refine_steps < 0:
        raise InputError(f"refine_steps must be at least 0, got {refine_steps}")
    if out is not None:
        check_out(out)
    training = _training(run, trust=trust) if is_new else Training(model, data)
    metrics = evaluate_model(
        model,
        data,
        split=opened.scored_split if split is None else split,
        num_samples=num_samples,
        refine_steps=refine_steps,
        seed=run.seed,
        training=training,
    )
    if is_new:
        metrics["baselines_learned_on"] = _told_of(training)
    elif "train" in data.split:
        metrics["advice"] = {
            finding.name: {"sentence": finding.sentence, "setting": finding.setting}
            for finding in advice(run, model, data, metrics, trust=trust)
        }
    if out is not None:
        write_text(out, json.dumps(without_nan(metrics), indent=2) + "\n")
    return metrics


def _training(run: Run, *, trust: bool) -> Training:
    """Return what a run was learned on, as far as it is at hand."""
    model = run.model(trust=trust)
    try:
        return Training(model, run.data(trust=trust))
    except InputError:
        pass
    moments = run.train_moments
    if moments is None and model.observation.kind.counts_events:  # of an earlier version
        mean = model.null_counts.cpu()
        moments = Moments(mean, mean.sqrt(), -torch.expm1(-mean))
    return Training(model, None, moments)


def _told_of(training: Training) -> str:
    """Tell what the baselines were learned on."""
    if training.data is not None:
        return "the training trials of the run"
    if training.moments is not None:
        return "the training means of the run; its data, for smoothing + GLM, are not at hand"
    return "nothing; the data of the run are not at hand"


def shown(metrics: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Lay out the scores, and tell where they lie."""
    out = arguments.get("out")
    return score_table(metrics) + (f"\nmetrics: {out}" if out else "")


def score_table(metrics: Mapping[str, Any]) -> str:
    """Lay out the scores: a row for each score, a column for the model and each baseline.

    Below them, how much the model gains over each baseline, paired over trials, and what is wrong.
    """
    told = [f"{name}: {value}" for name, value in metrics.items() if isinstance(value, str | int)]
    refined = {"refined": metrics["refined"]} if "refined" in metrics else {}
    columns = {"model": metrics, **refined, **metrics.get("baselines", {})}
    scores = {label: _cells(column) for label, column in columns.items()}
    names = list(dict.fromkeys(name for column in scores.values() for name in column))
    lines = [["", *scores]]
    lines += [[name, *(column.get(name, "-") for column in scores.values())] for name in names]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    laid = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    gains = [
        f"gain over {name} on what the model did not see: {gain['mean']:.4f} +- "
        f"{gain['standard_error']:.4f} {gain.get('unit', 'bits per spike')} (paired over trials)"
        for name, gain in metrics.get("gain", {}).items()
    ]
    advice = [
        f"advice: {name.replace('_', ' ')}: {found['sentence']}; {found['setting']}"
        for name, found in metrics.get("advice", {}).items()
    ]
    return "\n".join([*told, *("  ".join(line).rstrip() for line in laid), *gains, *advice])


def _cells(scores: Mapping[str, Any]) -> dict[str, str]:
    """Write scores to four digits; those with one number per dimension, side by side."""
    cells = {}
    for name, value in scores.items():
        if isinstance(value, float):
            cells[name] = f"{value:.4f}"
        elif isinstance(value, list):
            cells[name] = " / ".join(f"{part:.3f}" for part in value)
    return cells
