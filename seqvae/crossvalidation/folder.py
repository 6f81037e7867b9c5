"""The folder of a cross-validation: whose cells it holds, and who works in it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqvae.compute.termination import terminable
from seqvae.errors import InputError, Terminated
from seqvae.storage.files import atomic_path, check_writable, disk_errors, is_empty, write_text
from seqvae.storage.shards import Shard, locked_share
from seqvae.storage.yaml_json import read_json

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def held(folder: Path, checksum: str, shard: Shard) -> Iterator[None]:
    """Keep other commands from the same share of the cells, and tell how to go on."""
    with terminable(), locked_share(folder, shard, key="out_dir"):
        open_folder(folder, checksum)
        try:
            yield
        except Terminated as end:
            raise Terminated(
                "terminated; the cells that are done are kept, and the same command goes on"
            ) from end


def open_folder(folder: Path, checksum: str) -> None:
    """Make the folder, or refuse one that holds something else.

    Raises:
        InputError: if it holds the cells of other data, or anything but a cross-validation.
    """
    mark = folder / "data.json"
    if not is_empty(folder):
        try:
            former = read_json(mark, str(mark))["checksum"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"out_dir {str(folder)!r} is not empty and no cross-validation; give a new folder"
            ) from error
        if former != checksum:
            raise InputError(
                f"out_dir {str(folder)!r} holds the cells of other data; give a new folder"
            )
    write_text(mark, json.dumps({"checksum": checksum}) + "\n")
    with disk_errors(f"out_dir {str(folder)!r}"):
        (folder / "cells").mkdir(exist_ok=True)
    check_writable(folder / "cells")


def write_results(
    folder: Path,
    tables: Sequence[pd.DataFrame],
    summary: dict[str, Any],
    *,
    tuned: pd.DataFrame | None = None,
) -> None:
    """Write scores, summary and figures; each file appears whole or not at all.

    Args:
        folder: of the cross-validation.
        tables: the scores at each fraction of the trials, the whole last.
        summary: of it all.
        tuned: the settings that were best in each cell.
    """
    from seqvae.plotting import dimension_curve, dimension_panel, growth_curve

    figures = {"curve.png": dimension_curve}
    write_text(folder / "scores.csv", _csv(tables[-1]))
    if tuned is not None:
        write_text(folder / "tuned.csv", _csv(tuned))
    if "growth" in summary:
        import pandas as pd

        fractions = summary["growth"]["fractions"]
        parts = [one.assign(fraction=part) for one, part in zip(tables, fractions, strict=True)]
        write_text(folder / "subsamples.csv", _csv(pd.concat(parts)))
        figures["growth.png"] = growth_curve
    if "panel" in summary:
        figures["panel.png"] = dimension_panel
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    for name, draw in figures.items():
        with atomic_path(folder / name) as temporary:
            draw(summary).savefig(temporary, format="png")


def replaced_scores(folder: Path, table: pd.DataFrame) -> int:
    """Return how many scores of the table in a folder are not those of another one.

    Args:
        folder: of the cross-validation.
        table: of scores, that is to be written.
    """
    import pandas as pd

    def scores(rows: pd.DataFrame) -> dict[tuple[str, ...], float]:
        known = rows[[*names, "score"]].dropna(subset="score")
        return {
            (str(model), *(str(float(one)) for one in place)): float(score)
            for model, *place, score in known.itertuples(index=False)
        }

    names = ["model", "dim", "trial_fold", "neuron_fold", "seed"]
    try:
        former = scores(pd.read_csv(folder / "scores.csv"))
    except (OSError, ValueError, KeyError):  # none, or none of ours
        return 0
    now = scores(table)
    return sum(
        not math.isclose(score, now.get(place, math.nan), rel_tol=1e-9)
        for place, score in former.items()
    )


def replaced_words(folder: Path, number: int) -> str:
    """Say what became of former scores."""
    return (
        f"{folder / 'scores.csv'}: {number} former scores are not part of this grid and are "
        "replaced; their cells are kept, and their command writes them again"
    )


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n")
