"""All sections of a page, in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from seqvae.pages.activity import rasters, traces
from seqvae.pages.checks import predictive
from seqvae.pages.comparison import comparison
from seqvae.pages.conditions import behavior, psth
from seqvae.pages.dimensions import dimensions
from seqvae.pages.fit import is_it_better, learning, provenance, what_was_fitted
from seqvae.pages.growth import growth_section
from seqvae.pages.latents import inferred_inputs, latents
from seqvae.pages.neurons import neuron_scores
from seqvae.pages.panel import panel
from seqvae.pages.results import Result
from seqvae.pages.section import Part, Section


def sections(
    results: Sequence[Result], crossvalidation: Mapping[str, Any] | None = None, folder: str = ""
) -> list[Part]:
    """Return the parts of a page: a comparison, a cross-validation, and each run.

    Args:
        results: the runs, with names that differ.
        crossvalidation: its summary.
        folder: of the cross-validation.
    """
    parts = []
    if len(results) > 1:
        parts.append(Part("Comparison of the runs", [comparison(results)]))
    if crossvalidation is not None:
        parts_of = [dimensions(crossvalidation, folder), panel(crossvalidation)]
        parts_of.append(growth_section(crossvalidation) if "growth" in crossvalidation else None)
        parts.append(Part("Cross-validation", [one for one in parts_of if one is not None]))
    return parts + [Part(result.name, _of_run(result)) for result in results]


def _of_run(result: Result) -> list[Section]:
    start = [what_was_fitted(result), is_it_better(result), learning(result)]
    if result.posterior is None:
        notes = [*result.missing, "Rasters, latents and all else that needs the data is left out."]
        return [*start, Section("What the data would show", notes=notes), provenance(result)]
    is_timed = result.posterior.sizes["time"] > 1
    timed = (rasters, traces, latents, psth, inferred_inputs) if is_timed else ()
    shown = [build(result) for build in (*timed, behavior, neuron_scores, predictive)]
    if not is_timed:
        start.append(Section("Over time", notes=["Each trial is one bin: there is no time."]))
    return [*start, *shown, provenance(result)]
