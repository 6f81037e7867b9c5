"""What a panel of estimators says of the number of latents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seqvae.plotting.dimensions import swept_of
from seqvae.plotting.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SMALL_SIZE,
    VERMILLION,
    new_figure,
    tidy,
)

MOST_VALUES = 30


def dimension_panel(summary: Mapping[str, Any]) -> Figure:
    """Draw the singular values with the thresholds laid on them, and the answer of each estimator.

    Left the singular values of the standardised activity, descending, with the edge of those of
    random signs and the hard threshold. Right the answers; the bar of a cross-validated model spans
    the dimensions that are not excluded at 95 %.

    Args:
        summary: as ``crossvalidate`` writes it with ``panel``.
    """
    panel, every = summary["panel"], summary["models"]
    models = {name: entry for name, entry in every.items() if swept_of(entry) == "dimension"}
    figure = new_figure(8.0, 0.22 * (len(models) + len(panel)) + 1.7)
    values, answers = figure.subplots(1, 2, width_ratios=[2, 3])
    by_name = {one["estimator"].split(" (")[0]: one["details"] for one in panel}
    spectrum = by_name["parallel analysis"]["singular_values"][:MOST_VALUES]
    values.plot(range(1, len(spectrum) + 1), spectrum, "o-", color=BLUE, markersize=3, linewidth=1)
    for name, color in (("parallel analysis", VERMILLION), ("hard threshold", GREEN)):
        values.axhline(
            by_name[name]["threshold"], color=color, linewidth=1.0, linestyle="--", label=name
        )
    values.set_ylim(bottom=0)
    values.legend(frameon=False, fontsize=SMALL_SIZE)
    values.xaxis.set_major_locator(MaxNLocator(integer=True))
    tidy(values, x="component", y="singular value", title="standardised activity")
    names = []
    for place, (name, entry) in enumerate(models.items()):
        among = entry["confidence_set"]
        answers.plot([min(among), max(among)], [place, place], color=BLUE, linewidth=3, alpha=0.35,
                     solid_capstyle="round")  # fmt: skip
        answers.plot(entry["chosen_dim"], place, "o", color=BLUE, markersize=6)
        names.append(f"cross-validation ({name})")
    for place, one in enumerate(panel, start=len(models)):
        known = np.nan if one["dimension"] is None else one["dimension"]
        answers.plot(known, place, "D", color=ORANGE, markersize=5)
        names.append(one["estimator"])
    answers.set_yticks(range(len(names)), names)
    answers.invert_yaxis()
    answers.set_xlim(left=-0.4)
    answers.xaxis.set_major_locator(MaxNLocator(integer=True))
    answers.grid(axis="x", color=GREY, alpha=0.25, linewidth=0.6)
    tidy(answers, x="number of latents", title="answers; bars: not excluded at 95 %")
    return figure
