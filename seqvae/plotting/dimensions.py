"""The score of each model against its dimension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from seqvae.plotting.style import BLACK, GREY, NORMAL, SERIES, SMALL, new_figure, tidy

UNITS = {
    "bits_per_spike": "held-out score (bits per spike)",
    "log_likelihood": "held-out score (nats per entry)",
    "variance_explained": "held-out variance explained",
}


def dimension_curve(summary: Mapping[str, Any]) -> Figure:
    """Draw score against dimension; a ring marks what was chosen, the line the mean-rate model.

    The error bars are those of the paired difference to each model's winner, which is what the
    choice compares; the winner itself has none. Dotted: the few-shot score, where there is one.

    Args:
        summary: as ``crossvalidate`` writes it.
    """
    figure = new_figure(4.6, 3.0)
    axes = figure.subplots()
    models = summary["models"]
    dims = sorted({dim for told in models.values() for dim in told["dims"]})
    place = {dim: i for i, dim in enumerate(dims)}
    for i, (name, told) in enumerate(models.items()):
        color = SERIES[i % len(SERIES)]
        at = [place[dim] + 0.06 * (i - (len(models) - 1) / 2) for dim in told["dims"]]
        axes.errorbar(
            at, told["mean"], told["paired_se"], color=color, marker="o", markersize=3,
            linewidth=1.2, elinewidth=0.8, capsize=2, label=f"{name}: {told['chosen_dim']}",
        )  # fmt: skip
        if "k_shot" in told:
            axes.plot(at[1:], told["k_shot"][1:], ":", color=color, linewidth=1.0)
        chosen = told["dims"].index(told["chosen_dim"])
        axes.plot(
            at[chosen], told["mean"][chosen], "o", markersize=9, markerfacecolor="none",
            markeredgecolor=color, markeredgewidth=1.2,
        )  # fmt: skip
    first = next(iter(models.values()))
    axes.axhline(first["mean"][0], color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    axes.annotate("mean rate", (len(dims) - 1, first["mean"][0]), (0, 2), color=GREY, ha="right",
                  fontsize=SMALL, textcoords="offset points")  # fmt: skip
    axes.set_xticks(range(len(dims)), [str(dim) for dim in dims])
    tidy(axes, x="latent dimension", y=UNITS[summary["unit"]])
    legend = axes.legend(
        fontsize=SMALL, title="model: chosen dimension", title_fontsize=SMALL, frameon=False,
        loc="lower right",
    )  # fmt: skip
    for text in legend.get_texts():
        text.set_color(BLACK)
    axes.margins(x=0.04, y=0.12)
    axes.yaxis.label.set_fontsize(NORMAL)
    return figure
