"""A search of settings: the score of each fit, and against each setting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from seqvae.plotting.style import BLUE, GREY, SMALL_SIZE, VERMILLION, new_figure, tidy

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = 4


def search_history(table: pd.DataFrame, space: Mapping[str, Any], *, measure: str) -> Figure:
    """Draw the score of each fit in their order, with the best so far, and against each setting.

    A ring marks the best fit, a cross the settings as they were. The lowest fifth of the scores may
    lie below the picture, so that one fit that went astray does not hide the others.

    Args:
        table: ``number``, ``score`` and each setting, a row for each fit.
        space: the settings that were searched, as in ``study.json``.
        measure: the name of the score.
    """
    known = table[table["score"].notna()]
    scores = known["score"].to_numpy(dtype=float)
    num_panels = 1 + len(space)
    num_rows = math.ceil(num_panels / COLUMNS)
    num_columns = min(num_panels, COLUMNS)
    figure = new_figure(2.3 * num_columns, 2.1 * num_rows)
    panels = figure.subplots(num_rows, num_columns, squeeze=False, sharey=True)
    for axes in panels.flat[num_panels:]:
        axes.remove()
    history, *others = panels.flat[:num_panels]
    numbers = known["number"].to_numpy(dtype=float)
    _points(history, numbers, scores, known)
    history.xaxis.set_major_locator(MaxNLocator(integer=True))
    history.step(numbers, np.maximum.accumulate(scores), where="post", color=GREY, linewidth=1.0)
    for axes, (name, values) in zip(others, space.items(), strict=True):
        _points(axes, places(axes, known[name], values), scores, known)
    focus(history, scores)
    for number, (axes, name) in enumerate(zip(panels.flat, ["fit", *space], strict=False)):
        words = f"{measure.replace('_', ' ')}\n(validation)" if number % COLUMNS == 0 else ""
        tidy(axes, x=label(name), y=words)
    return figure


def _points(axes: Axes, places: Any, scores: Any, known: pd.DataFrame) -> None:
    best = int(np.argmax(scores))
    axes.scatter(places, scores, s=12, color=BLUE, alpha=0.75, linewidths=0)
    axes.plot(places[best], scores[best], "o", markersize=8, markerfacecolor="none",
              color=VERMILLION)  # fmt: skip
    first = known["number"].to_numpy() == 0
    axes.plot(places[first], scores[first], "x", markersize=6, color=VERMILLION)


def focus(axes: Axes, scores: np.ndarray) -> None:
    """Let the vertical axis show the scores but for those that are far below the others."""
    low, high = np.quantile(scores, 0.2), scores.max()
    if high > low:
        axes.set_ylim(max(scores.min(), low - 2 * (high - low)) - 0.1 * (high - low),
                      high + 0.15 * (high - low))  # fmt: skip


def places(
    axes: Axes, column: pd.Series, values: Any, *, axis: Literal["x", "y"] = "x"
) -> np.ndarray:
    """Return where each fit lies on an axis of one setting, and lay out that axis."""
    if isinstance(values, Mapping):
        if values.get("log"):
            axes.set(**{f"{axis}scale": "log"})
            few = math.log10(values["high"] / values["low"]) < 2  # decades
            ticks = getattr(axes, f"{axis}axis")
            ticks.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if few else (1.0,)))
            ticks.set_major_formatter("{x:g}")
            ticks.set_minor_formatter(NullFormatter())
            axes.tick_params(axis=axis, which="both", labelsize=SMALL_SIZE)
        return np.array([v if isinstance(v, Real) else np.nan for v in column], dtype=float)
    words = [str(value) for value in values]
    short = [word.rpartition(".")[2] for word in words]
    getattr(axes, f"set_{axis}ticks")(range(len(words)), short, fontsize=SMALL_SIZE)
    axes.set(**{f"{axis}lim": (-0.5, len(words) - 0.5)})
    return np.array([words.index(str(v)) if str(v) in words else np.nan for v in column])


def label(name: str) -> str:
    """Return the last part of a dotted name, in words."""
    return name.rpartition(".")[2].replace("_", " ")
