"""Score a learned model beside the baselines; prints a table."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from seqvae.analysis.evaluation import Training, evaluate_model
from seqvae.data import NeuralData
from seqvae.data.front import BinWidth, DataLike
from seqvae.errors import InputError
from seqvae.models import Model
from seqvae.runs import Run
from seqvae.scores.benchmark import NULLS
from seqvae.scores.ceiling import ceiling_words
from seqvae.storage.files import write_text
from seqvae.types import Moments
from seqvae.verbs.advice import advice
from seqvae.verbs.opening import check_num_samples, check_out, open_run, without_nan

MOST_LINES = 40
"""So many lines are printed of the neurons."""
UNFINISHED = "learning has not ended: it still goes on, or was ended before (fit --resume)"
NOTHING_HELD_OUT = (
    "nothing was held out from inference, so these scores favour what copies its input; fit with "
    "--data.heldout 0.2 to see what a model predicts (co_bps, gain)"
)


def evaluate(
    run: Run | str,
    data: DataLike | None = None,
    *,
    bin_width: BinWidth = None,
    split: str | None = None,
    session: str | None = None,
    num_samples: int = 50,
    refine_steps: int = 0,
    per_neuron: bool = False,
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
        split: the trials to score; None takes test if there is one, else val, unless the run was
            refitted and has learned from val; of other data without a split of their own all.
        session: of several sessions the trials and neurons of this one alone, with baselines of its
            own; None: all together, and the model's scores of each.
        num_samples: posterior samples.
        refine_steps: steps by which the posterior of each trial is refined from the encoder's
            answer on, to tell what amortised inference loses; 0: not at all.
        per_neuron: score each neuron, too.
        out: JSON file to write.
        trust: allow the run's config to import classes from anywhere.

    Returns:
        ``elbo`` and ``iwae`` (nats per trial), ``log_likelihood`` (nats per entry),
        ``bits_per_spike``, ``co_bps``, ``fp_bps``, ``rates_r2`` and ``behavior_r2`` as far as the
        data allow, with those of the Neural Latents Benchmark, ``nlb_co_bps``, ``nlb_fp_bps``,
        ``nlb_psth_r2`` and ``nlb_behavior_r2``; the same under ``baselines`` for the mean rate,
        smoothing + GLM and, where trials have conditions, their means; of other
        data, ``baselines_learned_on`` tells what these knew. Under ``ceiling``, where conditions
        come again among the scored trials, what the rate of the condition alone could reach. With
        ``refine_steps`` also ``elbo_refined`` and ``amortisation_gap`` (nats per trial). Under
        ``advice``, for the data of the fit, what is wrong with it, and the setting to change; see
        ``seqvae.analysis.diagnosis``. Of an ensemble the scores of each member under ``members``,
        and the gain over it, paired over trials, under ``gain_over_members``. With ``per_neuron``,
        under this name, for each neuron its ``id``, ``group`` (``heldin``, ``heldout``),
        ``spikes``, ``bits`` gained over its mean rate and ``bits_per_spike`` (for other data than
        counts ``entries`` and ``log_likelihood``), and the latter under ``baselines``, too. Of
        several sessions the model's scores of each under ``sessions``, by its name.
    """
    opened = open_run(run, data, trust, bin_width=bin_width)
    run, data, model, is_new = opened
    check_num_samples(num_samples)
    if refine_steps < 0:
        raise InputError(f"refine_steps must be at least 0, got {refine_steps}")
    if out is not None:
        check_out(out, ".json")
    if session is not None and is_new:
        raise InputError(
            "session: other data than the run's have none of its sessions; leave one out"
        )
    if session is not None:
        data, neurons = data.alone(session)
        with torch.no_grad():
            model = model.among(neurons)
    training = _training(run, trust=trust) if is_new else Training(model, data)
    scored = partial(
        evaluate_model,
        split=opened.split_of(split),
        num_samples=num_samples,
        refine_steps=refine_steps,
        seed=run.seed,
    )
    metrics = scored(model, data, per_neuron=per_neuron, training=training)
    if data.sessions and session is None:
        metrics["sessions"] = {
            name: _of_session(model, data, name, scored)
            for name in data.sessions
            if metrics["split"] in (*data.of_session(name).split, "all")
        }
    if not run.is_finished:
        metrics["unfinished"] = UNFINISHED
    if is_new:
        metrics["baselines_learned_on"] = _told_of(training)
    elif not run.is_finished or session is not None:
        pass  # what is wrong with a fit is told when it has ended
    elif "train" in data.split and not run.members:  # which was not fitted itself
        metrics["advice"] = {
            finding.name: {"sentence": finding.sentence, "setting": finding.setting}
            for finding in advice(run, model, data, metrics, trust=trust)
        }
    if out is not None:
        write_text(out, json.dumps(without_nan(metrics), indent=2) + "\n")
    return metrics


def _of_session(
    model: Model, data: NeuralData, name: str, scored: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """Score a session by its own neurons; beside it the mean rate, as other baselines stand above.

    Args:
        model: of all sessions.
        data: of all.
        name: of the session.
        scored: ``evaluate_model`` with all its settings.
    """
    part, neurons = data.alone(name)
    with torch.no_grad():
        narrow = model.among(neurons)
    moments = Moments(*(values[list(neurons)] for values in data.train_moments))
    return scored(narrow, part, training=Training(narrow, None, moments))


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
    columns = {"model": metrics}
    columns |= {"refined": metrics["refined"]} if "refined" in metrics else {}
    columns |= {f"member {name}": one for name, one in metrics.get("members", {}).items()}
    columns |= {f"session {name}": one for name, one in metrics.get("sessions", {}).items()}
    columns |= metrics.get("baselines", {})
    scores = {label: _cells(column) for label, column in columns.items()}
    names = list(dict.fromkeys(name for column in scores.values() for name in column))
    lines = [["", *scores]]
    lines += [[name, *(column.get(name, "-") for column in scores.values())] for name in names]
    told_gains = {
        **{f"member {name}": gain for name, gain in metrics.get("gain_over_members", {}).items()},
        **metrics.get("gain", {}),
    }
    gains = [
        f"gain over {name} on what the model did not see: {gain['mean']:.4f} +- "
        f"{gain['standard_error']:.4f} {gain.get('unit', 'bits per spike')} (paired over trials)"
        for name, gain in told_gains.items()
    ]
    ceilings = [
        f"ceiling of {ceiling_words(name, ceiling)}"
        for name, ceiling in metrics.get("ceiling", {}).items()
    ]
    advice = [
        f"advice: {name.replace('_', ' ')}: {found['sentence']}; {found['setting']}"
        for name, found in metrics.get("advice", {}).items()
    ]
    nothing = [NOTHING_HELD_OUT] if metrics.get("gain") == {} else []
    nulls = [NULLS] if "nlb_co_bps" in metrics or "nlb_fp_bps" in metrics else []
    neurons = neuron_table(metrics["per_neuron"]) if "per_neuron" in metrics else []
    parts = [*told, *_laid(lines), *nothing, *nulls, *gains, *ceilings, *neurons, *advice]
    return "\n".join(parts)


def neuron_table(neurons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lay out the score of each neuron beside those of the baselines, in at most 40 lines."""
    size, score = ("spikes" if "spikes" in neurons[0] else "entries"), list(neurons[0])[-2]
    lines = [["neuron", "group", size, score, *neurons[0]["baselines"]]]
    for neuron in neurons if len(neurons) < MOST_LINES else neurons[: MOST_LINES - 2]:
        values = [neuron[score], *neuron["baselines"].values()]
        cells = ["-" if math.isnan(value) else f"{value:.4f}" for value in values]
        lines.append([str(neuron["id"]), neuron["group"], f"{neuron[size]:.0f}", *cells])
    num_left = len(neurons) - len(lines) + 1
    return [*_laid(lines), *([f"and {num_left} more, in the file (out)"] if num_left else [])]


def _laid(lines: Sequence[Sequence[str]]) -> list[str]:
    """Pad the cells of a table, its first column to the left."""
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    laid = [[line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])] for line in lines]
    return ["  ".join(line).rstrip() for line in laid]


def _cells(scores: Mapping[str, Any]) -> dict[str, str]:
    """Write scores to four digits; those with one number per dimension, side by side."""
    cells = {}
    for name, value in scores.items():
        if isinstance(value, float):
            cells[name] = f"{value:.4f}"
        elif isinstance(value, list) and name != "per_neuron":
            cells[name] = " / ".join(f"{part:.3f}" for part in value)
    return cells
