"""Posterior predictive checks: recorded against drawn."""

from __future__ import annotations

import numpy as np

from seqvae.pages.charts import line, packed
from seqvae.pages.results import Result
from seqvae.pages.section import Chart, Section, Table
from seqvae.plotting.style import BLUE, VERMILLION

_WORDS = {
    "fano": "Fano factor of the counts of a trial, mean over neurons",
    "correlation": "correlations of counts of pairs of neurons, root mean square",
    "autocorrelation": "correlation of counts in successive bins, mean over neurons",
    "synchrony": "variance by mean of the summed activity",
}
_SURPRISING = 0.05
_NUM_BARS = 12


def predictive(result: Result) -> Section:
    """Draw what replicates of the model come to, and where the recorded activity lies."""
    title = "Does activity drawn from the model look like the recorded one?"
    if not result.checks:
        return Section(title, notes=["Posterior predictive checks are of counts, in three trials "
                                     "or more, and there are none here."])  # fmt: skip
    charts, rows, odd = [], [], []
    for name, check in result.checks.items():
        heights, edges = np.histogram(check.replicates, bins=_NUM_BARS)
        middle, top = (edges[:-1] + edges[1:]) / 2, float(heights.max())
        bars = {"type": "bar", "x": packed(middle), "y": packed(heights), "name": "replicates",
                "marker": {"color": BLUE}, "width": float(edges[1] - edges[0]),
                "showlegend": False}  # fmt: skip
        mark = line(np.full(2, check.recorded), np.array([0, 1.1 * top]), color=VERMILLION,
                    name="recorded", width=3.0)  # fmt: skip
        ends = np.array([*edges[[0, -1]], check.recorded])
        margin = 0.05 * max(float(np.ptp(ends)), 1e-9)
        scale = [float(ends.min() - margin), float(ends.max() + margin)]
        layout = {"xaxis": {"title": {"text": _WORDS[name].partition(",")[0]}, "range": scale},
                  "yaxis": {"title": {"text": "replicates"}}, "bargap": 0.05}  # fmt: skip
        charts.append(Chart(f"{_WORDS[name]}; p = {check.p_value:.2g}", [bars, mark], layout, 240))
        drawn = f"{check.replicates.mean():.3f} ± {check.replicates.std():.3f}"
        rows.append((_WORDS[name], f"{check.recorded:.3f}", drawn, f"{check.p_value:.2g}"))
        if check.p_value < _SURPRISING:
            odd.append(_WORDS[name].partition(",")[0])
    words = ["Bars are replicates, each trial drawn anew from its posterior predictive "
             "distribution; the line is what was recorded."]  # fmt: skip
    words.append(f"Not as recorded (p below {_SURPRISING}): {'; '.join(odd)}." if odd
                 else "In none of these does the recorded activity stand apart.")  # fmt: skip
    table = Table(("", "recorded", "replicates", "p"), rows)
    return Section(title, words, charts, [table])
