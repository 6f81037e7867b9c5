"""Means over the trials of each condition: recorded beside inferred."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from matplotlib.figure import Figure

from seqvae.plotting.arrangement import (
    activity_of,
    conditions_of,
    group_means,
    heldin_of,
    most_different,
    on_event_time,
    smoothed,
)
from seqvae.plotting.style import (
    BLACK,
    SMALL_SIZE,
    VERMILLION,
    condition_colors,
    condition_legend,
    expected_activity,
    head,
    mark_event,
    new_figure,
    tidy,
    time_axis,
)

SMOOTHING_SD = 0.03
"""Seconds by which recorded means are smoothed, that of few trials being rough."""


def psth(
    posterior: xr.Dataset,
    *,
    neurons: Sequence[int] | None = None,
    smoothing_sd: float = SMOOTHING_SD,
) -> Figure:
    """Peri-stimulus time histograms: mean activity of each condition, recorded and inferred.

    A row is a neuron; left the recorded mean with its standard error over trials, smoothed, right
    the mean of the inferred rates. Without conditions all trials are one.

    Args:
        posterior: ``activity``, and ``rates`` (Hz) or ``mean``.
        neurons: positions of the neurons; None: the four whose means vary most.
        smoothing_sd: seconds of the Gaussian that recorded means are smoothed by; 0: not at all.
    """
    posterior = on_event_time(posterior)
    name, label = expected_activity(posterior)
    conditions = conditions_of(posterior)
    colors = condition_colors(conditions)
    inferred = group_means(posterior[name].values, conditions).mean
    recorded, error = recorded_means(posterior, smoothing_sd=smoothing_sd)
    chosen = most_different(inferred, 4).tolist() if neurons is None else list(neurons)
    heldin = heldin_of(posterior)
    edges, time_label = time_axis(posterior)
    middle = (edges[:-1] + edges[1:]) / 2

    figure = new_figure(6.4, 0.9 + 1.25 * len(chosen))
    grid = figure.subplots(len(chosen), 2, sharex=True, sharey="row", squeeze=False)
    for neuron, row in zip(chosen, grid, strict=True):
        for axes, means in zip(row, (recorded, inferred), strict=True):
            for group, color in enumerate(colors):
                axes.plot(middle, means[group, :, neuron], color=color, linewidth=1.1)
            mark_event(axes, posterior)
        for group, color in enumerate(colors):
            middle_line, half = recorded[group, :, neuron], error[group, :, neuron]
            row[0].fill_between(
                middle,
                middle_line - half,
                middle_line + half,
                color=color,
                alpha=0.15 if len(colors) < 5 else 0.06,
                linewidth=0,
            )
        is_last = neuron == chosen[-1]
        sides = ("recorded, " + smoothing_words(posterior, smoothing_sd), "inferred")
        for axes, title in zip(row, sides, strict=True):
            tidy(axes, x=time_label if is_last else "", title=title if neuron == chosen[0] else "")
        row[0].set_ylabel(
            f"neuron {posterior.neuron.values[neuron]}"
            + ("" if heldin[neuron] else "\n(held out)"),
            fontsize=SMALL_SIZE,
            color=BLACK if heldin[neuron] else VERMILLION,
        )
    figure.supylabel(label, fontsize=SMALL_SIZE + 1)
    if conditions.is_known:
        condition_legend(figure, conditions)
    head(figure, posterior)
    return figure


def recorded_means(
    posterior: xr.Dataset, *, smoothing_sd: float
) -> tuple[Float[np.ndarray, "condition time neuron"], Float[np.ndarray, "condition time neuron"]]:
    """Recorded means of conditions in the unit of the inferred ones, and their standard errors."""
    bin_width = posterior.attrs.get("bin_width")
    scale = 1.0 / bin_width if "rates" in posterior and bin_width else 1.0
    mean, error = group_means(scale * activity_of(posterior), conditions_of(posterior))
    sd_bins = smoothing_sd / bin_width if bin_width else 0.0
    return (smoothed(mean, sd_bins), smoothed(error, sd_bins)) if sd_bins else (mean, error)


def smoothing_words(posterior: xr.Dataset, smoothing_sd: float) -> str:
    """Say how recorded means were smoothed."""
    is_timed = posterior.attrs.get("bin_width") is not None and smoothing_sd > 0
    return f"smoothed by {1000 * smoothing_sd:g} ms" if is_timed else "as they are"
