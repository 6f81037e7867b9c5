"""What a cross-validation says: the score of each model against its dimension."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from seqvae.crossvalidation.intervals import gap_words
from seqvae.errors import InputError
from seqvae.pages.charts import MUTED, line, packed, plain
from seqvae.pages.growth import check_growth
from seqvae.pages.section import Chart, Section, Table, Trace
from seqvae.plotting.dimensions import UNITS, fold_words, swept_of
from seqvae.plotting.style import SERIES
from seqvae.storage.yaml_json import read_json


def read_summary(folder: str) -> dict[str, Any]:
    """Read the summary of a cross-validation.

    Raises:
        InputError: if the folder holds none, or none that can be drawn.
    """
    path = Path(folder) / "summary.json"
    if not path.is_file():
        raise InputError(
            f"crossvalidation {folder!r} holds no summary.json; give the out_dir of a "
            "cross-validation that is complete"
        )
    summary = read_json(path, str(path))
    try:
        models = summary["models"]
        for entry in models.values():
            assert len(entry["dims"]) == len(entry["mean"]) == len(entry["paired_se"]) > 0
            assert entry["chosen_dim"] in entry["dims"]
            np.array([entry["dims"], entry["mean"], entry["paired_se"]], dtype=np.float64)
        assert summary["unit"] in UNITS
        assert summary["best_model"] in models
        assert isinstance(summary["differences"], dict)
        for one in summary.get("panel", []):
            assert one["dimension"] is None or float(one["dimension"]) >= 0
            assert isinstance(one["estimator"] + one["assumes"], str)
            assert isinstance(one["details"], dict)
            among = [np.array(entry["confidence_set"], dtype=np.int64) for entry in models.values()]
            assert all(one.ndim == 1 and one.size for one in among)
        check_growth(summary)
    except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        raise InputError(f"{path} is no summary of a cross-validation; make it again") from error
    return summary


def dimensions(summary: Mapping[str, Any], folder: str) -> Section:
    """Draw scores against dimensions, and tell what was chosen."""
    models, unit, swept = summary["models"], UNITS[summary["unit"]], swept_of(summary)
    is_dimension = swept == "dimension"
    traces: list[Trace] = []
    for i, (name, entry) in enumerate(models.items()):
        color = SERIES[i % len(SERIES)]
        dims, means = np.array(entry["dims"]), np.array(entry["mean"])
        trace = line(dims, means, color=color, name=name, mode="lines+markers", in_legend=True)
        errors = entry.get("standard_error")
        if errors is not None and len(errors) == len(dims) and None not in errors:
            trace["error_y"] = {"type": "data", "array": packed(np.array(errors)),
                                "thickness": 1.2, "color": color}  # fmt: skip
        traces.append(trace)
        chosen = entry["dims"].index(entry["chosen_dim"])
        ring = line(dims[[chosen]], means[[chosen]], color=color, mode="markers",
                    name=f"{name}: chosen")  # fmt: skip
        ring["marker"] = {"symbol": "circle-open", "size": 15, "color": color, "line": {"width": 2}}
        traces.append(ring)
    zero = next(iter(models.values()))["mean"][0]
    every = sorted({dim for entry in models.values() for dim in entry["dims"]})
    ends = np.array([every[0], every[-1]])
    traces.append(line(ends, np.array([zero, zero]), color=MUTED, dash="dash", name="mean rate"))
    layout = {"xaxis": {"title": {"text": "latent dimension" if is_dimension else plain(swept)},
                        "tickvals": every},
              "yaxis": {"title": {"text": plain(unit)}}}  # fmt: skip
    caption = fold_words(summary) or "score against dimension"
    charts = [Chart(caption, traces, layout, height=400, is_wide=True)]
    best = summary["best_model"]
    words = [f"The best model is {best}, of {swept_of(models[best])} {models[best]['chosen_dim']}."]
    words += [
        f"It exceeds {name}, of {swept_of(models[name])} {models[name]['chosen_dim']}, "
        f"by {gap_words(gap)}."
        for name, gap in summary["differences"].items() if name in models
    ]  # fmt: skip
    words += [
        f"{_plural(swept_of(entry))} of {name} that the data do not exclude as its best at 95 %: "
        f"{', '.join(map(str, entry['confidence_set']))}."
        for name, entry in models.items() if "confidence_set" in entry
    ]  # fmt: skip
    rows = [
        (name, str(dim), f"{mean:.4f}", f"{mean - max(entry['mean']):+.4f} ± {error:.4f}",
         "chosen" if dim == entry["chosen_dim"] else "")
        for name, entry in models.items()
        for dim, mean, error in zip(entry["dims"], entry["mean"], entry["paired_se"], strict=True)
    ]  # fmt: skip
    header = ("model", swept, unit, "less the best of the model (paired)", "")
    notes = [f"{note[0].upper()}{note[1:]}." for note in summary.get("notes", [])]
    largest = [name for name, entry in models.items()
               if entry["chosen_dim"] == max(entry["dims"]) and len(entry["dims"]) > 2]  # fmt: skip
    if largest:
        notes.append(f"The chosen {swept} of {', '.join(largest)} is the largest of its grid; "
                     "larger ones may be better.")  # fmt: skip
    table = Table(header, rows, f"folder: {folder}")
    title = "How many dimensions?" if is_dimension else f"Which {swept}?"
    return Section(title, words, charts, [table], notes=notes)


def _plural(swept: str) -> str:
    return "Dimensions" if swept == "dimension" else f"Values of {swept}"
