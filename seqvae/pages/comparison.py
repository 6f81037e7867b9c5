"""Runs on one recording beside each other, paired over trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch

from seqvae.pages.charts import MUTED, packed, plain
from seqvae.pages.fit import score_rows
from seqvae.pages.results import Result
from seqvae.pages.section import Chart, Section, Table, Trace
from seqvae.plotting.arrangement import activity_of
from seqvae.plotting.style import BLUE
from seqvae.scores.floors import LEAST_COUNT
from seqvae.scores.gain import PairedGain, paired_gain


class Unseen(NamedTuple):
    """What a run says of the entries that inference did not see, by trial.

    Attributes:
        gain: sum of x log m - m over the entries, in nats.
        size: spikes among them, times ln 2.
        entries: which they are, and of which trials.
    """

    gain: torch.Tensor
    size: torch.Tensor
    entries: tuple[tuple[int, ...], int, tuple[str, ...]]


def comparison(results: Sequence[Result]) -> Section:
    """Lay the scores of runs side by side, and tell their differences, paired over trials."""
    scored = {result.name: result.metrics for result in results if result.metrics is not None}
    notes = [f"{result.name} could not be scored." for result in results if result.metrics is None]
    if not scored:
        return Section("Comparison", notes=notes)
    columns = dict(scored)
    first = next(iter(scored.values()))
    columns |= {name.replace("_", " "): one for name, one in first.get("baselines", {}).items()}
    tables = [Table(("score", *columns), score_rows(columns), "scores; higher is better")]
    splits = {(metrics["split"], metrics["num_trials"]) for metrics in scored.values()}
    if len(splits) > 1:
        notes.append("The runs were scored on other trials, so their scores do not compare.")
    words, pairs = _differences(results)
    if pairs:
        header = ("first", "second", "first gains over second (bits per spike)", "")
        tables.append(Table(header, pairs, "differences on what inference did not see, paired"))
    elif len(results) > 1:
        notes.append("Runs are paired where they hold out the same neurons of the same trials of "
                     "counts; these do not.")  # fmt: skip
    charts = [chart] if (chart := _gains(scored)) is not None else []
    linear = any(result.model == "LinearDynamics" for result in results)
    if not linear:
        notes.append("No run is a LinearDynamics, the linear model that a network has to beat: fit "
                     "one (seqvae fit --model LinearDynamics) and give it beside.")  # fmt: skip
    return Section("Comparison", words, charts, tables, notes=notes)


def _differences(results: Sequence[Result]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the paired differences of all runs that know the same entries."""
    several = {result.name: unseen_of(result) for result in results}
    unseen = {name: entries for name, entries in several.items() if entries is not None}
    best = max(unseen, key=lambda name: float(unseen[name].gain.sum()), default="")
    rows: list[tuple[str, ...]] = []
    words = []
    for one, other in combinations(unseen, 2):
        gain = difference(unseen[one], unseen[other])
        if gain is None:
            continue
        apart = abs(gain.mean) >= 2 * gain.standard_error
        rows.append((one, other, f"{gain.mean:+.4f} ± {gain.standard_error:.4f}",
                     "" if apart else "cannot be told apart"))  # fmt: skip
    if rows:
        words.append(f"The highest on what inference did not see is {best}. Differences are paired "
                     "over trials; they are told apart from two standard errors on.")  # fmt: skip
    return words, rows


def unseen_of(result: Result) -> Unseen | None:
    """Return how well a run predicts what inference did not see; None where that is no counts."""
    posterior, spec = result.posterior, result.spec
    if posterior is None or "rates" not in posterior or result.thinned:
        return None
    mask = np.ones((posterior.sizes["time"], posterior.sizes["neuron"]), dtype=bool)
    mask[: spec.num_encoded_bins, list(spec.heldin)] = False
    target = activity_of(posterior)
    mean = posterior["rates"].values * (spec.bin_width or 1.0)
    counted = mask & np.isfinite(target)
    if not np.where(counted, target, 0).any():
        return None
    mean = np.maximum(np.where(counted, mean, 1.0), LEAST_COUNT).astype(np.float64)
    target = np.where(counted, target, 0.0).astype(np.float64)
    gain = np.where(counted, target * np.log(mean) - mean, 0.0).sum((1, 2))
    size = target.sum((1, 2)) * math.log(2)
    trials = tuple(str(trial) for trial in posterior.trial.values)
    entries = (tuple(spec.heldin), spec.num_encoded_bins, trials)
    return Unseen(torch.from_numpy(gain), torch.from_numpy(size), entries)


def difference(one: Unseen, other: Unseen) -> PairedGain | None:
    """Return what one run gains over another; None if they do not know the same entries."""
    if one.entries != other.entries:
        return None
    return paired_gain(one.gain - other.gain, one.size)


def _gains(scored: dict) -> Chart | None:
    """Draw what each run gains over the baselines, with its standard error."""
    traces: list[Trace] = []
    names = list(scored)
    unit = ""
    for baseline, color, symbol in (("mean_rate", MUTED, "circle-open"),
                                    ("smoothing_glm", BLUE, "circle")):  # fmt: skip
        gains = [scored[name].get("gain", {}).get(baseline) for name in names]
        present = [place for place, gain in enumerate(gains) if gain is not None]
        if not present:
            continue
        unit = gains[present[0]].get("unit", "bits per spike")
        errors = np.array([2 * gains[place]["standard_error"] for place in present])
        traces.append({
            "type": "scatter", "mode": "markers", "name": f"over {baseline.replace('_', ' ')}",
            "y": [plain(names[place]) for place in present],
            "x": packed(np.array([gains[place]["mean"] for place in present])),
            "error_x": {"type": "data", "array": packed(errors), "thickness": 1.5, "color": color},
            "marker": {"color": color, "size": 9, "symbol": symbol}, "showlegend": True,
        })  # fmt: skip
    if not traces:
        return None
    words = f"gain ({unit}), ± 2 standard errors"
    layout = {"xaxis": {"title": {"text": words}, "rangemode": "tozero"},
              "yaxis": {"type": "category", "autorange": "reversed"}}  # fmt: skip
    return Chart("what each run gains", traces, layout, 120 + 45 * len(names), is_wide=True)
