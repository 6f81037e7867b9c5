"""The files of a run that learning fills: ``weights.pt`` and ``history.csv``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from seqvae.learning.observers.base import MetricsRow, Observer, Stage
from seqvae.storage.files import RunFiles, write_text
from seqvae.storage.weights import save_weights, steps_taken


class RunFolder(Observer):
    """Writes the best weights and the history; each file appears whole or not at all.

    Args:
        run: the run folder.
        begins_anew: whether a learner begins anew where a fit did not end; what that one has
            reached stays until this one has, too.
    """

    def __init__(self, run: RunFiles, *, begins_anew: bool = False) -> None:
        self.run = run
        self.folder = run.folder
        self.checkpoint = None if begins_anew else run.last_checkpoint
        self.begins_anew = begins_anew
        self._reached = 0
        self._columns: list[str] = []
        self._lines = ""
        self._num_rows = 0

    def begin(self, stage: Stage) -> None:
        """Make the history hold the rows up to the checkpoint that learning goes on from."""
        if self.begins_anew:
            self._reached = steps_taken(self.run.weights)
        else:
            self._lay_out(stage.rows)
            write_text(self.run.history, self._lines)

    def best(self, stage: Stage, score: float, *, is_final: bool = False) -> None:
        """Save the weights, if that is no step back."""
        self._reached = 0 if is_final else self._reached
        if stage.step >= self._reached:
            save_weights(self.run.weights, stage.model, step=stage.step, score=score)

    def progress(self, stage: Stage) -> None:
        """Write the rows, if some are new."""
        if stage.step >= self._reached and len(stage.rows) > self._num_rows:
            self._write(stage.rows)

    def end(self, stage: Stage) -> None:
        """Write the rows; the last one may have got more columns."""
        if self.begins_anew:
            self._lay_out(stage.rows)
            write_text(self.run.history, self._lines)

    def _write(self, rows: Sequence[MetricsRow]) -> None:
        """Add lines; lay out anew what has a new column, or may have changed."""
        new = rows[self._num_rows :]
        if self.begins_anew or any(set(row) - set(self._columns) for row in new):
            self._lay_out(rows)
        else:
            self._lines += self._text(new)
            self._num_rows = len(rows)
        write_text(self.run.history, self._lines)

    def _lay_out(self, rows: Sequence[MetricsRow]) -> None:
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        self._lines = ",".join(self._columns) + "\r\n" + self._text(rows)
        self._num_rows = len(rows)

    def _text(self, rows: Sequence[MetricsRow]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns).writerows(rows)
        return text.getvalue()
