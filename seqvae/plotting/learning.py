"""Learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from seqvae.plotting.style import GREY, NORMAL_SIZE, SERIES, SMALL_SIZE, new_figure, tidy


def learning_curves(
    history: Sequence[Mapping[str, float | int | str]], *, title: str = ""
) -> Figure:
    """Bound, divergences, scores and learning rate over the optimiser's steps, or EM's iterations.

    The steps at which a warm-up holds beta below its final value are shaded. A curve of one point
    is a dot. Of a fit that was refitted the first pass is shown.

    Args:
        history: rows as in ``history.csv``; a value that is missing or empty is left out. A panel
            without a curve, or of a learning rate that does not change, is left out too.
        title: above all panels, such as the name of the model.
    """
    history = [row for row in history if not row.get("refit")]
    panels, step, count = curves_of(history)
    warming = _warming(_values(history, "train/beta"))

    columns = 2 if len(panels) > 1 else 1
    rows = max(1, -(-len(panels) // columns))
    figure = new_figure(3.3 * columns, 0.3 + 2.0 * rows)
    grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.remove()
    for place, (axes, (label, curves)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        for (name, values), look in zip(curves.items(), _looks(list(curves)), strict=True):
            present = np.isfinite(values)
            dot = "o" if present.sum() == 1 else ""
            axes.plot(
                step[present],
                values[present],
                label=name,
                linewidth=1.2,
                marker=dot,
                markersize=4.0,
                **look,
            )
        _shade(axes, step[warming], named=place < columns)
        last_in_column = place + columns >= len(panels)
        tidy(axes, x=count if last_in_column else "", y=label)
        axes.tick_params(labelbottom=last_in_column)
        if label == "learning rate":
            axes.set_yscale("log")
            axes.tick_params(which="both", labelsize=SMALL_SIZE, width=0.6)
        elif label.startswith("ELBO") and (ends := without_the_first_fall(list(curves.values()))):
            axes.set_ylim(ends)
        if label != "learning rate":
            axes.legend(frameon=False, fontsize=SMALL_SIZE, handlelength=1.5)
    if title:
        figure.suptitle(title, fontsize=NORMAL_SIZE, fontweight="bold")
    return figure


class Curves(NamedTuple):
    """What is drawn of a history.

    Attributes:
        panels: by the label of an axis, the curves that belong together, by name.
        step: of each row.
        word: what a step is called.
    """

    panels: dict[str, dict[str, np.ndarray]]
    step: Float[np.ndarray, " row"]
    word: str


def curves_of(history: Sequence[Mapping[str, float | int | str]]) -> Curves:
    """Return the curves that a history has something for."""
    panels = {
        "ELBO (nats per trial)": _named(history, ["train/elbo", "val/elbo"]),
        "KL (nats per trial)": _named(history, _columns(history, "train/kl/", "val/kl/")),
        "bits per spike": _named(
            history,
            ["val/bits_per_spike", "val/co_bps", "val/fp_bps", "val/speckled_bps"],
        ),
        "learning rate": _changing(_named(history, ["train/learning_rate"])),
    }
    count = "iteration" if any("bound" in row for row in history) else "step"
    filled = {label: curves for label, curves in panels.items() if curves}
    return Curves(filled, _values(history, "step"), count)


def _columns(history: Sequence[Mapping[str, float | int | str]], *prefixes: str) -> list[str]:
    """Columns that begin with one of the prefixes, in the order of their first row."""
    names = dict.fromkeys(name for row in history for name in row)
    return [name for prefix in prefixes for name in names if name.startswith(prefix)]


def _values(
    history: Sequence[Mapping[str, float | int | str]], name: str
) -> Float[np.ndarray, " row"]:
    """One column; NaN where a row has none."""
    entries = (row.get(name, "") for row in history)
    return np.array([np.nan if entry == "" else float(entry) for entry in entries])


def _named(
    history: Sequence[Mapping[str, float | int | str]], names: list[str]
) -> dict[str, Float[np.ndarray, " row"]]:
    """The columns of these names that hold a finite value."""
    columns = {name: _values(history, name) for name in names}
    return {name: values for name, values in columns.items() if np.isfinite(values).any()}


def _changing(curves: dict[str, Float[np.ndarray, " row"]]) -> dict[str, np.ndarray]:
    """The curves whose values differ."""
    return {
        name: values
        for name, values in curves.items()
        if len(np.unique(values[np.isfinite(values)])) > 1
    }


def _warming(beta: Float[np.ndarray, " row"]) -> Bool[np.ndarray, " row"]:
    """Rows before beta reaches its final value."""
    if not np.isfinite(beta).any():
        return np.zeros(len(beta), dtype=bool)
    return beta < beta[np.isfinite(beta)][-1]


def _looks(names: list[str]) -> list[dict[str, object]]:
    """Training dashed and validation solid, the same quantity in the same colour."""
    quantities = list(dict.fromkeys(name.partition("/")[2] for name in names))
    both = len(quantities) < len(names)
    return [
        {
            "color": SERIES[quantities.index(name.partition("/")[2]) % len(SERIES)],
            "linestyle": (0, (3, 1.5)) if both and name.startswith("train/") else "-",
        }
        for name in names
    ]


def _shade(axes: Axes, warming: Float[np.ndarray, " warming"], *, named: bool) -> None:
    """Grey behind the steps of the warm-up, with its name above."""
    if len(warming) == 0:
        return
    axes.axvspan(0.0, warming.max(), color=GREY, alpha=0.15, linewidth=0, zorder=0)
    if named:
        axes.annotate(
            "warm-up",
            (warming.max() / 2, 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 2),
            textcoords="offset points",
            color=GREY,
            fontsize=SMALL_SIZE,
            ha="center",
            annotation_clip=False,
        )


def without_the_first_fall(
    curves: Sequence[Float[np.ndarray, " row"]],
) -> tuple[float, float] | None:
    """Ends of an axis for all but the lowest tenth, lest the first rows flatten the rest.

    Returns:
        None where there is nothing to leave out.
    """
    finite = np.concatenate([values[np.isfinite(values)] for values in curves])
    low, high = float(np.percentile(finite, 10)), float(finite.max())
    if low <= finite.min():
        return None
    return low - 0.25 * (high - low), high + 0.08 * (high - low)
