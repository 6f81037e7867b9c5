"""Draw a figure of a learned model, as PDF, SVG or PNG."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqvae.data.front import BinWidth, DataLike
from seqvae.errors import InputError
from seqvae.runs import Run
from seqvae.runs.figures import FigureName, Figures
from seqvae.storage.files import atomic_path
from seqvae.verbs.opening import check_out, open_run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".pdf", ".svg", ".png")


def plot(
    run: Run | str,
    data: DataLike | None = None,
    *,
    figure: FigureName = "rasters_and_rates",
    bin_width: BinWidth = None,
    split: str | None = None,
    out: str | None = None,
    trust: bool = False,
) -> Figure:
    """Draw a figure of a fitted model; ``run.plot.psth()`` and so on in Python.

    Args:
        run: a run or its folder.
        data: other data than the run was trained on, as for ``infer``; None takes those.
        figure: which one. ``psth`` has the mean of each condition, recorded and inferred; the
            others are those of the run folder.
        bin_width: seconds per bin, where ``data`` is an array or a file.
        split: the trials; None takes those that ``evaluate`` scores.
        out: file to write, in the format that its name ends with: .pdf, .svg or .png.
        trust: allow the run's config to import classes from anywhere.

    Returns:
        A ``matplotlib.figure.Figure``, which belongs to no window.

    Raises:
        InputError: for a figure that the run has nothing for, or anything else the user can mend.
    """
    if out is not None:
        check_out(out, *FORMATS)
    opened = open_run(run, data, trust, bin_width=bin_width)
    recording = opened.data.recording
    if figure != "learning_curves" and (recording.image_shape or recording.num_time_bins == 1):
        raise InputError(
            f"figure: {figure} is over time, which these data do not have; "
            "their figures are in the run folder, and learning_curves can be drawn"
        )
    is_curves = figure == "learning_curves"
    figures = Figures(
        opened.model,
        opened.data,
        history=opened.run.history,
        split=None if is_curves else opened.split_of(split),
        seed=opened.run.seed,
    )
    drawn = figures.draw(figure)
    if out is not None:
        with atomic_path(out) as temporary:
            drawn.savefig(temporary, format=Path(out).suffix[1:].lower())
    return drawn


def completed(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Name the file of a command that names none: that of the figure, in the folder of figures."""
    name = arguments.get("figure") or "rasters_and_rates"
    out = arguments.get("out") or str(Path(str(arguments["run"])) / "figures" / f"{name}.pdf")
    return {**arguments, "out": out}


def shown(figure: Figure, arguments: Mapping[str, Any]) -> str:
    """Tell where the figure lies."""
    return f"figure: {arguments['out']}"
