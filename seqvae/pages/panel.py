"""What other estimators say of the number of latents, beside a cross-validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqvae.crossvalidation.panel.summary import of_dimension, panel_rows
from seqvae.pages.charts import line, plain
from seqvae.pages.section import Chart, Section, Table, Trace
from seqvae.plotting.style import BLUE, ORANGE


def panel(summary: Mapping[str, Any]) -> Section | None:
    """Draw and tabulate the answers; None where no panel was asked for."""
    if not summary.get("panel"):
        return None
    rows = panel_rows(summary)
    traces: list[Trace] = []
    models = of_dimension(summary)
    for place, entry in enumerate(models.values()):
        among = entry["confidence_set"]
        ends = np.array([min(among), max(among)])
        traces.append(line(ends, np.array([place, place]), color=BLUE + "66", width=8.0,
                           name="not excluded at 95 %"))  # fmt: skip
        traces.append(_point(entry["chosen_dim"], place, BLUE, "chosen"))
    for place, one in enumerate(summary["panel"], start=len(models)):
        if one["dimension"] is not None:
            traces.append(_point(one["dimension"], place, ORANGE, one["estimator"]))
    largest = max(
        [dimension for entry in models.values() for dimension in entry["confidence_set"]]
        + [entry["chosen_dim"] for entry in models.values()]
        + [one["dimension"] for one in summary["panel"] if one["dimension"] is not None],
        default=1,
    )
    names = [plain(name) for name, _, _ in rows]
    layout = {
        "xaxis": {"title": {"text": "number of latents"}, "range": [-0.25, largest + 0.25]},
        "yaxis": {"tickvals": list(range(len(rows))), "ticktext": names, "autorange": "reversed",
                  "automargin": True},
    }  # fmt: skip
    caption = "answers of each estimator; bars: dimensions that are not excluded at 95 %"
    chart = Chart(caption, traces, layout, height=120 + 32 * len(rows), is_wide=True)
    words = [
        "Each estimator answers another question, under assumptions of its own. Where they agree, "
        "the number of latents is no artefact of one; where not, the assumptions below tell why."
    ]
    table = Table(("estimator", "latents", "assumes"), rows)
    return Section("What do other estimators say?", words, [chart], [table])


def _point(dimension: int | float, place: int, color: str, name: str) -> Trace:
    trace = line(np.array([dimension]), np.array([place]), color=color, mode="markers", name=name)
    trace["marker"] = {"color": color, "size": 11}
    return trace
