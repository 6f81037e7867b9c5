"""What a cross-validation of subsamples says: how many more trials?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqvae.crossvalidation.growth import growth_words
from seqvae.pages.charts import band, line, plain
from seqvae.pages.section import Chart, Section, Trace
from seqvae.plotting.dimensions import UNITS, swept_of
from seqvae.plotting.style import SERIES


def check_growth(summary: Mapping[str, Any]) -> None:
    """Refuse what cannot be drawn, by whatever error it comes to."""
    if "growth" not in summary:
        return
    told = summary["growth"]
    growth_words(told, summary["unit"])
    for entry in told["models"].values():
        assert len(told["trials"]) == len(entry["score"]) == len(entry["chosen_dim"]) > 0
        curve = [entry["curve"][name] for name in ("trials", "middle", "low", "high")]
        np.array([told["trials"], entry["score"], entry["chosen_dim"]], dtype=np.float64)
        np.array(curve, dtype=np.float64)
        for ahead in entry["ahead"]:
            np.array([ahead["trials"], *ahead["dim"].values()], dtype=np.float64)


def growth_section(summary: Mapping[str, Any]) -> Section:
    """Draw scores and chosen sizes against trials, and say what more would bring."""
    told, swept = summary["growth"], swept_of(summary)
    scores: list[Trace] = []
    sizes: list[Trace] = []
    trials = np.array(told["trials"], dtype=np.float64)
    for i, (name, entry) in enumerate(told["models"].items()):
        color = SERIES[i % len(SERIES)]
        at, middle, low, high = (
            np.array(entry["curve"][key], dtype=np.float64)
            for key in ("trials", "middle", "low", "high")
        )
        scores += band(at, low, high, color=color)
        scores.append(line(at, middle, color=color, name=name, in_legend=True))
        measured = np.array(entry["score"], dtype=np.float64)
        scores.append(line(trials, measured, color=color, name=f"{name}: measured", mode="markers"))
        chosen = np.array(entry["chosen_dim"], dtype=np.float64)
        sizes.append(line(trials, chosen, color=color, name=name, mode="lines+markers",
                          in_legend=True))  # fmt: skip
        ahead = np.array([one["trials"] for one in entry["ahead"]], dtype=np.float64)
        low, middle, high = (
            np.array([one["dim"][end] for one in entry["ahead"]], dtype=np.float64)
            for end in ("low", "middle", "high")
        )
        sizes += band(ahead, low, high, color=color)
        sizes.append(line(ahead, middle, color=color, name=f"{name}: ahead", dash="dot",
                          mode="lines+markers"))  # fmt: skip
    ticks = sorted({*told["trials"], *(one["trials"] for entry in told["models"].values()
                                       for one in entry["ahead"])})  # fmt: skip
    axis = {"title": {"text": "trials"}, "type": "log", "tickvals": ticks, "ticktext": ticks}
    charts = [
        Chart("score against trials", scores,
              {"xaxis": axis, "yaxis": {"title": {"text": plain(UNITS[summary["unit"]])}}}),
        Chart(f"chosen {swept} against trials", sizes,
              {"xaxis": axis, "yaxis": {"title": {"text": plain(swept)}, "rangemode": "tozero"}}),
    ]  # fmt: skip
    words = [f"{sentence}." for sentence in growth_words(told, summary["unit"])]
    level = f"{told['level']:.0%}".replace("%", " %")
    note = (
        f"Bands of {level} for what a cross-validation of so many trials would answer, "
        f"extrapolated by {told['law']}; they know of no other session, nor of sizes beyond the "
        "grid."
    )
    return Section("How many more trials?", words, charts, notes=[note])
