"""The common look: colours that colour-blind readers tell apart, quiet axes, small print."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial

import matplotlib
import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from seqvae.plotting.arrangement import Conditions, heading

BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#CC79A7",
    "#56B4E9",
)
BLACK, GREY = "#222222", "#8A8A8A"
SERIES = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY)
CATEGORIES = (
    "#332288",
    "#CC6677",
    "#117733",
    "#CCAA33",
    "#88CCEE",
    "#882255",
    "#44AA99",
    "#999933",
    "#AA4499",
    "#777777",
)
SMALL_SIZE, NORMAL_SIZE = 7.0, 8.0
MOST_NAMED = 20
"""So many conditions have a line in a legend."""


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, in inches, laid out by constraints, saved at 150 dots per inch."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    # A notebook asks the figure itself; of a class of our own W&B would not know what it is.
    figure._repr_png_ = partial(_png, figure)  # type: ignore[attr-defined]
    return figure


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def tidy(axes: Axes, *, x: str = "", y: str = "", title: str = "") -> None:
    """Label axes and leave only the lines that carry meaning."""
    axes.set_xlabel(x, fontsize=NORMAL_SIZE)
    axes.set_ylabel(y, fontsize=NORMAL_SIZE)
    axes.set_title(title, fontsize=NORMAL_SIZE)
    axes.tick_params(labelsize=SMALL_SIZE, length=2.5, width=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_linewidth(0.6)


def category_colors(labels: Shaped[np.ndarray, " item"]) -> dict[object, str]:
    """One colour for each distinct label, in sorted order; sampled from a map past ten."""
    distinct = np.unique(labels).tolist()
    if len(distinct) <= len(CATEGORIES):
        return dict(zip(distinct, CATEGORIES, strict=False))
    samples = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.95, len(distinct)))
    return {label: to_hex(color) for label, color in zip(distinct, samples, strict=True)}


def condition_colors(conditions: Conditions) -> list[str]:
    """One colour for each condition; blue where there is none."""
    if not conditions.is_known:
        return [BLUE]
    return list(category_colors(np.arange(len(conditions.names))).values())


def condition_legend(figure: Figure, conditions: Conditions) -> None:
    """Name the colours of conditions beside the panels."""
    colors = condition_colors(conditions)
    handles = [
        Line2D([], [], color=color, linewidth=1.6, label=name)
        for name, color in zip(conditions.names, colors, strict=True)
    ]
    figure.legend(
        handles=handles[:MOST_NAMED],
        title="condition" if len(handles) <= MOST_NAMED else f"{MOST_NAMED} of {len(handles)}",
        loc="outside right center",
        frameon=False,
        fontsize=SMALL_SIZE,
        title_fontsize=SMALL_SIZE,
    )


def head(figure: Figure, posterior: xr.Dataset) -> None:
    """Say above all panels of which model, trials and score they are."""
    figure.suptitle(heading(posterior), fontsize=NORMAL_SIZE, fontweight="bold")


def are_categories(labels: Shaped[np.ndarray, " item"]) -> bool:
    """Whether labels name classes (words, or few distinct numbers) and not a quantity."""
    return labels.dtype.kind in "OUSb" or len(np.unique(labels)) <= 2 * len(CATEGORIES)


def time_axis(results: xr.Dataset) -> tuple[Float[np.ndarray, " edge"], str]:
    """Edges of the bins, and the label of the axis with its unit.

    Where the zero of time is an event, the times are those of the centres of the bins.
    """
    start = results.time.values.astype(np.float64)
    step = start[1] - start[0] if len(start) > 1 else results.attrs.get("bin_width", 1.0)
    label = "time (s)" if results.time.attrs.get("units") == "s" else "time (bins)"
    event = results.time.attrs.get("event")
    if event is not None:
        start = start - step / 2
        label = f"time from {event.removesuffix('_time').replace('_', ' ')} (s)"
    return np.append(start, start[-1] + step), label


def mark_event(axes: Axes, results: xr.Dataset, trial: int | None = None) -> None:
    """Draw a line at the event: at 0, or where it is in a trial if trials differ in it."""
    place = 0.0 if "event" in results.time.attrs else None
    if place is None and trial is not None and "event_time" in results.coords:
        place = float(results.event_time.values[trial])
    edges, _ = time_axis(results)
    if place is not None and edges[0] <= place <= edges[-1]:
        axes.axvline(place, color=VERMILLION, linewidth=0.8, linestyle=(0, (2, 2)), label="event")


def expected_activity(results: xr.Dataset) -> tuple[str, str]:
    """Name of the variable with the inferred activity, and its label with the unit."""
    return ("rates", "rate (Hz)") if "rates" in results else ("mean", "activity (data units)")


def some_trials(
    results: xr.Dataset, trials: Sequence[int] | None, *, at_most: int
) -> Int[np.ndarray, " shown"]:
    """Positions of the trials to show: those asked for, or some evenly spread.

    Raises:
        ValueError: if there are no trials, as in what was merged onto the time of a recording.
    """
    if "trial" not in results.dims:
        raise ValueError(
            "the posterior has no trials, as windows of it were merged; infer it with "
            "merged=False, or draw its variables by themselves, as posterior['rates'].plot() does"
        )
    if trials is not None:
        return np.asarray(trials, dtype=np.int64)
    num_trials = results.sizes["trial"]
    return np.unique(np.linspace(0, num_trials - 1, min(at_most, num_trials)).astype(np.int64))


def trial_title(results: xr.Dataset, trial: int) -> str:
    """Name a trial by its id."""
    return f"trial {results.trial.values[trial]}"
