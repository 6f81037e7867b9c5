"""Means by condition, and behaviour decoded against true."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from seqvae.pages.charts import INK, MUTED, band, line, over_time
from seqvae.pages.results import Result
from seqvae.pages.section import Chart, Section, Trace
from seqvae.plotting.arrangement import (
    conditions_of,
    group_means,
    heldin_of,
    mean_over_trials,
    most_different,
    on_event_time,
)
from seqvae.plotting.conditions import SMOOTHING_SD, recorded_means, smoothing_words
from seqvae.plotting.style import (
    BLUE,
    condition_colors,
    expected_activity,
    some_trials,
    time_axis,
)

MOST_NEURONS, MOST_TRIALS, MOST_POINTS, MOST_BINS = 6, 4, 2000, 1500


def psth(result: Result) -> Section:
    """Draw the mean activity of each condition, recorded above inferred."""
    title = "Means by condition: recorded against inferred"
    assert result.posterior is not None
    posterior = on_event_time(result.posterior)
    conditions = conditions_of(posterior)
    if not conditions.is_known:
        return Section(title, notes=["The recording names no conditions to average over."])
    name, unit = expected_activity(posterior)
    colors, heldin = condition_colors(conditions), heldin_of(posterior)
    inferred = group_means(posterior[name].values, conditions).mean
    recorded, error = recorded_means(posterior, smoothing_sd=SMOOTHING_SD)
    edges, _ = time_axis(posterior)
    middle = (edges[:-1] + edges[1:]) / 2
    charts = []
    for neuron in most_different(inferred, MOST_NEURONS):
        traces: list[Trace] = []
        for group, color in enumerate(colors):
            center, half = recorded[group, :, neuron], error[group, :, neuron]
            traces += band(middle, center - half, center + half, color=color, alpha=0.1)
        for axis, means in ((1, recorded), (2, inferred)):
            traces += [line(middle, means[group, :, neuron], color=color, axis=axis,
                            name=conditions.names[group])
                       for group, color in enumerate(colors)]  # fmt: skip
        layout = over_time(["recorded", "inferred"], posterior)
        layout["yaxis2"]["matches"] = "y"
        word = "" if heldin[neuron] else ", held out"
        caption = f"neuron {posterior.neuron.values[neuron]}{word}: {unit}"
        charts.append(Chart(caption, traces, layout, height=380))
    words = [
        f"Recorded means are {smoothing_words(posterior, SMOOTHING_SD)}, with the standard error "
        "over trials before smoothing; shown are the neurons whose inferred means vary most.",
        *_agreement(recorded, inferred, heldin),
    ]
    legend = list(zip(conditions.names, colors, strict=True))
    return Section(title, words, charts, legend=legend)


def _agreement(
    recorded: Float[np.ndarray, "condition time neuron"],
    inferred: Float[np.ndarray, "condition time neuron"],
    heldin: np.ndarray,
) -> list[str]:
    """Say which share of the variance of recorded means the inferred ones explain."""
    shares = []
    for chosen, word in ((heldin, "held-in neurons"), (~heldin, "held-out neurons")):
        truth, guess = recorded[..., chosen], inferred[..., chosen]
        present = np.isfinite(truth) & np.isfinite(guess)
        if not present.any():
            continue
        center = mean_over_trials(truth.reshape(-1, truth.shape[-1]))
        total = np.where(present, (truth - center) ** 2, 0.0).sum()
        if total > 0:
            left = np.where(present, (truth - guess) ** 2, 0.0).sum()
            shares.append(f"{1 - left / total:.2f} for {word}")
    if not shares:
        return []
    words = " and ".join(shares)
    return [
        f"The share of the variance of recorded means that inferred ones explain (R2) is {words}; "
        "the noise of means of few trials no model can explain."
    ]


def behavior(result: Result) -> Section:
    """Draw behaviour as read from the factors beside the true one."""
    title = "Behaviour decoded from factors"
    assert result.posterior is not None
    if "behavior" not in result.posterior:
        return Section(title, notes=["The recording holds no behaviour."])
    if result.decoded is None:
        return Section(title, notes=["There are no other trials at hand to learn a decoder on."])
    dims = ("trial", "time", "behavior_dim")
    posterior = on_event_time(result.posterior.assign(decoded=(dims, result.decoded)))
    truth, decoded = posterior["behavior"].values, posterior["decoded"].values
    shown = some_trials(posterior, None, at_most=MOST_TRIALS)
    edges, _ = time_axis(posterior)
    middle = ((edges[:-1] + edges[1:]) / 2)[:MOST_BINS]
    charts = []
    for dim in range(truth.shape[-1]):
        traces: list[Trace] = []
        for place, trial in enumerate(shown):
            for values, color, word in ((truth, INK, "true"), (decoded, BLUE, "decoded")):
                traces.append(line(middle, values[trial, :MOST_BINS, dim], color=color, name=word,
                                   axis=place + 1, dash="dot" if word == "true" else "solid",
                                   in_legend=place == 0))  # fmt: skip
        titles = [f"trial {posterior.trial.values[trial]}" for trial in shown]
        layout = over_time(titles, posterior, gap=0.08)
        charts.append(Chart(f"dimension {dim + 1}", traces, layout, 90 * len(shown) + 110))
    for dim in range(truth.shape[-1]):
        charts.append(_against(truth[..., dim], decoded[..., dim], dim))
    r2 = (result.metrics or {}).get("behavior_r2")
    words = ["Ridge regression, learned on training trials, reads behaviour from the factors of "
             "trials that it never saw."]  # fmt: skip
    if r2:
        words[0] += f" R2 by dimension: {', '.join(f'{value:.3f}' for value in r2)}."
    return Section(title, words, charts)


def _against(
    truth: Float[np.ndarray, "trial time"], decoded: Float[np.ndarray, "trial time"], dim: int
) -> Chart:
    """Decoded over true values, thinned."""
    present = np.isfinite(truth) & np.isfinite(decoded)
    x, y = truth[present], decoded[present]
    chosen = np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).astype(np.int64)
    points = line(x[chosen], y[chosen], color=BLUE, mode="markers", name="bins of trials")
    points["marker"] = {"color": BLUE, "size": 4, "opacity": 0.4}
    ends = np.array([x.min(), x.max()]) if len(x) else np.zeros(2)
    layout = {"xaxis": {"title": {"text": "true"}}, "yaxis": {"title": {"text": "decoded"}}}
    caption = f"dimension {dim + 1}: decoded against true"
    return Chart(caption, [points, line(ends, ends, color=MUTED, dash="dash")], layout)
