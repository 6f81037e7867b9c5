"""Data of several sessions: each by itself, and batches of those neurons that trials have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Int

from seqvae.data.lazy import LazyActivity
from seqvae.data.loading import resident, taken
from seqvae.data.preparation import Prepared
from seqvae.data.splits import members
from seqvae.data.validation import OTHER
from seqvae.errors import InputError, nearest
from seqvae.types import Batch

Data = TypeVar("Data", bound="BySession")


class BySession(ABC):
    """The sessions of data that are split and made batches by whoever inherits this."""

    eval_batch_size: int
    _owners: dict[str, Int[np.ndarray, " neuron"]] | None = None

    @property
    def sessions(self) -> tuple[str, ...]:
        """The names of the sessions, where the recording is of several; else none."""
        names = self._get().recording.trial_sessions
        return () if names is None else tuple(dict.fromkeys(map(str, names.tolist())))

    def of_session(self: Data, name: str) -> Data:
        """Return these data with the trials of other sessions in no split, not even in "all".

        Raises:
            InputError: for a name that is none of ``sessions``.
        """
        if name not in self.sessions:
            valid = nearest(name, self.sessions) or "; the data are of one session, leave it out"
            raise InputError(f"session {name!r} is unknown{valid}")
        loaded = self._get()
        split = np.where(loaded.recording.trial_sessions == name, loaded.split, OTHER)
        return self._with(loaded._replace(split=split))

    def alone(self: Data, name: str) -> tuple[Data, tuple[int, ...]]:
        """Return the data of a session with its own neurons alone, and which those are.

        Its trials keep their indices. A model reads them as ``model.among(neurons)``.

        Raises:
            InputError: for a name that is none of ``sessions``.
        """
        data = self.of_session(name)
        loaded = data._get()
        recording, lengths = loaded.recording, loaded.recording.lengths
        neurons = members(recording.neuron_sessions, recording.num_neurons)[name]
        spec = loaded.spec.among(neurons.tolist())
        fields = {
            field: getattr(recording, field)[..., neurons]
            for field in ("rates", "neuron_ids", "neuron_sessions")
            if getattr(recording, field) is not None
        }
        activity: Any = recording.activity
        lazy = isinstance(activity, LazyActivity)
        fields["activity"] = activity.neurons(neurons) if lazy else activity[..., neurons]
        own = recording.changed(**fields, heldin=np.array(spec.heldin))
        trials = resident(own, spec, lengths)
        return data._with(loaded._replace(
            recording=own, spec=spec, split=loaded.split, resident=trials
        )), tuple(neurons.tolist())  # fmt: skip

    def neurons_of(self, trials: Int[np.ndarray, " chosen"]) -> tuple[int, ...] | None:
        """Return the neurons of those sessions that some trials are of; None: all."""
        recording = self._get().recording
        if recording.trial_sessions is None or recording.neuron_sessions is None:
            return None
        if self._owners is None:
            self._owners = members(recording.neuron_sessions, recording.num_neurons)
        there = set(recording.trial_sessions[trials].tolist())
        if there.issuperset(self._owners):
            return None
        owned = [n for name in there for n in self._owners.get(str(name), [])]
        return tuple(sorted(map(int, owned)))

    def each_session(
        self, trials: Int[np.ndarray, " chosen"]
    ) -> Iterator[tuple[Int[np.ndarray, " own"], Int[np.ndarray, " neuron"]]]:
        """Yield of each session the places of its trials among some, and its neurons."""
        recording = self._get().recording
        owners = members(recording.neuron_sessions, recording.num_neurons)
        labels = recording.trial_sessions
        labels = None if labels is None else labels[trials]
        for name, own in members(labels, len(trials)).items():
            yield own, owners[name]

    def compact(
        self,
        trials: Int[np.ndarray, " chosen"] | list[int],
        *,
        among: Int[np.ndarray, " others"] | None = None,
    ) -> Batch:
        """Return trials as one batch that lacks the neurons of all sessions that they are not of.

        ``batch`` has all neurons, those of other sessions missing; where there is one session, both
        are the same.

        Args:
            trials: indices.
            among: the trials by whose sessions neurons are chosen; None: these.
        """
        chosen, loaded = np.atleast_1d(trials), self._get()
        neurons = self.neurons_of(chosen if among is None else among)
        index = torch.as_tensor(chosen, dtype=torch.int64)
        return taken(loaded.resident, index, neurons, loaded.spec)

    def compact_batches(
        self, trials: str | Int[np.ndarray, " chosen"], batch_size: int | None = None
    ) -> Iterator[Batch]:
        """Yield what ``batches`` does, session by session, each batch ``compact``."""
        chosen = self.trials(trials) if isinstance(trials, str) else trials
        size = self.eval_batch_size if batch_size is None else batch_size
        for own, _ in self.each_session(chosen):
            for start in range(0, len(own), size):
                yield self.compact(chosen[own[start : start + size]])

    @abstractmethod
    def trials(self, split: str) -> Int[np.ndarray, " chosen"]:
        """Return the trials of a split."""

    @abstractmethod
    def _get(self) -> Prepared:
        """Return what is loaded."""

    @abstractmethod
    def _with(self: Data, loaded: Prepared | None) -> Data:
        """Return the data with something else loaded."""
