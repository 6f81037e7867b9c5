"""Recorded activity beside what the model infers from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from seqvae.plotting.arrangement import (
    activity_of,
    by_peak_time,
    heldin_of,
    most_different,
    on_event_time,
)
from seqvae.plotting.style import (
    BLACK,
    BLUE,
    GREY,
    NORMAL_SIZE,
    SMALL_SIZE,
    VERMILLION,
    expected_activity,
    head,
    mark_event,
    new_figure,
    some_trials,
    tidy,
    time_axis,
    trial_title,
)


def rasters_and_rates(posterior: xr.Dataset, *, trials: Sequence[int] | None = None) -> Figure:
    """A few trials, one in each column: counts above inferred rates (above true rates).

    Neurons are sorted by the time at which their mean inferred rate peaks, held-out neurons (where
    the posterior has a coordinate ``heldin``) apart, on top. Inferred and true rates share one
    colour scale, in which equal steps are equal steps of the square root.

    Args:
        posterior: ``activity``, inferred ``rates`` (Hz) or ``mean``, and ``true_rates`` in the same
            unit if they are known.
        trials: positions of the trials to show; None: three, evenly spread.
    """
    posterior = on_event_time(posterior)
    name, label = expected_activity(posterior)
    shown = some_trials(posterior, trials, at_most=3)
    inferred = posterior[name].values
    heldin = heldin_of(posterior)
    order = by_peak_time(posterior, name)
    counts = name == "rates"

    rows = {"recorded": activity_of(posterior), "inferred": inferred}
    if "true_rates" in posterior:
        rows["true"] = posterior["true_rates"].values
    height = min(2.0, 0.9 + 0.012 * len(order))
    figure = new_figure(1.2 + 2.0 * len(shown), 0.8 + height * len(rows))
    grid = figure.subplots(len(rows), len(shown), sharex=True, sharey=True, squeeze=False)
    edges, time_label = time_axis(posterior)
    for row, (source, values) in enumerate(rows.items()):
        is_counts = counts and source == "recorded"
        limits = _limits(values if source == "recorded" else inferred, shown, counts=counts)
        for column, trial in enumerate(shown):
            axes = grid[row, column]
            image = _heat_map(axes, values[trial][:, order], edges, limits=limits, counts=is_counts)
            mark_event(axes, posterior, int(trial))
            tidy(
                axes,
                x=time_label if row == len(rows) - 1 else "",
                y=f"{source}\nneuron" if column == 0 else "",
                title=trial_title(posterior, int(trial)) if row == 0 else "",
            )
            axes.set_yticks([1, len(order)])
        _mark_heldout(grid[row, -1], num_heldin=int(heldin.sum()), num_neurons=len(order))
        bar = figure.colorbar(image, ax=list(grid[row]), pad=0.02, aspect=14, extend="max")
        if is_counts:
            bar.locator = MaxNLocator(integer=True, nbins=4)
        bar.set_label("spikes per bin" if is_counts else label, fontsize=SMALL_SIZE)
        bar.ax.tick_params(labelsize=SMALL_SIZE, length=2, width=0.5)
        bar.outline.set_visible(False)
    head(figure, posterior)
    return figure


def rate_traces(
    posterior: xr.Dataset,
    *,
    trials: Sequence[int] | None = None,
    neurons: Sequence[int] | None = None,
) -> Figure:
    """Inferred rates of single trials with a band of one posterior standard deviation.

    Spikes are ticks below the trace, wider for more in one bin; real-valued data are dots behind
    it. True rates are dashed. Each row is a neuron (held-out ones named in colour), each column a
    trial.

    Args:
        posterior: ``activity``, and ``rates`` and ``rates_sd`` (Hz), or ``mean`` and ``mean_sd``;
            ``true_rates`` in the same unit if they are known.
        trials: positions of the trials to show; None: three, evenly spread.
        neurons: positions of the neurons; None: the four whose inferred rate varies most.
    """
    posterior = on_event_time(posterior)
    name, label = expected_activity(posterior)
    shown = some_trials(posterior, trials, at_most=3)
    activity = activity_of(posterior)
    true_rates = posterior["true_rates"].values if "true_rates" in posterior else None
    mean, deviation = posterior[name].values, posterior[f"{name}_sd"].values
    heldin = heldin_of(posterior)
    if neurons is None:
        neurons = most_different(mean, 4).tolist()
    edges, time_label = time_axis(posterior)
    middle = (edges[:-1] + edges[1:]) / 2

    figure = new_figure(0.8 + 2.0 * len(shown), 1.1 + 1.05 * len(neurons))
    grid = figure.subplots(len(neurons), len(shown), sharex=True, sharey="row", squeeze=False)
    for row, neuron in enumerate(neurons):
        for column, trial in enumerate(shown):
            axes = grid[row, column]
            trace, band = mean[trial, :, neuron], deviation[trial, :, neuron]
            axes.fill_between(
                middle, trace - band, trace + band, color=BLUE, alpha=0.25, linewidth=0
            )
            axes.plot(middle, trace, color=BLUE, linewidth=1.2, label="inferred")
            if true_rates is not None:
                truth = true_rates[trial, :, neuron]
                axes.plot(middle, truth, color=BLACK, linewidth=0.9, linestyle=(0, (4, 2)))
            mark_event(axes, posterior, int(trial))
            if name == "mean":
                axes.plot(
                    middle, activity[trial, :, neuron], ".", color=GREY, markersize=2.5, zorder=0
                )
            tidy(
                axes,
                x=time_label if row == len(neurons) - 1 else "",
                title=trial_title(posterior, int(trial)) if row == 0 else "",
            )
        if name == "rates":
            _spike_ticks(list(grid[row]), activity[shown][:, :, neuron], middle)
        grid[row, 0].set_ylabel(
            f"neuron {posterior.neuron.values[neuron]}"
            + ("" if heldin[neuron] else "\n(held out)"),
            fontsize=SMALL_SIZE,
            color=BLACK if heldin[neuron] else VERMILLION,
        )
    figure.supylabel(label, fontsize=NORMAL_SIZE)
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=BLUE, linewidth=1.2, label="inferred"),
        Patch(color=BLUE, alpha=0.25, linewidth=0, label="posterior sd"),
    ]
    if true_rates is not None:
        handles.append(Line2D([], [], color=BLACK, linestyle=(0, (4, 2)), lw=0.9, label="true"))
    marker = "|" if name == "rates" else "."
    recorded = "spikes" if name == "rates" else "recorded"
    handles.append(Line2D([], [], color=GREY, marker=marker, linestyle="", label=recorded))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=SMALL_SIZE
    )
    head(figure, posterior)
    return figure


def _limits(
    values: Float[np.ndarray, "trial time neuron"],
    shown: Int[np.ndarray, " shown"],
    *,
    counts: bool,
) -> tuple[float, float]:
    """Ends of the colour scale: from 0 for counts, leaving out the highest half per cent."""
    low, high = np.nanpercentile(values[shown], [0.5, 99.5])
    if counts:
        return 0.0, float(max(high, np.finfo(np.float32).tiny))
    return float(low), float(high)


def _heat_map(
    axes: Axes,
    values: Float[np.ndarray, "time neuron"],
    edges: Float[np.ndarray, " edge"],
    *,
    limits: tuple[float, float],
    counts: bool,
) -> AxesImage:
    """Neurons upwards, time to the right; spike counts in grey."""
    low, high = limits
    image = axes.imshow(
        values.T,
        aspect="auto",
        origin="lower",
        extent=(edges[0], edges[-1], 0.5, values.shape[1] + 0.5),
        cmap="Greys" if counts else "viridis",
        norm=PowerNorm(0.5, low, high) if low == 0.0 and not counts else None,
        interpolation="nearest",
    )
    if low != 0.0 or counts:
        image.set_clim(low, max(high, 1.0) if counts else high)
    return image


def _mark_heldout(axes: Axes, *, num_heldin: int, num_neurons: int) -> None:
    """Put a bar with a name beside the rows of the held-out neurons."""
    if num_heldin == num_neurons:
        return
    low, high = num_heldin + 0.5, num_neurons + 0.5
    transform = axes.get_yaxis_transform()
    axes.plot(
        [1.03, 1.03],
        [low, high],
        transform=transform,
        color=VERMILLION,
        linewidth=2.0,
        solid_capstyle="butt",
        clip_on=False,
        label="held out",
    )
    axes.text(
        1.05,
        (low + high) / 2,
        "held out",
        transform=transform,
        color=VERMILLION,
        fontsize=SMALL_SIZE,
        rotation=270,
        va="center",
        ha="left",
    )


def _spike_ticks(
    row: Sequence[Axes],
    counts: Float[np.ndarray, "shown time"],
    middle: Float[np.ndarray, " time"],
) -> None:
    """Ticks in a strip under the traces of one neuron, wider for more spikes in one bin."""
    top = max(axes.get_ylim()[1] for axes in row)
    for axes, trial in zip(row, counts, strict=True):
        spikes = np.nan_to_num(trial)
        bins = np.nonzero(spikes > 0)[0]
        axes.vlines(
            middle[bins], -0.20 * top, -0.06 * top, color=GREY, linewidth=0.6 * spikes[bins]
        )
        axes.set_ylim(-0.24 * top, top)
        axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= top])
