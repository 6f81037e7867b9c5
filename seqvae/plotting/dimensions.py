"""The score of each model against its dimension."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from seqvae.plotting.style import GREY, NORMAL_SIZE, SERIES, SMALL_SIZE, new_figure, tidy

UNITS = {
    "bits_per_spike": "held-out score (bits per spike)",
    "log_likelihood": "held-out score (nats per entry)",
    "variance_explained": "held-out variance explained",
}
WIDEST = 8
"""From so many times the smallest size on, dimensions are spread by their logarithm."""


def dimension_curve(summary: Mapping[str, Any]) -> Figure:
    """Draw score against dimension; a ring marks what was chosen, the line the mean-rate model.

    Left the scores, with their standard errors over the trial folds where the summary tells them,
    dotted the few-shot score where there is one. Right what each dimension loses against the best
    of its model, with the error by which the rule chooses, magnified.

    Args:
        summary: as ``crossvalidate`` writes it.
    """
    figure = new_figure(8.0, 2.9)
    scores, losses = figure.subplots(1, 2)
    models = summary["models"]
    dims = sorted({dim for entry in models.values() for dim in entry["dims"]})
    heights = []
    for i, (name, entry) in enumerate(models.items()):
        color = SERIES[i % len(SERIES)]
        at = entry["dims"]
        chosen = entry["dims"].index(entry["chosen_dim"])
        label = f"{name}: {entry['chosen_dim']}"
        scores.plot(at, entry["mean"], "-o", color=color, markersize=3, linewidth=1.2, label=label)
        if None not in entry.get("standard_error", [None]):
            scores.errorbar(
                at, entry["mean"], entry["standard_error"], fmt="none", ecolor=color,
                elinewidth=0.8, capsize=2,
            )  # fmt: skip
        if "k_shot" in entry:
            few = "few-shot" if i == 0 else None
            scores.plot(at[1:], entry["k_shot"][1:], ":", color=color, linewidth=1.0, label=few)
        best = entry["mean"][entry["dims"].index(entry["winner"])]
        lost = [mean - best for mean in entry["mean"]]
        losses.errorbar(
            at, lost, entry["paired_se"], fmt="-o", color=color, markersize=3, linewidth=1.2,
            elinewidth=0.8, capsize=2,
        )  # fmt: skip
        _ring(scores, float(at[chosen]), entry["mean"][chosen], color)
        _ring(losses, float(at[chosen]), lost[chosen], color)
        heights.append(_depth(lost, entry["paired_se"], chosen))
    zero = next(iter(models.values()))["mean"][0]
    scores.axhline(zero, color=GREY, linewidth=0.8, linestyle="--", zorder=0)
    scores.annotate(
        "mean rate", (dims[-1], zero), (0, 2), color=GREY, ha="right", fontsize=SMALL_SIZE,
        textcoords="offset points",
    )  # fmt: skip
    losses.axhline(0, color=GREY, linewidth=0.8, zorder=0)
    losses.set_ylim(-1.25 * max(heights), 0.4 * max(heights))
    for axes in (scores, losses):
        if dims[-1] > WIDEST * max(dims[min(1, len(dims) - 1)], 1):  # doubled sizes, evenly spread
            axes.set_xscale("symlog", base=2, linthresh=max(dims[1], 1))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(dims, [str(dim) for dim in dims])
        axes.margins(x=0.04)
    losses.set_xlim(scores.get_xlim())
    swept = swept_of(summary)
    label = "latent dimension" if swept == "dimension" else swept
    tidy(scores, x=label, y=UNITS[summary["unit"]])
    tidy(losses, x=label, y="less the best of the model (paired)")
    figure.suptitle(fold_words(summary), fontsize=NORMAL_SIZE, fontweight="bold")
    figure.legend(
        loc="outside right upper", fontsize=SMALL_SIZE, title=f"chosen {swept}",
        title_fontsize=SMALL_SIZE, frameon=False,
    )  # fmt: skip
    return figure


def swept_of(summary: Mapping[str, Any]) -> str:
    """Return what the sizes are called: ``dimension``, or the argument that was swept.

    Args:
        summary: of a cross-validation, or of one of its models.
    """
    return str(summary.get("swept", "dimension"))


def fold_words(summary: Mapping[str, Any]) -> str:
    """Say how many cells a score is of, as far as the summary tells."""
    folds = summary.get("folds")
    if folds is None:
        return ""
    of_neurons = f" x {folds['neurons']} of neurons" if folds["neurons"] > 1 else ""
    return f"{folds['rows']} trial folds{of_neurons}, bars are standard errors"


def _ring(axes: Axes, x: float, y: float, color: str) -> None:
    axes.plot(x, y, "o", ms=9, markerfacecolor="none", markeredgecolor=color, markeredgewidth=1.2)


def _depth(lost: list[float], errors: list[float], chosen: int) -> float:
    """Return how deep to look: to the dimensions from the chosen one on, else to the one before."""
    depths = [2 * error - loss for loss, error in zip(lost, errors, strict=True)]
    deep = max(depths[chosen:])
    return deep if deep > 0 else depths[max(chosen - 1, 0)] or 1.0
