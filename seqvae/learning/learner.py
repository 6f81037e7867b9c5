"""What the verb ``fit`` knows of a learner."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from inspect import isabstract
from pathlib import Path
from typing import Any, ClassVar, cast

from seqvae.compute.ranks import Place
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.learning.observers import Observer, run_observers
from seqvae.models import Model
from seqvae.storage.files import RunFiles


class Learner(ABC):
    """Learns the parameters of a model; members are frozen dataclasses.

    Attributes:
        learns: the class of models that it can learn.
        begins_from_model: whether the parameters of a model that has begun are where it begins.
        resumes: whether it goes on from a checkpoint; else a resumed run begins anew.
        reads: the arguments of ``NeuralData`` that say how it is given the training trials.
        refit: whether it learns again from validation trials, too, once these have selected.
    """

    learns: ClassVar[type]
    begins_from_model: ClassVar[bool] = False
    resumes: ClassVar[bool] = False
    reads: ClassVar[frozenset[str]] = frozenset()
    refit: bool = False

    @property
    def selects(self) -> bool:
        """Whether validation trials choose what is kept; else they are scored only."""
        return False

    @abstractmethod
    def check(self, model: Any, data: NeuralData, *, checkpoint: Path | None = None) -> None:
        """Refuse settings that do not fit model and data, before anything is written.

        Args:
            model: the model to learn.
            data: the data to learn from.
            checkpoint: file that learning will go on from.

        Raises:
            InputError: naming the setting and what it needs.
        """

    def place(self) -> Place:
        """Return which of the processes that were started to learn together this one is."""
        return Place()

    def learned_data(self, data: NeuralData) -> NeuralData:
        """Return data whose training trials are all those that the fit has learned from in the end.

        Args:
            data: the data to learn from.
        """
        return data

    def observers_of(self, run: RunFiles) -> tuple[Observer, ...]:
        """Return those who make a run folder of what is learned."""
        return run_observers(run, begins_anew=not self.resumes)

    @abstractmethod
    def learn(
        self,
        model: Any,
        data: NeuralData,
        *,
        observers: Sequence[Observer] = (),
        checkpoint: Path | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        """Learn ``model``; leaves it with the best parameters, and touches nothing else.

        Args:
            model: the model; its ``seed`` governs the noise.
            data: the data to learn from.
            observers: who hears of it, such as a run folder.
            checkpoint: file to go on from, which must pass ``check``.
            config: the resolved configuration, for loggers.
        """


LearnerFactory = Callable[..., Learner]
"""A class of learners, or ``functools.partial`` of one: what is not said is as suits the model."""


def default_learner(model_class: type) -> type[Learner]:
    """Return the learner of a class of models.

    Raises:
        InputError: if it is no class of models that can be learned.
    """
    for kind in _members():
        if issubclass(model_class, kind.learns):
            return kind
    raise InputError(
        f"model: no learner knows {model_class.__name__}; derive it from LatentVariableModel"
    )


def is_factory(learner: object) -> bool:
    """Return whether something is a ``LearnerFactory``."""
    cls = learner.func if isinstance(learner, partial) else learner
    return isinstance(cls, type) and issubclass(cls, Learner)


def learner_of(learner: object, model_class: type) -> Learner:
    """Return a learner as it is, or built; of None that of a class of models, with its defaults.

    Args:
        learner: a ``Learner``, a ``LearnerFactory`` or None.
        model_class: what it is to learn.

    Raises:
        InputError: if it is nothing of these.
    """
    if learner is None:
        return default_learner(model_class)()
    if is_factory(learner):
        learner = cast("LearnerFactory", learner)()
    if not isinstance(learner, Learner):
        raise InputError(
            "learner must be a Learner, e.g. GradientLearner(partial(Trainer, max_epochs=50)), or "
            f"functools.partial of a class of Learner, got {type(learner).__name__}"
        )
    return learner


def without_progress(learner: Learner) -> Learner:
    """Return the learner without its progress bar, for those that work beside others."""
    if dataclasses.is_dataclass(learner) and hasattr(learner, "progress"):
        return dataclasses.replace(learner, progress=False)
    return learner


def check_pair(learner: Learner, model: Model) -> None:
    """Refuse a model that a learner cannot learn.

    Raises:
        InputError: naming both, and the learner that can.
    """
    if isinstance(model, learner.learns):
        return
    others = [kind.__name__ for kind in _members() if isinstance(model, kind.learns)]
    cure = f"; use {' or '.join(others)}" if others else ""
    raise InputError(
        f"learner: {type(learner).__name__} cannot learn a {type(model).__name__}{cure}"
    )


def _members() -> Iterator[type[Learner]]:
    """Every learner there is, those that only serve others as a base left out."""
    kinds: list[type[Learner]] = Learner.__subclasses__()
    for kind in kinds:
        kinds += kind.__subclasses__()
        if not isabstract(kind):
            yield kind
