"""Write what a fitted model says for other tools: benchmark, CSV, MATLAB."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from seqvae.analysis.conversions import write_mat, write_table
from seqvae.analysis.posterior import posterior_dataset
from seqvae.analysis.submission import Asked, submission, write_submission
from seqvae.data.front import BinWidth, DataLike
from seqvae.errors import InputError, nearest
from seqvae.runs import Run
from seqvae.verbs.opening import Opened, check_num_samples, check_out, open_run, tell_replaced

_ENDINGS = {"nlb": (".h5", ".hdf5"), "csv": (".csv",), "mat": (".mat",)}


def export(
    run: Run | str,
    data: DataLike | None = None,
    *,
    out: str,
    format: Literal["nlb", "csv", "mat"] | None = None,
    dataset_name: str | None = None,
    bin_width: BinWidth = None,
    split: str | None = None,
    num_samples: int = 50,
    variables: list[str] | None = None,
    trust: bool = False,
) -> dict[str, Any]:
    """Write what a fitted model says of trials as a file for other tools.

    ``nlb`` is a submission to the Neural Latents Benchmark: expected counts per bin of held-in and
    held-out neurons, of the trials to be scored and of those that were learned from. ``csv`` is a
    table of one variable, a row for each trial and bin. ``mat`` holds the whole posterior for
    MATLAB. ``infer`` writes netCDF, which xarray, MATLAB (``ncread``), R and Julia read.

    Args:
        run: a run or its folder.
        data: other data than the run was trained on, as for ``infer``; None takes those.
        out: file to write; it appears whole or not at all.
        format: of the file; None: as its name says, where .h5 is nlb.
        dataset_name: of nlb, the benchmark's name of the data set, such as mc_maze, or mc_maze_20
            for bins of 20 ms.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        split: the trials; None: of nlb those that ``evaluate`` scores, else all.
        num_samples: posterior samples that are averaged.
        variables: of csv the one to write, of mat those to write, such as factors; None: rates, and
            all.
        trust: allow the run's config to import classes from anywhere.

    Returns:
        ``out``, ``format``, and under ``arrays`` the shape of each array that was written.

    Raises:
        InputError: for anything the user can mend; nothing is written then.
    """
    chosen = _format_of(out, format)
    check_out(out, *_ENDINGS[chosen])
    tell_replaced(out)
    check_num_samples(num_samples)
    if chosen == "nlb" and not re.fullmatch(r"\w[\w.-]*", dataset_name or ""):
        raise InputError(
            "dataset_name: nlb needs the benchmark's name of the data set, such as mc_maze "
            f"(mc_maze_20 for bins of 20 ms), got {dataset_name!r}"
        )
    if chosen == "csv" and variables is not None and len(variables) != 1:
        raise InputError(f"variables: csv holds one variable, got {variables!r}; give one name")
    opened = open_run(run, data, trust, bin_width=bin_width)
    seed = opened.run.seed
    if chosen == "nlb":
        arrays = submission(*_asked(opened, split, trust=trust), num_samples=num_samples, seed=seed)
        write_submission(arrays, out, dataset_name=str(dataset_name))
        shapes = {f"{dataset_name}/{name}": values.shape for name, values in arrays.items()}
        return {"out": out, "format": chosen, "arrays": shapes}
    posterior = posterior_dataset(
        opened.model,
        opened.data,
        opened.data.trials(split or "all"),
        num_samples=num_samples,
        attributes={"model": type(opened.model).__name__, "run": opened.run.hash},
        seed=seed,
        work="export",
        variables=variables,
    )
    if chosen == "csv":
        name = variables[0] if variables else ("rates" if "rates" in posterior else "mean")
        write_table(posterior, out, variable=name)
        return {"out": out, "format": chosen, "arrays": {name: posterior[name].shape}}
    write_mat(posterior, out)
    shapes = {str(name): values.shape for name, values in posterior.data_vars.items()}
    return {"out": out, "format": chosen, "arrays": shapes}


def _format_of(out: str, chosen: str | None) -> str:
    """Return the format of a file, by its name if nothing else is said."""
    if chosen is not None:
        if chosen not in _ENDINGS:
            raise InputError(f"format {chosen!r} is unknown{nearest(chosen, _ENDINGS)}")
        return chosen
    suffix = Path(out).suffix.lower()
    for name, endings in _ENDINGS.items():
        if suffix in endings:
            return name
    raise InputError(
        f"out: {out!r} says no format; let it end with .h5 (nlb), .csv or .mat, or give --format"
    )


def _asked(opened: Opened, split: str | None, *, trust: bool) -> tuple[Asked, Asked]:
    """Return the trials that were learned from, and those to be scored, with their models.

    What validates is scored against the training trials, what tests against both, as in the
    benchmark's two phases.
    """
    word = opened.split_of(split)
    trials = opened.data.trials(word)
    model, own = opened.model, opened.data
    if opened.is_new:
        model, own = opened.run.model(trust=trust), opened.run.data(trust=trust)
    learned = ("train",) if word == "val" and not opened.is_new else ("train", "val")
    train = np.flatnonzero(np.isin(own.split, learned))
    if not opened.is_new and np.isin(trials, train).any():
        raise InputError(
            f"split: {word} has trials that were learned from; a submission is scored on others, "
            "val or test"
        )
    return Asked(model, own, train), Asked(opened.model, opened.data, trials)


def shown(summary: Mapping[str, Any], arguments: Mapping[str, Any]) -> str:
    """Tell where the file lies and what is in it."""
    lines = [f"  {name}: {' x '.join(map(str, size))}" for name, size in summary["arrays"].items()]
    return "\n".join([f"{summary['format']}: {summary['out']}", *lines])
