"""A fit of which nothing is written, and the run that comes of it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from seqvae.data import NeuralData
from seqvae.errors import InputError, Terminated
from seqvae.models import Model
from seqvae.runs.origin import Origin
from seqvae.runs.provenance import provenance
from seqvae.runs.run import Run
from seqvae.storage.files import RunFiles, check_writable, is_empty, write_text
from seqvae.storage.history import write_history
from seqvae.storage.locking import locked
from seqvae.storage.weights import save_weights
from seqvae.types import DataSpec, Moments


class RunInMemory(Run):
    """A fitted model that lies in no folder; it answers as any run does.

    Args:
        model: with its best weights.
        data: what it was fitted to.
        config: the complete config tree of the fit.
        provenance: where it came from.
        history: one row of metrics for each validation or iteration.
    """

    def __init__(
        self,
        model: Model,
        data: NeuralData,
        *,
        config: Mapping[str, Any],
        provenance: Mapping[str, Any],
        history: Sequence[Mapping[str, float | int]],
    ) -> None:
        self.config, self.provenance = dict(config), dict(provenance)
        self._history = [dict(row) for row in history]
        self.remember(model, data)

    def __repr__(self) -> str:
        return f"Run in memory, of {type(self._model).__name__}"

    @property
    def folder(self) -> None:
        """None: it lies nowhere."""
        return None

    @property
    def files(self) -> RunFiles:
        """Refuse to name files.

        Raises:
            InputError: always.
        """
        raise InputError("the run is in memory only; write it first: run.save(folder)")

    @property
    def history(self) -> list[dict[str, float | int]]:
        """One row of metrics for each validation or iteration."""
        return self._history

    @property
    def spec(self) -> DataSpec:
        """The facts of the data that the model was built for."""
        return self.model().spec

    def save(self, folder: str | os.PathLike[str]) -> Run:
        """Write the run to a new folder; it can then be evaluated, repeated, but not resumed.

        Raises:
            InputError: if the folder is not empty, or cannot be written.
        """
        files = RunFiles(Path(folder))
        with locked(files.folder, key="folder"):
            if not is_empty(files.folder):
                raise InputError(f"folder {str(folder)!r} is not empty; give a new one")
            check_writable(files.folder)
            return self.write(files)

    def write(self, files: RunFiles) -> Run:
        """Write the files of the run, its config last: without one a folder is no run."""
        files.config.unlink(missing_ok=True)
        step = int(self._history[-1]["step"]) if self._history else 0
        save_weights(files.weights, self.model(), step=step, score=float("nan"))
        write_history(files.history, self._history)
        note = {**self.provenance, "saved_from_memory": True}  # so that it is not resumed
        write_text(files.provenance, json.dumps(note, indent=2) + "\n")
        write_text(files.config, yaml.safe_dump(self.config, sort_keys=False))
        return Run(files.folder).remember(self.model(), self._data)


@dataclass(frozen=True)
class FitInMemory:
    """Takes the place of a ``FitFolder`` where nothing is to be written.

    Attributes:
        is_first: whether this process, of several, is the one that tells.
    """

    is_first: bool = True

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold nothing.

        Raises:
            Terminated: if terminated.
        """
        try:
            yield
        except Terminated as end:
            raise Terminated("terminated; nothing was written, so nothing is left") from end

    def checkpoint(self, config: Mapping[str, Any], data: NeuralData) -> None:
        """Return None: learning begins."""

    def origin(self, *, trust: bool = False) -> None:
        """Return None: no former fit is there."""

    def write(
        self,
        config: Mapping[str, Any],
        data: NeuralData,
        *,
        moments: Moments,
        origin: Origin | None = None,
    ) -> None:
        """Write nothing."""

    def run(
        self,
        model: Model,
        data: NeuralData,
        *,
        config: Mapping[str, Any],
        origin: Origin | None,
        history: Sequence[Mapping[str, float | int]],
    ) -> Run:
        """Return what was learned as a run."""
        moments = (data.merged() if model.refitted else data).train_moments
        begun_from = None if origin is None else origin.note
        note = provenance(config, data, moments=moments, init_from=begun_from)
        return RunInMemory(model, data, config=config, provenance=note, history=history)
