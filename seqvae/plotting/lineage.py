"""A population of fits: score and settings of each generation, and who came from whom."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seqvae.plotting.search import COLUMNS, focus, label, places
from seqvae.plotting.style import BLUE, GREY, VERMILLION, new_figure, tidy

if TYPE_CHECKING:
    import pandas as pd


def lineage(
    table: pd.DataFrame, space: Mapping[str, Any], *, population: int, measure: str
) -> Figure:
    """Draw score and settings against the generation, a line from each fit to its parent.

    The best fit has a ring, and the line of its ancestors a colour of its own. The lowest fifth of
    the scores may lie below the picture.

    Args:
        table: ``number``, ``parent``, ``score`` and each setting, a row for each fit.
        space: the settings that were searched, as in ``study.json``.
        population: members of a generation.
        measure: the name of the score.
    """
    known = table[table["score"].notna()].set_index("number", drop=False)
    scores = known["score"].to_numpy(dtype=float)
    num_columns = min(1 + len(space), COLUMNS)
    num_rows = math.ceil((1 + len(space)) / num_columns)
    figure = new_figure(2.3 * num_columns, 2.1 * num_rows)
    panels = list(figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for axes in panels[1 + len(space) :]:
        axes.remove()
    best = int(known.index[int(np.argmax(scores))])
    ancestors = _ancestors(known, best)
    for axes, name in zip(panels, [measure, *space], strict=False):
        heights = scores if name == measure else places(axes, known[name], space[name], axis="y")
        at = dict(zip(known.index, heights, strict=True))
        for number, parent in known["parent"].items():
            if parent in at:
                is_ours = number in ancestors
                axes.plot(
                    [parent // population, number // population], [at[parent], at[number]],
                    color=VERMILLION if is_ours else GREY, linewidth=1.4 if is_ours else 0.5,
                    zorder=2 if is_ours else 1,
                )  # fmt: skip
        generations = known.index.to_numpy() // population
        axes.scatter(generations, heights, s=8, color=BLUE, alpha=0.75, linewidths=0, zorder=3)
        axes.plot(best // population, at[best], "o", markersize=8, markerfacecolor="none",
                  color=VERMILLION)  # fmt: skip
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes, x="generation", y=label(name))
    focus(panels[0], scores)
    panels[0].set_ylabel(f"{label(measure)}\n(validation)")
    return figure


def _ancestors(known: pd.DataFrame, number: int) -> set[int]:
    found = {number}
    while not math.isnan(parent := known["parent"].astype(float).get(number, math.nan)):
        number = int(parent)
        found.add(number)
    return found
