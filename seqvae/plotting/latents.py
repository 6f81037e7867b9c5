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
from matplotlib.lines import Line2D

from seqvae.plotting.style import (
    BLACK,
    BLUE,
    CATEGORIES,
    GREY,
    NORMAL_SIZE,
    SERIES,
    SMALL_SIZE,
    are_categories,
    category_colors,
    mark_event,
    new_figure,
    some_trials,
    tidy,
    time_axis,
    trial_title,
)


def latents_3d(
    results: xr.Dataset,
    *,
    condition: Shaped[np.ndarray, " trial"] | None = None,
    variable: str = "factors",
    max_trials: int = 60,
) -> Figure:
    """Single-trial trajectories in the three leading principal components; dots mark the starts.

    With fewer than three dimensions time is one more axis.

    Args:
        results: with ``variable`` (trial, time, dimension).
        condition: one label for each trial, to colour by; None: the coordinate ``condition`` of
            the results, if there is one.
        variable: what to show.
        max_trials: at most so many trials, evenly spread.
    """
    values = results[variable].values.astype(np.float64)
    shown = some_trials(results, None, at_most=max_trials)
    if condition is None and "condition" in results.coords:
        condition = results.condition.values
    columns, labels = _principal_components(values)
    num_components = len(labels)
    if num_components < 3:
        _, time_label = time_axis(results)
        time = np.broadcast_to(results.time.values[:, None], (*values.shape[:2], 1))
        columns, labels = np.concatenate([time, columns], -1), [time_label, *labels]

    figure = new_figure(4.6, 3.8)
    solid = len(labels) == 3
    axes: Any = figure.add_subplot(projection="3d" if solid else None)
    groups = np.zeros(len(values)) if condition is None else condition
    kind = np.unique(groups, return_inverse=True)[1]
    colors = {"all": BLUE} if condition is None else category_colors(groups)
    num_points = len(shown) * values.shape[1]  # many: finer and fainter, so that paths stay apart
    weight = float(np.clip((1500 / max(num_points, 1)) ** 0.5, 0.4, 1.0))
    for trial in shown:
        color = list(colors.values())[kind[trial]]
        path = columns[trial][np.isfinite(values[trial]).all(-1)]
        axes.plot(*path.T, color=color, linewidth=0.8 * weight, alpha=0.75 * weight)
        axes.plot(
            *path[:1].T,
            "o",
            color=color,
            markersize=4,
            markeredgecolor="white",
            markeredgewidth=0.4,
        )
    tidy(axes, x=labels[0], y=labels[1])
    if num_components < 2:
        mark_event(axes, results)
    if solid:
        axes.set_zlabel(labels[2], fontsize=NORMAL_SIZE)
        axes.tick_params(labelsize=SMALL_SIZE, pad=-3)
        for axis, pad in ((axes.xaxis, -10), (axes.yaxis, -10), (axes.zaxis, -11)):
            axis.labelpad = pad
            axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
            axis.set_ticklabels([])  # components have no unit
            axis.line.set_linewidth(0.6)
            axis._axinfo["grid"].update(color="#E4E4E4", linewidth=0.5)
        axes.view_init(elev=24, azim=-58)
        if num_components == 3:
            extent = np.nanmax(columns, axis=(0, 1)) - np.nanmin(columns, axis=(0, 1))
            axes.set_box_aspect(np.maximum(extent, 0.5 * extent.max()))
    if condition is not None and len(colors) <= len(CATEGORIES):
        handles = [
            Line2D([], [], color=color, linewidth=1.6, label=str(label))
            for label, color in colors.items()
        ]
        figure.legend(
            handles=handles,
            title="condition",
            loc="outside right center",
            frameon=False,
            fontsize=SMALL_SIZE,
            title_fontsize=SMALL_SIZE,
        )
    return figure


def inferred_inputs(
    results: xr.Dataset, *, trials: Sequence[int] | None = None, variable: str = "inferred_inputs"
) -> Figure:
    """Inferred inputs over time, a row for each dimension.

    Left: single trials, mean and posterior standard deviation. Right: mean over all trials, with
    the standard deviation of the single-trial means between trials.

    Args:
        results: with ``<variable>_mean`` and ``<variable>_sd`` (trial, time, dimension).
        trials: positions of the trials to show; None: three, evenly spread.
        variable: name of the latent.
    """
    mean = results[f"{variable}_mean"].values.astype(np.float64)
    deviation = results[f"{variable}_sd"].values.astype(np.float64)
    shown = some_trials(results, trials, at_most=3)
    edges, time_label = time_axis(results)
    middle = (edges[:-1] + edges[1:]) / 2
    num_dims = mean.shape[-1]
    present = np.isfinite(mean)
    count = np.maximum(present.sum(0), 1)
    average = np.where(present.any(0), np.where(present, mean, 0.0).sum(0) / count, np.nan)
    spread = np.sqrt(np.where(present, (mean - average) ** 2, 0.0).sum(0) / count)

    figure = new_figure(6.4, 0.8 + 1.3 * num_dims)
    grid = figure.subplots(num_dims, 2, sharex=True, sharey="row", squeeze=False)
    for dim, (left, right) in enumerate(grid):
        for color, trial in zip(SERIES, shown, strict=False):
            _band(left, middle, (mean[trial, :, dim], deviation[trial, :, dim]), color=color)
            left.lines[-1].set_label(trial_title(results, int(trial)))
        _band(right, middle, (average[:, dim], spread[:, dim]), color=BLACK)
        for axes in (left, right):
            axes.axhline(0.0, color=GREY, linewidth=0.5, zorder=0)
            mark_event(axes, results)
        bottom = dim == num_dims - 1
        name = variable.replace("_", " ").removesuffix("s")
        label = f"{name} {dim + 1}"
        tidy(
            left,
            x=time_label if bottom else "",
            y=label,
            title="" if dim else "single trials (± posterior sd)",
        )
        tidy(
            right,
            x=time_label if bottom else "",
            title="" if dim else f"mean of {len(mean)} trials (± sd between trials)",
        )
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        names,
        loc="outside upper left",
        ncols=len(names),
        frameon=False,
        fontsize=SMALL_SIZE,
        handlelength=1.2,
    )
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


def _principal_components(
    values: Float[np.ndarray, "trial time dimension"],
) -> tuple[Float[np.ndarray, "trial time component"], list[str]]:
    """At most three leading components, and labels with the share of the variance of each."""
    flat = values[np.isfinite(values).all(-1)]
    center = flat.mean(0)
    variance, directions = np.linalg.eigh(np.cov(flat.T, ddof=0).reshape(len(center), -1))
    order = np.argsort(-variance)[:3]
    directions = directions[:, order]
    directions = directions * np.sign(directions[np.abs(directions).argmax(0), range(len(order))])
    share = variance[order] / max(variance.sum(), np.finfo(float).tiny)
    labels = [f"PC {i + 1} ({part:.0%})" for i, part in enumerate(share)]
    return (values - center) @ directions, labels
