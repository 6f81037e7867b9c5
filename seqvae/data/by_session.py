"""Data of several sessions: each by itself, and batches of those neurons that trials have."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Int

from seqvae.data.loading import taken
from seqvae.data.preparation import Prepared
from seqvae.data.splits import members
from seqvae.types import Batch


class BySession(ABC):
    """The sessions of data that are split and made batches by whoever inherits this."""

    eval_batch_size: int
    _owners: dict[str, Int[np.ndarray, " neuron"]] | None = None

    @property
    def sessions(self) -> tuple[str, ...]:
        """The names of the sessions, where the recording is of several; else none."""
        names = self._get().recording.trial_sessions
        return () if names is None else tuple(dict.fromkeys(map(str, names.tolist())))

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
