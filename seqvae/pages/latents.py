"""Latents that can be turned, and inferred inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from seqvae.pages.charts import MUTED, band, line, over_time, packed, plain
from seqvae.pages.results import Result
from seqvae.pages.section import Chart, Section, Trace
from seqvae.plotting.arrangement import (
    conditions_of,
    group_means,
    on_event_time,
    principal_components,
)
from seqvae.plotting.style import condition_colors, some_trials, time_axis

MOST_TRIALS, MOST_POINTS = 60, 30_000


def latents(result: Result) -> Section:
    """Draw factors in their leading components, in three dimensions and in the plane."""
    assert result.posterior is not None
    posterior = on_event_time(result.posterior)
    values = posterior["factors"].values.astype(np.float64)
    if not np.isfinite(values).all(-1).any() or posterior.sizes["time"] < 2:
        return Section("Latents", notes=["There is no path of latents over time to draw."])
    conditions = conditions_of(posterior)
    colors = condition_colors(conditions)
    paths, labels = principal_components(values)
    shown = some_trials(posterior, None, at_most=MOST_TRIALS)
    step = max(1, -(-len(shown) * paths.shape[1] // MOST_POINTS))
    time = posterior.time.values.astype(np.float64)
    _, time_label = time_axis(posterior)
    if len(labels) < 3:
        over = np.broadcast_to(time[:, None], (*paths.shape[:2], 1))
        paths, labels = np.concatenate([over, paths], -1), [time_label, *labels]
    means = group_means(paths, conditions).mean if conditions.is_known else paths[:0]
    solid, plane = [], []
    for trial in shown:
        group = conditions.group[trial]
        color = MUTED if group < 0 else colors[group]
        word = f"trial {posterior.trial.values[trial]}"
        if conditions.is_known and group >= 0:
            word += f", condition {conditions.names[group]}"
        solid.append(_path(paths[trial, ::step], color, word, width=1.5, opacity=0.5))
        plane.append(_flat(paths[trial, ::step], color, word, width=1.0, opacity=0.5))
    for group, mean in enumerate(means):
        word = f"mean of condition {conditions.names[group]}"
        solid.append(_path(mean[::step], colors[group], word, width=6.0, opacity=1.0))
        plane.append(_flat(mean[::step], colors[group], word, width=3.0, opacity=1.0))
    is_space = labels[0].startswith("PC")
    axes: dict[str, Any] = {"xaxis": {"title": {"text": labels[0]}},
                            "yaxis": {"title": {"text": labels[1]}}}  # fmt: skip
    if is_space:
        axes["yaxis"] |= {"scaleanchor": "x", "scaleratio": 1}
    charts = [Chart("the two leading components" if is_space else "over time", plane, axes, 420)]
    if len(labels) == 3:
        named = zip(("xaxis", "yaxis", "zaxis"), labels, strict=True)
        scene: dict[str, Any] = {place: {"title": {"text": plain(word)}} for place, word in named}
        scene["aspectmode"] = "data" if is_space else "cube"
        scene["camera"] = {"eye": {"x": 1.3, "y": -1.5, "z": 0.9}}
        caption = "three components; drag to turn, pinch or scroll to come closer"
        charts.insert(0, Chart(caption, solid, {"scene": scene}, 420))
    words = ["Each thin line is a trial, in the principal components of the factors" +
             (", with equal scales; thick lines are means of conditions."
              if conditions.is_known else ".")]  # fmt: skip
    notes = [] if conditions.is_known else ["The recording names no conditions to colour by."]
    if len(shown) < posterior.sizes["trial"]:
        notes.append(f"Of {posterior.sizes['trial']} trials {len(shown)} are drawn.")
    if step > 1:
        notes.append(f"Of the bins every {step}th is drawn.")
    legend = list(zip(conditions.names, colors, strict=True)) if conditions.is_known else []
    return Section("Latents", words, charts, legend=legend, notes=notes)


def _path(
    points: Float[np.ndarray, "time 3"] | Float[np.ndarray, "time 2"], color: str, name: str, *,
    width: float, opacity: float,
) -> Trace:  # fmt: skip
    x, y, z = (packed(column) for column in points.T[:3]) if points.shape[1] > 2 else (*map(
        packed, points.T), packed(np.zeros(len(points))))  # fmt: skip
    return {
        "type": "scatter3d", "mode": "lines", "x": x, "y": y, "z": z, "opacity": opacity,
        "line": {"color": color, "width": width}, "name": plain(name), "showlegend": False,
        "hoverinfo": "name",
    }  # fmt: skip


def _flat(
    points: Float[np.ndarray, "time axis"], color: str, name: str, *, width: float, opacity: float
) -> Trace:
    trace = line(points[:, 0], points[:, 1], color=color, name=name, width=width)
    return {**trace, "opacity": opacity, "hoverinfo": "name"}


def inferred_inputs(result: Result) -> Section:
    """Draw inferred inputs, averaged over the trials of each condition."""
    title = "Inferred inputs"
    assert result.posterior is not None
    posterior = on_event_time(result.posterior)
    if "inferred_inputs_mean" not in posterior:
        return Section(title, notes=[f"{result.model} infers no inputs."])
    conditions = conditions_of(posterior)
    colors = condition_colors(conditions)
    mean, error = group_means(posterior["inferred_inputs_mean"].values, conditions)
    edges, _ = time_axis(posterior)
    middle = (edges[:-1] + edges[1:]) / 2
    charts = []
    for dim in range(mean.shape[-1]):
        traces: list[Trace] = []
        for group, color in enumerate(colors):
            center, half = mean[group, :, dim], error[group, :, dim]
            traces += band(middle, center - half, center + half, color=color, alpha=0.1)
            name = conditions.names[group]
            traces.append(line(middle, center, color=color, name=name))
        layout = over_time([f"inferred input {dim + 1}"], posterior)
        charts.append(Chart(f"inferred input {dim + 1}", traces, layout))
    which = "the trials of each condition" if conditions.is_known else "all trials"
    words = [f"Means over {which}, with their standard errors."]
    legend = list(zip(conditions.names, colors, strict=True)) if conditions.is_known else []
    return Section(title, words, charts, legend=legend)
