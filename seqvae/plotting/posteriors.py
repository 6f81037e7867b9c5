"""A model's posterior beside the true one, and the ranks of simulation-based calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqvae.plotting.style import BLACK, BLUE, GREY, SMALL_SIZE, VERMILLION, new_figure, tidy

MAX_PANELS = 3
NORMAL_WIDTH = 3.29  # standard deviations between the quantiles 5 and 95 %
DRAWS_SHOWN = "median, 50 and 90 %"


def posterior_comparison(
    model: Sequence[Float[np.ndarray, "quantile ..."]],
    reference: Sequence[Float[np.ndarray, "quantile ..."]],
    *,
    titles: Sequence[str],
    label: str,
    bin_width: float | None = None,
) -> Figure:
    """Medians and central 50 and 90 % intervals of a latent: the model's and the reference's.

    A column for each of at most three trials; over time, a row for each of at most three
    dimensions, else the dimensions side by side, relative to the reference.

    Args:
        model: for each trial the quantiles 5, 25, 50, 75 and 95 %, (quantile, time, latent) or
            (quantile, latent).
        reference: likewise.
        titles: of the trials.
        label: name of the latent.
        bin_width: seconds; None labels the axis with bins.
    """
    relative_label = f"{label} - reference\n(reference sd)"
    shown = range(min(MAX_PANELS, len(model)))
    over_time = model[0].ndim == 3 and model[0].shape[1] > 1
    num_rows = min(MAX_PANELS, model[0].shape[-1]) if over_time else 1
    figure = new_figure(0.6 + 2.3 * len(shown), 0.7 + 1.35 * num_rows + 0.6 * (not over_time))
    grid = figure.subplots(num_rows, len(shown), squeeze=False, sharey="row")
    for column in shown:
        pair = {"model": (model[column], BLUE), "reference": (reference[column], VERMILLION)}
        for row in range(num_rows):
            axes = grid[row, column]
            for name, (quantiles, color) in pair.items():
                if over_time:
                    _bands(axes, quantiles[..., row], bin_width or 1.0, color=color, name=name)
                else:
                    shift = -0.12 if name == "model" else 0.12
                    median, spread = reference[column][2], np.ptp(reference[column][[0, 4]], axis=0)
                    relative = (quantiles - median) / spread * NORMAL_WIDTH
                    flat = relative.reshape(len(quantiles), -1)
                    _bars(axes, flat, shift, color=color, name=name)
            time = "time (bins)" if bin_width is None else "time (s)"
            bottom = row == num_rows - 1
            tidy(
                axes,
                x=(time if over_time else "dimension") if bottom else "",
                y=(f"{label} {row + 1}" if over_time else relative_label) if column == 0 else "",
                title=titles[column] if row == 0 else "",
            )
            if not bottom:
                axes.set_xticklabels([])
    handles = grid[0, 0].get_legend_handles_labels()
    columns = min(2, len(shown))  # as wide as the panels allow
    figure.legend(
        *handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=SMALL_SIZE
    )
    return figure


def _bands(
    axes: Axes,
    quantiles: Float[np.ndarray, "5 time"],
    step: float,
    *,
    color: str,
    name: str,
) -> None:
    """The reference as filled bands under the lines of the model."""
    time = (np.arange(quantiles.shape[1]) + 0.5) * step
    if name == "reference":
        for low, high in ((0, 4), (1, 3)):
            axes.fill_between(
                time, quantiles[low], quantiles[high], color=color, alpha=0.22, linewidth=0
            )
        axes.plot(time, quantiles[2], color=color, linewidth=2.2, label=f"{name}: {DRAWS_SHOWN}")
        return
    for edge in (0, 4):
        axes.plot(time, quantiles[edge], ":", color=color, linewidth=0.8, zorder=3)
    for edge in (1, 3):
        axes.plot(time, quantiles[edge], "--", color=color, linewidth=0.6, zorder=3)
    axes.plot(
        time, quantiles[2], color=color, linewidth=1.0, zorder=3, label=f"{name}: {DRAWS_SHOWN}"
    )


def _bars(
    axes: Axes, quantiles: Float[np.ndarray, "5 entry"], shift: float, *, color: str, name: str
) -> None:
    at_most = 16  # dimensions that can be told apart
    quantiles = quantiles[:, :at_most]
    place = np.arange(quantiles.shape[1]) + 1 + shift
    axes.vlines(place, quantiles[0], quantiles[4], color=color, linewidth=0.8)
    axes.vlines(place, quantiles[1], quantiles[3], color=color, linewidth=2.4)
    axes.set_xticks(np.arange(quantiles.shape[1]) + 1)
    axes.plot(place, quantiles[2], "o", color=color, markersize=2.4, label=f"{name}: {DRAWS_SHOWN}")


def rank_histograms(
    shares: Mapping[str, Float[np.ndarray, " bin"]],
    standard_errors: Mapping[str, Float[np.ndarray, " bin"]],
    p_values: Mapping[str, float],
) -> Figure:
    """Ranks of true latents among posterior draws: level if the posterior is right.

    Args:
        shares: share of the ranks in each bin, of each latent by name.
        standard_errors: of the shares; two of them are drawn.
        p_values: of a test of equal shares.
    """
    figure = new_figure(0.6 + 2.5 * len(shares), 2.3)
    for axes, (name, parts) in zip(
        figure.subplots(1, len(shares), squeeze=False)[0], shares.items(), strict=True
    ):
        edges = np.linspace(0, 1, len(parts) + 1)
        middle = (edges[1:] + edges[:-1]) / 2
        axes.stairs(parts, edges, fill=True, color=BLUE, alpha=0.35)
        bars = 2 * standard_errors[name]
        axes.errorbar(middle, parts, bars, fmt="none", ecolor=BLACK, elinewidth=0.8)
        axes.axhline(1 / len(parts), color=GREY, linewidth=0.9, linestyle="--")
        tidy(
            axes,
            x="rank of the truth (narrow: ends high)",
            y="share (± 2 standard errors)",
            title=f"{name.replace('_', ' ')}, p = {p_values[name]:.2g}",
        )
        axes.set_ylim(bottom=0)
    return figure
