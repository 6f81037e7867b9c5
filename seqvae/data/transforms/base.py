"""The family of transforms: what is done to a recording before it is split and learned from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from seqvae.data.recording import Recording
from seqvae.errors import InputError


class Transform(ABC):
    """A function from recordings to recordings. Members are frozen dataclasses of its settings.

    One that takes numbers from the data (a mean, which neurons fire) has ``learns`` True until it
    has learned them, from training trials alone; with these numbers it is a function as any other.
    What it asks of all trials alike (which units are one), it settles by ``learned``, too.
    """

    @property
    def learns(self) -> bool:
        """Whether it has yet to learn from training trials."""
        return False

    def learned(self, recording: Recording, trials: Int[np.ndarray, " chosen"]) -> Transform:
        """Return the transform with what it learns of some trials; itself, if it learns nothing."""
        return self

    @abstractmethod
    def __call__(self, recording: Recording) -> Recording:
        """Return another recording; one that still ``learns`` does so from all trials.

        Raises:
            InputError: if the recording is not what is transformed here.
        """


def check_transforms(transforms: Any) -> list[Transform] | None:
    """Return transforms in their order, those that learn behind all others.

    Raises:
        InputError: for anything else than a list of transforms in such an order.
    """
    if transforms is None:
        return None
    if not isinstance(transforms, list | tuple):
        raise InputError(
            f"transforms must be a list such as [Rebin(0.02)], got {type(transforms).__name__}"
        )
    before = None
    for transform in transforms:
        if not isinstance(transform, Transform):
            raise InputError(
                f"transforms must hold transforms such as Rebin(0.02), got {transform!r}"
            )
        if before is not None and not transform.learns:
            name, first = type(transform).__name__, type(before).__name__
            raise InputError(
                f"transforms: {first} learns from training trials, which are known once the "
                f"recording is split; put it behind {name}"
            )
        before = transform if transform.learns else None
    return list(transforms)


class Transformed(NamedTuple):
    """A recording after transforms, and these with all that they took from it."""

    recording: Recording
    settled: tuple[Transform, ...]


def transformed(recording: Recording, transforms: Sequence[Transform] | None) -> Transformed:
    """Return what the transforms that do not learn from training trials make of a recording."""
    settled: list[Transform] = []
    for transform in transforms or ():
        if not transform.learns:
            settled.append(transform.learned(recording, np.arange(recording.num_trials)))
            recording = settled[-1](recording)
    return Transformed(recording, tuple(settled))


def learners(transforms: Sequence[Transform] | None) -> list[Transform]:
    """Return the transforms that have yet to learn from training trials."""
    return [transform for transform in transforms or () if transform.learns]
