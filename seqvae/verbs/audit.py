"""Compare a model's posterior with one that is sampled; prints a table, draws it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from seqvae.analysis.audit.calibration import Calibration, simulation_based_calibration
from seqvae.analysis.audit.comparison import Comparison, compare
from seqvae.analysis.audit.joint import what_is_seen
from seqvae.analysis.audit.reference import Reference, reference_posterior, require
from seqvae.analysis.audit.verdict import LEVEL, Verdict, judge
from seqvae.data.front import BinWidth, DataLike
from seqvae.errors import InputError
from seqvae.models import Model
from seqvae.runs import Run
from seqvae.storage.files import atomic_path, check_writable, write_text
from seqvae.verbs.opening import open_run, without_nan

CALIBRATION_TRIALS = 200
LARGEST_R_HAT = 1.05
"""Above it the draws are too few to judge by."""
SIMULATED = "simulated trials"


def audit(
    run: Run | str,
    data: DataLike | None = None,
    *,
    bin_width: BinWidth = None,
    split: str | None = None,
    trials: int = 3,
    num_samples: int = 500,
    num_warmup: int = 300,
    num_chains: int = 2,
    calibration_trials: int | None = None,
    out: str | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Compare a fitted model's posterior with one that is sampled from its joint density.

    The verdict names what chance does not explain, at a family-wise error rate of 1 %: means and
    variances of the latents, of their sums over time and of log p(x, z), on the trials against the
    sampled posterior, and on trials that are simulated from the model, where the truth is known.

    Args:
        run: a run or its folder.
        data: other data than the run was trained on, as for ``infer``; None takes those.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        split: the trials to take; None takes test if there is one, else val; of other data without
            a split of their own all.
        trials: number of trials, evenly spread.
        num_samples: draws of each chain of NUTS.
        num_warmup: draws before, to adapt.
        num_chains: chains for each trial; at least 2, so that they can be compared.
        calibration_trials: trials to simulate from the model for simulation-based calibration;
            0: none; None: 200, or none where they cannot be simulated, as for a model with external
            inputs or a free posterior.
        out: folder of ``audit.json`` and the pictures; None takes ``audit`` in the run folder.
        trust: allow the run's config to import classes from anywhere.

    Returns:
        Under ``trials`` for each trial ``k_hat``, ``r_hat``, ``effective_size``, ``num_divergent``
        and for each of its ``latents`` ``mean_error`` (in reference standard deviations; beside it
        ``mean_error_exact``, what Monte Carlo errors alone come to), ``variance_ratio`` (model over
        reference), ``coverage_50`` and ``coverage_90``, each with its Monte Carlo error; under
        ``mean`` their means over trials; under ``calibration`` a p-value and the coverage of the
        true values of each quantity; under ``verdict`` a ``sentence``, ``faults``, ``num_tests``,
        ``level``, the ``alarms`` and the trials that are ``unjudged``, as their chains disagree.
    """
    for name, value, least in (
        ("trials", trials, 1),
        ("num_samples", num_samples, 4),
        ("num_warmup", num_warmup, 1),
        ("num_chains", num_chains, 2),
        ("calibration_trials", calibration_trials or 0, 0),
    ):
        if value < least:
            raise InputError(f"{name} must be at least {least}, got {value}")
    require("pyro.infer.mcmc")
    require("arviz")
    opened = open_run(run, data, trust, bin_width=bin_width)
    run, data, model, _ = opened
    if run.members:
        raise InputError("run: an ensemble has no latents of its own; audit its members")
    folder = Path(out) if out is not None else run.files.folder / "audit"
    if out is None and folder.is_symlink():
        raise InputError(f"out: {str(folder)!r} leads out of the run; remove that link")
    if folder.is_file():
        raise InputError(f"out: {str(folder)!r} is a file; give a folder")
    check_writable(folder)
    split = opened.split_of(split)
    chosen = data.trials(split)
    chosen = chosen[np.unique(np.linspace(0, len(chosen) - 1, trials).astype(np.int64))]
    calibrated: dict[str, Calibration] = {}
    if calibration_trials is None:
        calibration_trials = CALIBRATION_TRIALS if _can_simulate(model) else 0
    if calibration_trials:
        calibrated = simulation_based_calibration(model, calibration_trials, seed=run.seed)

    departures = {
        SIMULATED: [each for calibration in calibrated.values() for each in calibration.departures]
    }
    unjudged = []
    ids, rows, comparisons = data.recording.trial_ids, [], []
    assert ids is not None
    for trial in chosen:
        batch = what_is_seen(data.batch(np.array([trial])), data.spec.heldin)
        if model.keeps_trials and batch.observed.shape[1] < data.spec.num_encoded_bins:
            raise InputError(
                f"trial {ids[trial]} is shorter than the others, and its free posterior goes on; "
                "audit trials of full length"
            )
        start = perf_counter()
        reference = reference_posterior(
            model,
            batch,
            num_samples=num_samples,
            num_warmup=num_warmup,
            num_chains=num_chains,
            seed=run.seed,
        )
        comparison = compare(model, batch, reference, seed=run.seed)
        seconds = perf_counter() - start
        rows.append({"trial": str(ids[trial])} | _row(comparison, reference, seconds))
        comparisons.append(comparison)
        if reference.r_hat <= LARGEST_R_HAT:
            departures[f"trial {ids[trial]}"] = comparison.departures
        else:
            unjudged.append(str(ids[trial]))
    result = {"split": split, "trials": rows, "mean": _means(rows)}
    result["verdict"] = _judged(judge(departures), unjudged)
    if calibrated:
        result["calibration"] = {
            name: _told(calibration) for name, calibration in calibrated.items()
        }
    _draw(
        folder, [str(ids[trial]) for trial in chosen], comparisons, data.spec.bin_width, calibrated
    )
    write_text(folder / "audit.json", json.dumps(without_nan(result), indent=2) + "\n")
    return result | {"folder": str(folder)}


def shown(result: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Lay out an audit: a row for each trial and latent, means last, and what they say."""
    lines = [["trial", "latent", "error of mean (if exact)", "variance ratio", "in 50 %", "in 90 %",
              "k-hat", "R-hat"]]  # fmt: skip

    def add(trial: str, latents: Mapping[str, Mapping[str, float]], last: list[str]) -> None:
        for name, latent in latents.items():
            cells = [f"{latent['mean_error']:.3f} ({latent['mean_error_exact']:.3f})"]
            cells += [
                f"{latent[key]:.3f} +- {latent[f'{key}_error']:.3f}"
                for key in ("variance_ratio", "coverage_50", "coverage_90")
            ]
            lines.append([trial, name, *cells, *last])

    for row in result["trials"]:
        add(row["trial"], row["latents"], [f"{row['k_hat']:.2f}", f"{row['r_hat']:.3f}"])
    add("mean", result["mean"], ["", ""])
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    text = ["  ".join(map(str.rjust, line, widths)).rstrip() for line in lines]
    off = sum(not row["k_hat"] <= 0.7 for row in result["trials"])
    text.append(f"k-hat above 0.7, so that the posterior misses some of the true one: {off} of "
                f"{len(result['trials'])} trials")  # fmt: skip
    apart = sum(not row["r_hat"] <= LARGEST_R_HAT for row in result["trials"])
    if apart:
        text.append(f"R-hat above 1.05, so that the draws are too few to judge by: {apart} trials; "
                    "the verdict leaves them out; raise num_warmup and num_samples")  # fmt: skip
    text += [
        f"on {told['num_trials']} simulated trials {name} lie {told['coverage_50']:.3f} in 50 %, "
        f"{told['coverage_90']:.3f} in 90 %; ranks are uniform with p = {told['p_value']:.2g}"
        for name, told in result.get("calibration", {}).items()
    ]
    if "calibration" not in result:
        text.append("no trials were simulated: the verdict rests on the sampled ones")
    verdict = result["verdict"]
    text += [f"{alarm['place']}: {alarm['sentence']} (p = {alarm['p_value']:.1g})"
             for alarm in verdict["alarms"]]  # fmt: skip
    text.append(f"+- are Monte Carlo standard errors\n{verdict['sentence']}")
    return "\n".join([*text, f"audit: {result['folder']}"])


def _row(comparison: Comparison, reference: Reference, seconds: float) -> dict[str, Any]:
    return {
        "k_hat": comparison.k_hat,
        "r_hat": reference.r_hat,
        "effective_size": reference.effective_size,
        "num_divergent": reference.num_divergent,
        "seconds": round(seconds, 1),
        "latents": {
            name: {
                "mean_error": latent.mean_error,
                "variance_ratio": latent.variance_ratio,
                **{_of_level(level): part for level, part in latent.coverage.items()},
                "mean_error_exact": latent.mean_error_exact,
                "variance_ratio_error": latent.variance_ratio_error,
                **{
                    f"{_of_level(level)}_error": part
                    for level, part in latent.coverage_error.items()
                },
            }
            for name, latent in comparison.latents.items()
        },
    }


def _means(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Average over trials, the variance ratio geometrically."""
    means: dict[str, dict[str, float]] = {}
    for name, first in rows[0]["latents"].items():
        columns = {key: np.array([row["latents"][name][key] for row in rows]) for key in first}
        means[name] = {key: float(values.mean()) for key, values in columns.items()}
        means[name]["variance_ratio"] = float(np.exp(np.log(columns["variance_ratio"]).mean()))
        for key in [f"{key}_error" for key in first if f"{key}_error" in first]:
            means[name][key] = float(np.square(columns[key]).sum() ** 0.5 / len(rows))
    return means


def _of_level(level: float) -> str:
    return f"coverage_{level:.0%}"[:-1]


def _can_simulate(model: Model) -> bool:
    return not (model.spec.num_inputs or model.keeps_trials)


def _judged(verdict: Verdict, unjudged: list[str]) -> dict[str, Any]:
    return {
        "sentence": verdict.sentence,
        "faults": verdict.faults,
        "level": LEVEL,
        "num_tests": verdict.num_tests,
        "alarms": [
            {"place": place, **departure._asdict(), "sentence": departure.sentence}
            | {"p_value": p_value}
            for place, departure, p_value in verdict.alarms
        ],
        "unjudged": unjudged,
    }


def _told(found: Calibration) -> dict[str, Any]:
    return {
        "num_trials": len(found.ranks),
        "p_value": found.p_value,
        **{_of_level(level): part for level, part in found.coverage.items()},
        "shares": found.shares.tolist(),
    }


def _draw(
    folder: Path,
    ids: list[str],
    comparisons: list[Comparison],
    bin_width: float | None,
    calibrated: Mapping[str, Calibration],
) -> None:
    """Draw each latent of the trials under both posteriors, and the ranks."""
    from seqvae import plotting

    figures = {
        name: plotting.posterior_comparison(
            [trial.latents[name].model for trial in comparisons],
            [trial.latents[name].reference for trial in comparisons],
            titles=[f"trial {trial_id}" for trial_id in ids],
            label=name.replace("_", " ").removesuffix("s"),
            bin_width=bin_width,
        )
        for name in comparisons[0].latents
    }
    if calibrated:
        figures["calibration"] = plotting.rank_histograms(
            {name: calibration.shares for name, calibration in calibrated.items()},
            {name: calibration.standard_error for name, calibration in calibrated.items()},
            {name: calibration.p_value for name, calibration in calibrated.items()},
        )
    for name, figure in figures.items():
        with atomic_path(folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
