"""Latent trajectories, inferred inputs and two-dimensional latent spaces."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure

from seqvae.plotting.arrangement import (
    conditions_of,
    group_means,
    mean_over_trials,
    on_event_time,
    principal_components,
)
from seqvae.plotting.style import (
    BLACK,
    BLUE,
    GREY,
    NORMAL_SIZE,
    SERIES,
    SMALL_SIZE,
    are_categories,
    category_colors,
    condition_colors,
    condition_legend,
    head,
    mark_event,
    new_figure,
    some_trials,
    tidy,
    time_axis,
    trial_title,
)


def latents(posterior: xr.Dataset, *, variable: str = "factors", max_trials: int = 60) -> Figure:
    """Single-trial trajectories in their leading principal components; dots mark the starts.

    Left in three dimensions, right the two leading ones, each with equal scales along its axes;
    thick lines are the means of conditions. Of two dimensions there is the plane and each over
    time, of one its course over time.

    Args:
        posterior: with ``variable`` (trial, time, dimension), coloured by its ``condition``.
        variable: what to show.
        max_trials: at most so many trials, evenly spread.
    """
    posterior = on_event_time(posterior)
    values = posterior[variable].values.astype(np.float64)
    shown = some_trials(posterior, None, at_most=max_trials)
    conditions = conditions_of(posterior)
    paths, labels = principal_components(values)
    colors = condition_colors(conditions)
    _, time_label = time_axis(posterior)
    time = posterior.time.values.astype(np.float64)
    num_points = len(shown) * values.shape[1]  # many: finer and fainter, so that paths stay apart
    weight = float(np.clip((1500 / max(num_points, 1)) ** 0.5, 0.4, 1.0))
    means = group_means(paths, conditions).mean if conditions.is_known else np.empty((0, 0, 0))

    def draw(axes: Any, columns: Float[np.ndarray, "item time axis"], style: str) -> None:
        items = shown if style == "trial" else range(len(columns))
        for item in items:
            group = conditions.group[item] if style == "trial" else item
            color = GREY if group < 0 else colors[group]
            path = columns[item][np.isfinite(columns[item]).all(-1)]
            if style == "mean":
                axes.plot(*path.T, color=color, linewidth=1.8, label="mean")
                continue
            axes.plot(*path.T, color=color, linewidth=0.8 * weight, alpha=0.75 * weight)
            axes.plot(
                *path[:1].T,
                "o",
                color=color,
                markersize=4,
                markeredgecolor="white",
                markeredgewidth=0.4,
            )

    def over_time(columns: Float[np.ndarray, "item time"]) -> Float[np.ndarray, "item time 2"]:
        return np.stack([np.broadcast_to(time, columns.shape), columns], -1)

    num_components = len(labels)
    figure = new_figure(3.9 if num_components == 1 else 7.4, 3.4)
    grid = [figure.add_subplot(1, min(num_components, 2), i + 1,
                               projection="3d" if num_components == 3 and i == 0 else None)
            for i in range(min(num_components, 2))]  # fmt: skip
    if num_components == 3:
        for columns, style in ((paths, "trial"), (means, "mean")):
            draw(grid[0], columns, style)
            draw(grid[1], columns[..., :2], style)
        _solid(grid[0], labels)
    elif num_components == 2:
        for columns, style in ((paths, "trial"), (means, "mean")):
            draw(grid[0], columns, style)
            for place in range(columns.shape[-1]):
                draw(grid[1], over_time(columns[..., place]), style)
        tidy(grid[0], x=labels[0], y=labels[1])
        grid[0].set_aspect("equal", adjustable="datalim")
        mark_event(grid[1], posterior)
        tidy(grid[1], x=time_label, y="both components")
    else:
        draw(grid[0], over_time(paths[..., 0]), "trial")
        draw(grid[0], over_time(means[..., 0]) if conditions.is_known else means, "mean")
        mark_event(grid[0], posterior)
        tidy(grid[0], x=time_label, y=labels[0])
    if num_components == 3:
        tidy(grid[1], x=labels[0], y=labels[1])
        grid[1].set_aspect("equal", adjustable="datalim")
    if conditions.is_known:
        condition_legend(figure, conditions)
    head(figure, posterior)
    return figure


def _solid(axes: Any, labels: Sequence[str]) -> None:
    """Name three axes whose scales are equal, without numbers: components have no unit."""
    tidy(axes, x=labels[0], y=labels[1])
    axes.set_zlabel(labels[2], fontsize=NORMAL_SIZE)
    axes.tick_params(labelsize=SMALL_SIZE, pad=-3)
    for axis, pad in ((axes.xaxis, -10), (axes.yaxis, -10), (axes.zaxis, -11)):
        axis.labelpad = pad
        axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
        axis.set_ticklabels([])
        axis.line.set_linewidth(0.6)
        axis._axinfo["grid"].update(color="#E4E4E4", linewidth=0.5)
    axes.view_init(elev=24, azim=-58)
    axes.set_aspect("equal")


def inferred_inputs(
    posterior: xr.Dataset, *, trials: Sequence[int] | None = None, variable: str = "inferred_inputs"
) -> Figure:
    """Inferred inputs over time, a row for each dimension.

    Left: single trials, mean and posterior standard deviation. Right: the mean of each condition,
    with its standard error over trials; without conditions the mean over all trials, with the
    standard deviation of the single-trial means between trials.

    Args:
        posterior: with ``<variable>_mean`` and ``<variable>_sd`` (trial, time, dimension).
        trials: positions of the trials to show; None: three, evenly spread.
        variable: name of the latent.
    """
    posterior = on_event_time(posterior)
    mean = posterior[f"{variable}_mean"].values.astype(np.float64)
    deviation = posterior[f"{variable}_sd"].values.astype(np.float64)
    shown = some_trials(posterior, trials, at_most=3)
    edges, time_label = time_axis(posterior)
    middle = (edges[:-1] + edges[1:]) / 2
    num_dims = mean.shape[-1]
    conditions = conditions_of(posterior)
    average, spread = group_means(mean, conditions)
    colors, between = condition_colors(conditions), "by condition (± standard error)"
    if not conditions.is_known:
        squares = mean_over_trials((mean - average[0]) ** 2)
        spread, colors = np.sqrt(squares)[None], [BLACK]
        between = f"mean of {len(mean)} trials (± sd between trials)"

    figure = new_figure(6.4, 1.0 + 1.3 * num_dims)
    grid = figure.subplots(num_dims, 2, sharex=True, sharey="row", squeeze=False)
    for dim, (left, right) in enumerate(grid):
        for color, trial in zip(SERIES, shown, strict=False):
            _band(left, middle, (mean[trial, :, dim], deviation[trial, :, dim]), color=color)
            left.lines[-1].set_label(trial_title(posterior, int(trial)))
        for group, color in enumerate(colors):
            _band(right, middle, (average[group, :, dim], spread[group, :, dim]), color=color)
        for axes in (left, right):
            axes.axhline(0.0, color=GREY, linewidth=0.5, zorder=0)
            mark_event(axes, posterior)
        bottom = dim == num_dims - 1
        name = variable.replace("_", " ").removesuffix("s")
        tidy(
            left,
            x=time_label if bottom else "",
            y=f"{name} {dim + 1}",
            title="" if dim else "single trials (± posterior sd)",
        )
        tidy(right, x=time_label if bottom else "", title="" if dim else between)
    handles, names = grid[0, 0].get_legend_handles_labels()
    places = [place for place, name in enumerate(names) if name != "event"]
    figure.legend(
        [handles[place] for place in places],
        [names[place] for place in places],
        loc="outside lower left",
        ncols=len(places),
        frameon=False,
        fontsize=SMALL_SIZE,
        handlelength=1.2,
    )
    if conditions.is_known:
        condition_legend(figure, conditions)
    head(figure, posterior)
    return figure


def latent_scatter(
    latents: Float[np.ndarray, "point 2"],
    *,
    labels: Shaped[np.ndarray, " point"] | None = None,
) -> Figure:
    """Posterior means in a two-dimensional latent space, coloured by label.

    Classes are named at their medians; a quantity gets a colour bar.
    """
    figure = new_figure(3.8, 3.4)
    axes = figure.add_subplot()
    scatter = partial(axes.scatter, s=5, linewidths=0, alpha=0.7)
    if labels is None:
        scatter(*latents.T, color=BLUE)
    elif are_categories(labels):
        for label, color in category_colors(labels).items():
            points = latents[labels == label]
            scatter(*points.T, color=[color], label=str(label))
            axes.annotate(
                str(label),
                np.median(points, axis=0),
                ha="center",
                va="center",
                fontsize=NORMAL_SIZE,
                fontweight="bold",
                color=color,
                bbox={"boxstyle": "round,pad=0.2", "fc": "white", "ec": color, "lw": 0.8},
            )
    else:
        points = scatter(*latents.T, c=labels, cmap="viridis")
        opaque = ScalarMappable(points.norm, points.cmap)
        bar = figure.colorbar(opaque, ax=axes, aspect=30)
        bar.ax.tick_params(labelsize=SMALL_SIZE)
        bar.outline.set_visible(False)
    tidy(axes, x="latent 1", y="latent 2")
    axes.set_aspect("equal", adjustable="datalim")
    return figure


def _band(
    axes: Axes,
    middle: Float[np.ndarray, " time"],
    moments: tuple[Float[np.ndarray, " time"], Float[np.ndarray, " time"]],
    *,
    color: str,
) -> None:
    """A line with a band of one standard deviation."""
    mean, deviation = moments
    axes.fill_between(
        middle, mean - deviation, mean + deviation, color=color, alpha=0.2, linewidth=0
    )
    axes.plot(middle, mean, color=color, linewidth=1.1)
