"""The files of a run that learning fills: ``weights.pt`` and ``history.csv``."""

from __future__ import annotations

import json

from seqvae.learning.observers.base import Observer, Stage
from seqvae.storage.files import RunFiles, write_text
from seqvae.storage.history import HistoryTable
from seqvae.storage.weights import save_weights, steps_taken
from seqvae.storage.yaml_json import read_json


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
        self._history = HistoryTable()

    def begin(self, stage: Stage) -> None:
        """Make the history hold the rows up to the checkpoint that learning goes on from."""
        if self.begins_anew:
            self._reached = steps_taken(self.run.weights)
        else:
            self._history.lay_out(stage.rows)
            self._history.write(self.run.history)

    def best(self, stage: Stage, score: float, *, is_final: bool = False) -> None:
        """Save the weights, if that is no step back."""
        self._reached = 0 if is_final else self._reached
        if stage.step >= self._reached:
            save_weights(self.run.weights, stage.model, step=stage.step, score=score)

    def progress(self, stage: Stage) -> None:
        """Write the rows, if some are new."""
        if stage.step < self._reached or len(stage.rows) == self._history.num_rows:
            return
        if self.begins_anew:  # of such a learner the last row may have got more
            self._history.lay_out(stage.rows)
        else:
            self._history.follow(stage.rows)
        self._history.write(self.run.history)

    def end(self, stage: Stage) -> None:
        """Write the rows, of which the last may have got more columns; note that learning ended."""
        if self.begins_anew:
            self._history.lay_out(stage.rows)
            self._history.write(self.run.history)
        if self.run.provenance.exists():
            note = read_json(self.run.provenance, str(self.run.provenance)) | {"finished": True}
            write_text(self.run.provenance, json.dumps(note, indent=2) + "\n")
