"""Who hears what a learner does: the files of a run, its figures, the alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqvae.data import NeuralData
from seqvae.models import Model

MetricsRow = dict[str, float | int]


@dataclass(frozen=True, eq=False)
class Stage:
    """How far a learner has come.

    Attributes:
        model: what is learned, with its parameters of now.
        data: what it is learned from.
        rows: the history so far, a row for each validation or iteration.
        number: epochs or iterations that are done.
        step: steps that are done; those of EM are its iterations.
        loggers: Lightning's loggers, where there are some.
        config: the complete config tree of the fit, where a learner was given it.
    """

    model: Model
    data: NeuralData
    rows: Sequence[MetricsRow] = ()
    number: int = 0
    step: int = 0
    loggers: Sequence[Any] = ()
    config: Mapping[str, Any] | None = None


class Observer:
    """Hears what a learner does and changes nothing of it; each method does nothing by itself.

    Of several processes that learn together the first one tells its observers. They are pickled on
    the way to it.

    Attributes:
        folder: where files of the fit may lie that are not the observers', such as loggers'.
        checkpoint: where a learner writes, now and then, all that it needs to go on; None: nowhere.
    """

    folder: Path | None = None
    checkpoint: Path | None = None

    def begin(self, stage: Stage) -> None:
        """Hear that learning begins, or goes on, with the rows of before."""

    def best(self, stage: Stage, score: float, *, is_final: bool = False) -> None:
        """Hear that the model has the best parameters so far.

        Args:
            stage: with these parameters.
            score: by which they are the best; NaN without a validation.
            is_final: whether learning ends with them.
        """

    def progress(self, stage: Stage) -> None:
        """Hear that an epoch has ended, or iterations of EM; there may be a new row."""

    def end(self, stage: Stage) -> None:
        """Hear that learning has ended; the model has the parameters that it is left with."""


class Observers(Observer):
    """Several observers as one.

    Args:
        observers: in the order in which they are told.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self.observers = tuple(observers)
        self.folder = next((one.folder for one in observers if one.folder), None)
        self.checkpoint = next((one.checkpoint for one in observers if one.checkpoint), None)

    def begin(self, stage: Stage) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.begin(stage)

    def best(self, stage: Stage, score: float, *, is_final: bool = False) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.best(stage, score, is_final=is_final)

    def progress(self, stage: Stage) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.progress(stage)

    def end(self, stage: Stage) -> None:
        """Tell all."""
        for observer in self.observers:
            observer.end(stage)


class HistoryRows(Observer):
    """Keeps the history in memory, as ``rows``."""

    def __init__(self) -> None:
        self.rows: list[MetricsRow] = []

    def progress(self, stage: Stage) -> None:
        """Take the rows so far."""
        self.rows = [dict(row) for row in stage.rows]

    def end(self, stage: Stage) -> None:
        """Take all rows; the last one may have got more columns."""
        self.progress(stage)
