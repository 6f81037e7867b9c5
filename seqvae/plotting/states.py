"""Discrete states over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from seqvae.plotting.arrangement import on_event_time
from seqvae.plotting.style import (
    GREY,
    NORMAL_SIZE,
    SMALL_SIZE,
    category_colors,
    head,
    mark_event,
    new_figure,
    some_trials,
    tidy,
    time_axis,
    trial_title,
)


def discrete_states(
    posterior: xr.Dataset,
    *,
    trials: Sequence[int] | None = None,
    variable: str = "states",
    path: str = "factors",
) -> Figure:
    """The most likely state of each bin, as coloured strips, one row for each trial.

    Below, a few trials with their path: the strip shows each state with an opacity that is its
    probability.

    Args:
        posterior: with ``<variable>`` (trial, time), ``<variable>_mean`` (trial, time, state) and
            ``path`` (trial, time, dimension).
        trials: positions of the trials to show with their path; None: two, evenly spread.
        variable: name of the states.
        path: what to show beneath them.
    """
    posterior = on_event_time(posterior)
    likeliest = posterior[variable].values
    probabilities = posterior[f"{variable}_mean"].values.astype(np.float64)
    paths = posterior[path].values.astype(np.float64)
    num_states = probabilities.shape[-1]
    colors = list(category_colors(np.arange(num_states)).values())
    shown = some_trials(posterior, trials, at_most=2)
    edges, time_label = time_axis(posterior)
    middle = (edges[:-1] + edges[1:]) / 2

    height = float(np.clip(0.06 * len(likeliest), 0.8, 3.0))
    figure = new_figure(5.6, 0.9 + height + 1.15 * len(shown))
    ratios = [height, *[1.0] * len(shown)]
    grid = figure.subplots(1 + len(shown), 1, sharex=True, squeeze=False, height_ratios=ratios)[
        :, 0
    ]
    top = grid[0]
    top.pcolormesh(
        edges,
        np.arange(len(likeliest) + 1),
        np.ma.masked_invalid(likeliest),
        cmap=ListedColormap(colors),
        norm=BoundaryNorm(np.arange(num_states + 1) - 0.5, num_states),
        rasterized=True,
    )
    top.invert_yaxis()
    mark_event(top, posterior)
    tidy(top, y="trial", title="most likely state")
    for axes, trial in zip(grid[1:], shown, strict=True):
        lines = paths[trial]
        bottom, ceiling = np.nanmin(lines), np.nanmax(lines)
        margin = 0.08 * max(ceiling - bottom, 1e-9)
        for state, color in enumerate(colors):
            share = np.nan_to_num(probabilities[trial, :, state])
            tint = np.tile(to_rgba(color), (len(share), 1))
            tint[:, 3] = 0.45 * share
            axes.imshow(
                tint[None],
                extent=(edges[0], edges[-1], bottom - margin, ceiling + margin),
                aspect="auto",
                interpolation="nearest",
            )
        shades = np.linspace(0.0, 0.55, lines.shape[1])
        for dimension, shade in zip(lines.T, shades, strict=True):
            axes.plot(middle, dimension, color=str(shade), linewidth=0.9)
        axes.axhline(0.0, color=GREY, linewidth=0.4)
        mark_event(axes, posterior, int(trial))
        axes.set_ylim(bottom - margin, ceiling + margin)
        tidy(axes, y=path, title=trial_title(posterior, int(trial)))
    grid[-1].set_xlabel(time_label, fontsize=NORMAL_SIZE)
    figure.legend(
        handles=[Patch(color=color, label=str(k)) for k, color in enumerate(colors)],
        title="state",
        loc="outside right upper",
        frameon=False,
        fontsize=SMALL_SIZE,
        title_fontsize=SMALL_SIZE,
    )
    head(figure, posterior)
    return figure
