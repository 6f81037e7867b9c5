"""Put what runs and a cross-validation say on one page; writes an HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seqvae.data.front import BinWidth, DataLike
from seqvae.errors import InputError
from seqvae.learning.observers import tell
from seqvae.pages import Result, gather, page, sections
from seqvae.pages.dimensions import read_summary
from seqvae.pages.page import check_libraries
from seqvae.pages.results import with_posterior
from seqvae.runs import Run
from seqvae.storage.files import write_text
from seqvae.verbs.evaluate import evaluate
from seqvae.verbs.opening import check_out, open_run, tell_replaced


def report(
    run: Run | str | Sequence[Run | str] = (),
    data: DataLike | None = None,
    *,
    crossvalidation: str | None = None,
    bin_width: BinWidth = None,
    split: str | None = None,
    num_samples: int = 50,
    out: str = "report.html",
    trust: bool = False,
) -> str:
    """Put what fitted models say on one page, which needs neither server nor network.

    What was fitted, whether it is better than simpler models, whether training went well, rasters
    beside rates, single trials, latents that can be turned, means by condition, behaviour, inferred
    inputs, the score of each neuron; of several runs a table and their paired differences. What is
    not at hand is left out, and the page says so.

    Args:
        run: a run or its folder, or several; on the command line ``--run a --run b``.
        data: other data than the runs were trained on, as for ``evaluate``; None takes those.
        crossvalidation: folder of a cross-validation, for its dimension curve.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        split: the trials; None takes those that ``evaluate`` scores.
        num_samples: posterior samples of the scores.
        out: HTML file to write.
        trust: allow the configs of the runs to import classes from anywhere.

    Returns:
        The name of the file.

    Raises:
        InputError: for a folder that is no run, runs on different recordings, or anything else the
            user can mend; nothing is written then.
    """
    check_libraries()
    check_out(out, ".html")
    tell_replaced(out)
    several = [run] if isinstance(run, Run | str) else list(run)
    if not several and crossvalidation is None:
        raise InputError("run: give a run (--run FOLDER), several, or --crossvalidation FOLDER")
    runs = [one if isinstance(one, Run) else Run(one) for one in several]
    summary = None if crossvalidation is None else read_summary(crossvalidation)
    results = [gather(one, name) for one, name in zip(runs, _names(runs), strict=True)]
    _check_same_data(results)
    results = [
        _looked_at(result, one, data, bin_width=bin_width, split=split, num_samples=num_samples,
                   trust=trust)
        for result, one in zip(results, runs, strict=True)
    ]  # fmt: skip
    parts = sections(results, summary, crossvalidation or "")
    write_text(out, page(parts, title=_title(results), subtitle=_subtitle(results)))
    return out


def _names(runs: Sequence[Run]) -> list[str]:
    """Call each run by its folder, or by as much of its path as sets it apart."""
    if len(runs) == 1:
        return [_model_name(runs[0])]
    paths = [Path("memory") if run.folder is None else Path(run.folder).resolve() for run in runs]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        names = ["/".join(path.parts[-2:]) for path in paths]
    if len(set(names)) < len(names):
        names = [f"{number}: {name}" for number, name in enumerate(names, start=1)]
    return names


def _model_name(run: Run) -> str:
    return gather(run, "").model


def _check_same_data(results: Sequence[Result]) -> None:
    """Refuse runs whose scores nobody should compare."""
    for other in results[1:]:
        if other.checksum != results[0].checksum:
            raise InputError(
                f"run: {results[0].folder!r} and {other.folder!r} were fitted to different "
                "recordings, so their scores do not compare; make a report of each"
            )


def _looked_at(
    result: Result,
    run: Run,
    data: DataLike | None,
    *,
    bin_width: BinWidth,
    split: str | None,
    num_samples: int,
    trust: bool,
) -> Result:
    """Score a run and infer its trials, as far as its data are at hand."""
    try:
        opened = open_run(run, data, trust, bin_width=bin_width)
        chosen = opened.split_of(split)
    except InputError as error:
        if data is not None or split is not None:
            raise
        tell([f"{result.folder}: {error}; its page has no scores"])
        return replace(result, missing=[f"{error}."])
    metrics = evaluate(
        run, data, bin_width=bin_width, split=chosen, num_samples=num_samples, per_neuron=True,
        trust=trust,
    )  # fmt: skip
    scored = replace(result, metrics=metrics, spec=opened.data.spec)
    return with_posterior(scored, opened.model, opened.data, split=chosen, seed=run.seed)


def _title(results: Sequence[Result]) -> str:
    if not results:
        return "Cross-validation"
    if len(results) == 1:
        folder = results[0].folder
        return f"{results[0].model}: {Path(folder).name}" if folder else results[0].model
    return f"{len(results)} models of one recording"


def _subtitle(results: Sequence[Result]) -> str:
    if not results:
        return ""
    source = results[0].config["data"]["init_args"].get("source")
    settings = source.get("init_args") if isinstance(source, Mapping) else None
    path = settings.get("path") if isinstance(settings, Mapping) else None
    return f"Data: {path}" if path else "Data: arrays in memory" if source is None else ""


def shown(out: str, arguments: Mapping[str, Any]) -> str:
    """Tell where the page lies, and how large it is."""
    return f"report: {out} ({Path(out).stat().st_size / 1e6:.1f} MB)"
