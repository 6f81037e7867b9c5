"""Score and dimension against the number of trials, and how they would go on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from seqvae.plotting.dimensions import UNITS, swept_of
from seqvae.plotting.style import GREY, NORMAL_SIZE, SERIES, SMALL_SIZE, new_figure, tidy


def growth_curve(summary: Mapping[str, Any]) -> Figure:
    """Draw what was measured on fractions of the trials, and the bands of what more would bring.

    Left the score at the dimension that was chosen of so many trials, the fitted curve and its
    band; right the chosen dimension, and bars for its band. The dashed line stands at all trials
    there are.

    Args:
        summary: as ``crossvalidate`` writes it, of subsamples.
    """
    figure = new_figure(8.0, 2.9)
    scores, sizes = figure.subplots(1, 2)
    told = summary["growth"]
    trials, models = told["trials"], told["models"]
    ahead = [one["trials"] for entry in models.values() for one in entry["ahead"]]
    ticks = sorted({*trials, *ahead})
    for i, (name, entry) in enumerate(models.items()):
        color, curve = SERIES[i % len(SERIES)], entry["curve"]
        shift = 1.04 ** (i - (len(models) - 1) / 2)
        scores.plot(curve["trials"], curve["middle"], color=color, linewidth=1.0, label=name)
        scores.fill_between(
            curve["trials"], curve["low"], curve["high"], color=color, alpha=0.15, linewidth=0
        )
        scores.plot(trials, entry["score"], "o", color=color, markersize=3.5)
        at = [number * shift for number in trials]
        sizes.plot(at, entry["chosen_dim"], "-o", color=color, markersize=3.5, linewidth=1.0)
        bands = [one["dim"] for one in entry["ahead"]]
        middles = [band["middle"] for band in bands]
        ends = [
            [band["middle"] - band["low"] for band in bands],
            [band["high"] - band["middle"] for band in bands],
        ]
        sizes.errorbar(
            [one["trials"] * shift for one in entry["ahead"]], middles, ends, fmt="o",
            color=color, markerfacecolor="white", markersize=4, elinewidth=1.2, capsize=3,
        )  # fmt: skip
    for axes in (scores, sizes):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(ticks, [str(number) for number in ticks])
        axes.axvline(trials[-1], color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    scores.annotate(
        "all there are", (trials[-1], 0), (3, 3), xycoords=("data", "axes fraction"),
        textcoords="offset points", color=GREY, fontsize=SMALL_SIZE,
    )  # fmt: skip
    sizes.yaxis.set_major_locator(MaxNLocator(integer=True))
    sizes.set_ylim(0, sizes.get_ylim()[1] + 0.3)
    tidy(scores, x="trials", y=UNITS[summary["unit"]])
    tidy(sizes, x="trials", y=f"chosen {swept_of(summary)}")
    level = f"{told['level']:.0%}".replace("%", " %")
    figure.suptitle(
        f"How many more trials? {level} bands of what so many would give",
        fontsize=NORMAL_SIZE,
        fontweight="bold",
    )
    figure.legend(loc="outside right upper", fontsize=SMALL_SIZE, frameon=False)
    return figure
