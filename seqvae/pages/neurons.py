"""The score of each neuron."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqvae.pages.charts import MUTED, line, plain
from seqvae.pages.results import Result
from seqvae.pages.section import Chart, Section, Trace
from seqvae.plotting.style import BLUE, VERMILLION

MOST_NEURONS = 2000
_BASELINE = "smoothing_glm"
_GROUPS = (("heldin", BLUE, "seen by inference"), ("heldout", VERMILLION, "held out"))


def neuron_scores(result: Result) -> Section:
    """Draw the score of each neuron, sorted, and against that of smoothing + GLM."""
    title = "Neuron by neuron"
    neurons = list((result.metrics or {}).get("per_neuron", ()))
    if not neurons:
        return Section(title, notes=["There are no scores of neurons."])
    counts = "spikes" in neurons[0]
    score, unit = (("bits_per_spike", "bits per spike") if counts
                   else ("log_likelihood", "nats per entry"))  # fmt: skip
    notes = []
    if len(neurons) > MOST_NEURONS:
        notes.append(f"Of {len(neurons)} neurons {MOST_NEURONS} are drawn, evenly spread.")
        chosen = np.linspace(0, len(neurons) - 1, MOST_NEURONS).astype(np.int64)
        neurons = [neurons[place] for place in chosen]
    scored = [neuron for neuron in neurons if np.isfinite(neuron[score])]
    if len(scored) < len(neurons):
        notes.append(f"{len(neurons) - len(scored)} neurons without a spike in these trials have "
                     "no score.")  # fmt: skip
    if not scored:
        return Section(title, notes=notes)
    charts = [_sorted(scored, score, unit)]
    unseen = [neuron for neuron in scored if neuron["group"] == "heldout"] or scored
    if all(_BASELINE in neuron["baselines"] for neuron in unseen):
        charts.append(_against(unseen, score, unit))
    better = sum(neuron[score] > 0 for neuron in scored)
    words = [f"Of {len(scored)} neurons {better} are predicted better than by their mean rate."]
    if len(unseen) < len(scored):
        words.append("Judge by those held out: a model that copies its input scores high on what "
                     "it sees.")  # fmt: skip
    if not counts:
        words = ["Scores are log-likelihoods, which compare for one neuron only."]
    return Section(title, words, charts, notes=notes)


def _sorted(neurons: list[dict[str, Any]], score: str, unit: str) -> Chart:
    traces: list[Trace] = []
    for group, color, word in _GROUPS:
        members = sorted((n for n in neurons if n["group"] == group), key=lambda n: -n[score])
        if members:
            values = np.array([neuron[score] for neuron in members])
            trace = line(np.arange(1, len(values) + 1), values, color=color, mode="markers",
                         name=word, in_legend=True)  # fmt: skip
            traces.append(_named(trace, members))
    layout = {"xaxis": {"title": {"text": "neurons, best first"}},
              "yaxis": {"title": {"text": unit}, "range": _range(neurons, score)}}  # fmt: skip
    return Chart("score of each neuron", traces, layout, height=340)


def _against(neurons: list[dict[str, Any]], score: str, unit: str) -> Chart:
    traces: list[Trace] = []
    for group, color, word in _GROUPS:
        members = [neuron for neuron in neurons if neuron["group"] == group]
        if members:
            x = np.array([neuron["baselines"][_BASELINE] for neuron in members])
            y = np.array([neuron[score] for neuron in members])
            trace = line(x, y, color=color, mode="markers", name=word, in_legend=True)
            traces.append(_named(trace, members))
    ends = np.array(_range(neurons, score))
    traces.append(line(ends, ends, color=MUTED, dash="dash"))
    layout = {"xaxis": {"title": {"text": f"smoothing + GLM ({unit})"}},
              "yaxis": {"title": {"text": f"model ({unit})"}, "range": ends.tolist()}}  # fmt: skip
    heldout = "held-out neurons, " if neurons[0]["group"] == "heldout" else ""
    caption = f"{heldout}model against smoothing + GLM; above the line the model is better"
    return Chart(caption, traces, layout, height=340)


def _named(trace: Trace, members: list[dict[str, Any]]) -> Trace:
    """Let the pointer read the id of each neuron."""
    ids = [plain(f"neuron {neuron['id']}") for neuron in members]
    return {**trace, "text": ids, "hoverinfo": "text+y", "opacity": 0.75}


def _range(neurons: list[dict[str, Any]], score: str) -> list[float]:
    """Leave out the two lowest per cent, neurons of a few spikes."""
    values = np.array([neuron[score] for neuron in neurons])
    low, high = np.percentile(values, 2), values.max()
    margin = 0.06 * max(high - low, 1e-9)
    return [float(low - margin), float(high + margin)]
