"""A cell of the grid, and the job of it: all that its result depends on."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from seqvae.crossvalidation.division import Division
from seqvae.data import NeuralData
from seqvae.distributions.kinds import DataKind
from seqvae.learning import Learner
from seqvae.models import Model
from seqvae.runs import ModelFactory

MEAN_RATE = "mean_rate"


@dataclass(frozen=True)
class Cell:
    """Where a job stands in the grid.

    Attributes:
        model: its name; ``mean_rate`` for dimension 0, which all models share.
        dim: its size, the value of what is swept.
        trial_fold: the rows left out.
        neuron_fold: the neurons left out; None: one fit serves all folds of neurons.
        seed: the how-many-eth repetition.
    """

    model: str
    dim: int
    trial_fold: int
    neuron_fold: int | None
    seed: int


class Found(NamedTuple):
    """What a search found in a cell.

    Attributes:
        factory: of the model with the best settings.
        model: that was learned with them.
        fit: the number of the best fit; 0: the model as it was given.
        gain: of its score over that of fit 0, on the validation trials; None if that is unknown.
        settings: by dotted name.
    """

    factory: ModelFactory
    model: Model
    fit: int
    gain: float | None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Search(ABC):
    """A search of settings in a cell, on its training rows only.

    Attributes:
        num_fits: in each cell.
        space: what may vary, as it was given; None: what the model has by default.
    """

    num_fits: int
    space: Mapping[str, Any] | None = None

    @abstractmethod
    def found(
        self, data: NeuralData, model: ModelFactory, learner: Learner, *, folder: Path, seed: int
    ) -> Found:
        """Return what is best on the validation trials of the training rows.

        Args:
            data: the training rows; nothing else of the recording is there.
            model: as it was given, of the size of the cell.
            learner: as it was given.
            folder: where the search is kept until it is done.
            seed: of the search and of its fits.
        """


@dataclass(frozen=True, eq=False)
class Job:
    """A cell, and all that its result depends on.

    Attributes:
        cell: where it stands.
        facts: what the key is made of: checksum of the data, configs, folds, version.
        factory: of the model; None: the mean-rate model, or a factorisation of a matrix.
        learner: how it is learned; None likewise.
        division: of the recording.
        kind: of the data.
        num_samples: posterior samples for the score.
        k_shot: trials of the few-shot score; 0: none.
        settings: of ``NeuralData``.
        folder: where the result goes.
        keeps_weights: whether what is learned is kept, too, for the next size to begin from.
        before: the job of the next smaller size, where learning begins; None: anew.
        members: of an ensemble the jobs whose models it is made of; else none.
        argument: of the factory that the size is; None: the one that the class names.
        search: of the settings of the model; None: as they are.
    """

    cell: Cell
    facts: Mapping[str, Any]
    factory: ModelFactory | None
    learner: Learner | None
    division: Division
    kind: DataKind
    num_samples: int
    k_shot: int
    settings: Mapping[str, Any]
    folder: Path
    keeps_weights: bool = False
    before: Job | None = None
    members: tuple[Job, ...] = ()
    argument: str | None = None
    search: Search | None = None

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits of cell and facts: what has the same key has the same result."""
        before = None if self.before is None else self.before.key
        text = json.dumps([asdict(self.cell), self.facts, before], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def path(self) -> Path:
        """The file of the result."""
        return self.folder / "cells" / f"{self.key}.json"

    @property
    def weights(self) -> Path:
        """The file of what was learned."""
        return self.path.with_suffix(".pt")

    @property
    def study(self) -> Path:
        """The folder of the search, until it is done."""
        return self.path.with_suffix(".study")

    @property
    def seed(self) -> int:
        """The seed of model and data: a function of the key, whoever does the job and when."""
        return int(self.key, 16) >> 1

    @property
    def neuron_folds(self) -> list[int | None]:
        """The folds of neurons that the job scores."""
        if self.division.scheme == "speckled":
            return [None]
        if self.cell.neuron_fold is not None:
            return [self.cell.neuron_fold]
        return list(range(self.division.num_neuron_folds))
