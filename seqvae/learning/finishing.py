"""What every learner without Lightning leaves behind: a history, scores and figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from seqvae.data import NeuralData
from seqvae.models import Model
from seqvae.storage.files import RunFiles, atomic_path, write_text

Row = dict[str, float | int]


def write_history(run: RunFiles, rows: Sequence[Row]) -> None:
    """Write ``history.csv``: a row for each step, a column for each name in any of them."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_text(run.history, text.getvalue())


def write_figures(model: Model, data: NeuralData, run: RunFiles, rows: Sequence[Row]) -> None:
    """Draw the figures of a model into the run folder."""
    from seqvae.learning.figures import draw

    for name, figure in draw(model, data, list(rows)).items():
        with atomic_path(run.figures / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")
        figure.clear()
