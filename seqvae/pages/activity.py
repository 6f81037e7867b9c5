"""Rasters beside rates, and single-trial traces."""

from __future__ import annotations

import numpy as np
import xarray as xr
from jaxtyping import Float

from seqvae.pages.charts import INK, MUTED, band, heat, line, over_time
from seqvae.pages.results import Result
from seqvae.pages.section import Chart, Section, Trace
from seqvae.plotting.arrangement import (
    activity_of,
    by_peak_time,
    heldin_of,
    most_different,
    on_event_time,
)
from seqvae.plotting.style import BLUE, expected_activity, some_trials, time_axis

MOST_TRIALS, MOST_NEURONS = 3, 4
MOST_ROWS, MOST_BINS = 300, 1500


def rasters(result: Result) -> Section:
    """Draw a few trials: what was recorded above what was inferred."""
    assert result.posterior is not None
    posterior, notes = _thinned(on_event_time(result.posterior))
    name, unit = expected_activity(posterior)
    order = by_peak_time(posterior, name)
    shown = some_trials(posterior, None, at_most=MOST_TRIALS)
    rows = {"recorded": activity_of(posterior), "inferred": posterior[name].values}
    if "true_rates" in posterior:
        rows["true"] = posterior["true_rates"].values
    edges, _ = time_axis(posterior)
    middle, counts = (edges[:-1] + edges[1:]) / 2, name == "rates"
    heldout = int((~heldin_of(posterior)).sum())
    charts = []
    for trial in shown:
        traces: list[Trace] = []
        for place, (source, values) in enumerate(rows.items()):
            is_recorded = source == "recorded"
            scale = _limits(
                values[shown] if is_recorded else rows["inferred"][shown], counts=counts
            )
            kind = ("counts" if is_recorded else "rates") if counts else "values"
            height = 1 / len(rows)
            bar = {"title": "spikes per bin" if kind == "counts" else unit,
                   "y": 1 - (place + 0.5) * height, "len": height * 0.95}  # fmt: skip
            picture = values[trial][:, order].T.astype(np.float64)
            traces.append(heat(picture, middle, limits=scale, kind=kind, axis=place + 1, bar=bar))
        layout = over_time([f"{source}: neuron" for source in rows], posterior, gap=0.06)
        caption = f"trial {posterior.trial.values[trial]}"
        charts.append(Chart(caption, traces, layout, height=170 * len(rows) + 70))
    words = ["Neurons are sorted by the time at which their mean inferred rate peaks."]
    if heldout:
        words[0] += f" The {heldout} on top were held out: inference never saw them."
    return Section("Rasters beside rates", words, charts, notes=notes)


def _thinned(posterior: xr.Dataset) -> tuple[xr.Dataset, list[str]]:
    """Leave out neurons and bins that no screen could show."""
    notes = []
    if posterior.sizes["neuron"] > MOST_ROWS:
        number = posterior.sizes["neuron"]
        chosen = np.linspace(0, number - 1, MOST_ROWS).astype(np.int64)
        posterior = posterior.isel(neuron=chosen)
        notes.append(f"Of {number} neurons {MOST_ROWS} are shown, evenly spread.")
    if posterior.sizes["time"] > MOST_BINS:
        notes.append(f"Of {posterior.sizes['time']} bins the first {MOST_BINS} are shown.")
        posterior = posterior.isel(time=slice(0, MOST_BINS))
    return posterior, notes


def _limits(values: Float[np.ndarray, "trial time neuron"], *, counts: bool) -> tuple[float, float]:
    """Ends of the scale: from 0 for counts, leaving out the highest half per cent."""
    if not np.isfinite(values).any():
        return 0.0, 1.0
    low, high = np.nanpercentile(values, [0.5, 99.5])
    return (0.0, float(max(high, 1.0))) if counts else (float(low), float(high))


def traces(result: Result) -> Section:
    """Draw the rates of a few neurons in a few trials, with their bands."""
    assert result.posterior is not None
    posterior = on_event_time(result.posterior)
    posterior = posterior.isel(time=slice(0, MOST_BINS))
    name, unit = expected_activity(posterior)
    mean, deviation = posterior[name].values, posterior[f"{name}_sd"].values
    activity, heldin = activity_of(posterior), heldin_of(posterior)
    shown = some_trials(posterior, None, at_most=MOST_TRIALS)
    edges, _ = time_axis(posterior)
    middle = (edges[:-1] + edges[1:]) / 2
    charts = []
    for neuron in most_different(mean[shown], MOST_NEURONS):
        drawn: list[Trace] = []
        top = float(np.nanmax(mean[shown][..., neuron] + deviation[shown][..., neuron]))
        for place, trial in enumerate(shown):
            axis = place + 1
            center, spread = mean[trial, :, neuron], deviation[trial, :, neuron]
            drawn += band(middle, center - spread, center + spread, color=BLUE, axis=axis)
            drawn.append(line(middle, center, color=BLUE, axis=axis, name="inferred"))
            if "true_rates" in posterior:
                truth = posterior["true_rates"].values[trial, :, neuron]
                drawn.append(line(middle, truth, color=INK, axis=axis, dash="dash", name="true"))
            drawn.append(_recorded(middle, activity[trial, :, neuron], top, axis, name == "rates"))
        layout = over_time([f"trial {posterior.trial.values[trial]}" for trial in shown], posterior)
        if name == "rates":
            for place in range(len(shown)):
                layout[f"yaxis{place + 1 if place else ''}"]["range"] = [-0.2 * top, 1.05 * top]
        word = "" if heldin[neuron] else ", held out"
        caption = f"neuron {posterior.neuron.values[neuron]}{word}: {unit}"
        charts.append(Chart(caption, drawn, layout, height=110 * len(shown) + 70))
    recorded = "ticks below are spikes" if name == "rates" else "dots are what was recorded"
    dashed = ", dashed the true rates" if "true_rates" in posterior else ""
    words = [f"Lines are inferred, with a band of one posterior standard deviation{dashed}; "
             f"{recorded}. Shown are the neurons whose rates vary most."]  # fmt: skip
    return Section("Single trials", words, charts)


def _recorded(
    middle: Float[np.ndarray, " time"],
    values: Float[np.ndarray, " time"],
    top: float,
    axis: int,
    counts: bool,
) -> Trace:
    """Ticks for spikes, dots for other values."""
    if not counts:
        return line(middle, values, color=MUTED, mode="markers", axis=axis, name="recorded")
    places = middle[np.nan_to_num(values) > 0]
    ticks = line(places, np.full(len(places), -0.1 * top), color=MUTED, mode="markers", axis=axis)
    ticks["marker"] = {"symbol": "line-ns-open", "size": 7, "color": MUTED, "line": {"width": 1}}
    return ticks
