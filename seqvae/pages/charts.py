"""Charts of plotly from numbers: lines, bands, points, maps."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped

from seqvae.pages.section import Trace
from seqvae.plotting.style import VERMILLION, time_axis

INK, MUTED, PAPER = "@ink", "@muted", "@paper"
VIRIDIS = (
    *((0.0, "#440154"), (0.13, "#482878"), (0.25, "#3E4989"), (0.38, "#31688E")),
    *((0.5, "#26828E"), (0.63, "#1F9E89"), (0.75, "#35B779"), (0.88, "#6ECE58"), (1.0, "#FDE725")),
)
_TRANSPARENT = {0.1: "1A", 0.2: "33", 0.25: "40"}


def plain(text: object) -> str:
    """Return text as plotly shows it letter by letter, whoever wrote it: it reads some HTML."""
    return html.escape(str(text), quote=False)


def packed(values: Shaped[np.ndarray, ...]) -> dict[str, Any]:
    """Pack numbers as plotly reads them: base64 of single precision, or of bytes."""
    dtype = "u1" if values.dtype == np.uint8 else "f4"
    content = np.ascontiguousarray(values, dtype=f"<{dtype}" if dtype == "f4" else dtype)
    answer = {"dtype": dtype, "bdata": base64.b64encode(content.tobytes()).decode("ascii")}
    if content.ndim > 1:
        answer["shape"] = ", ".join(map(str, content.shape))
    return answer


def line(
    x: Shaped[np.ndarray, " point"], y: Shaped[np.ndarray, " point"], *, color: str, name: str = "",
    width: float = 1.8, dash: str = "solid", mode: str = "lines", axis: int = 1,
    in_legend: bool = False,
) -> Trace:  # fmt: skip
    """Return a line, or markers.

    Args:
        x: values.
        y: values; NaN are gaps.
        color: of the line and its markers.
        name: what a pointer reads.
        width: pixels.
        dash: of plotly.
        mode: ``lines``, ``markers`` or both.
        axis: number of its y axis.
        in_legend: whether the chart's legend names it.
    """
    trace: Trace = {
        "type": "scatter",
        "x": packed(x),
        "y": packed(y),
        "mode": mode,
        "name": plain(name),
        "line": {"color": color, "width": width, "dash": dash},
        "marker": {"color": color, "size": 6},
        "showlegend": in_legend,
        "yaxis": "y" if axis == 1 else f"y{axis}",
    }
    if not name:
        trace["hoverinfo"] = "skip"
    return trace


def band(
    x: Float[np.ndarray, " point"],
    low: Float[np.ndarray, " point"],
    high: Float[np.ndarray, " point"],
    *,
    color: str,
    alpha: float = 0.2,
    axis: int = 1,
) -> list[Trace]:
    """Return what is filled between two lines."""
    present = np.isfinite(low) & np.isfinite(high)
    if not present.any():
        return []
    x, low, high = x[present], low[present], high[present]
    outline = line(
        np.concatenate([x, x[::-1]]), np.concatenate([high, low[::-1]]), color=color, axis=axis
    )
    outline["line"] = {"width": 0, "color": color}
    return [{**outline, "fill": "toself", "fillcolor": color + _TRANSPARENT[alpha]}]


def over_time(titles: Sequence[str], posterior: xr.Dataset, *, gap: float = 0.1) -> dict[str, Any]:
    """Return a layout of y axes above each other, the first on top, over one axis of time.

    Args:
        titles: of the y axes.
        posterior: whose time it is; a line marks the event at 0, if there is one.
        gap: between axes, as a share of the height.
    """
    number, (edges, x_title) = len(titles), time_axis(posterior)
    height = (1 - gap * (number - 1)) / number
    layout: dict[str, Any] = {
        "xaxis": {
            "title": {"text": plain(x_title)},
            "anchor": f"y{number if number > 1 else ''}",
            "range": [float(edges[0]), float(edges[-1])],
        }
    }
    for i, title in enumerate(titles):
        top = max(1 - i * (height + gap), height)
        layout[f"yaxis{i + 1 if i else ''}"] = {
            "title": {"text": plain(title)},
            "domain": [round(top - height, 4), round(min(top, 1.0), 4)],
        }
    if "event" in posterior.time.attrs:
        edge = {"color": VERMILLION, "width": 1.2, "dash": "dot"}
        layout["shapes"] = [
            {"type": "line", "xref": "x", "yref": "paper", "x0": 0, "x1": 0, "y0": 0, "y1": 1,
             "line": edge}
        ]  # fmt: skip
    return layout


def heat(
    values: Float[np.ndarray, "row column"],
    x: Float[np.ndarray, " column"],
    *,
    limits: tuple[float, float],
    kind: str,
    axis: int = 1,
    bar: dict[str, Any] | None = None,
) -> Trace:
    """Return a map of colours; of ``rates`` equal steps are those of the square root.

    Args:
        values: NaN is left empty.
        x: of the columns.
        limits: ends of the scale.
        kind: ``counts`` (grey), ``rates`` (from 0 on) or ``values``.
        axis: number of its y axis.
        bar: what a bar of colours tells: ``title``, ``y`` and ``len``; None: no bar.
    """
    low, high = limits
    shares = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)
    shares = np.sqrt(shares) if kind == "rates" else shares
    trace: Trace = {
        "type": "heatmap",
        "x": packed(x),
        "z": packed(np.round(255 * shares).astype(np.uint8) if np.isfinite(shares).all()
                    else 255 * shares),
        "zmin": 0,
        "zmax": 255,
        "colorscale": [[0, PAPER], [1, INK]] if kind == "counts" else [list(c) for c in VIRIDIS],
        "hoverinfo": "x+y",
        "yaxis": "y" if axis == 1 else f"y{axis}",
        "showscale": bar is not None,
    }  # fmt: skip
    if bar is not None:
        marks = np.linspace(low, high, 4) if kind != "rates" else high * np.array([0, 0.1, 0.4, 1])
        if kind == "counts":
            marks = np.unique(np.round(marks))
        places = (marks - low) / max(high - low, 1e-12)
        trace["colorbar"] = {
            "thickness": 8,
            "outlinewidth": 0,
            "title": {"text": plain(bar["title"]), "side": "right"},
            "tickvals": (255 * (np.sqrt(places) if kind == "rates" else places)).tolist(),
            "ticktext": [f"{float(f'{mark:.2g}'):g}" for mark in marks],
            "y": bar["y"],
            "len": bar["len"],
        }
    return trace
