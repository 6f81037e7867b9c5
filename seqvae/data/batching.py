"""Which trials make a batch, and which of them a process takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from seqvae.compute.ranks import Share
from seqvae.types import Batch


class Part(NamedTuple):
    """What a process takes of a batch.

    Attributes:
        own: the trials that it takes.
        whole: those of all processes together.
    """

    own: Int[np.ndarray, " part"]
    whole: Int[np.ndarray, " batch"]


class TrialDataset(Dataset):
    """Whole batches by the indices of their trials, given as what a process takes of a batch."""

    def __init__(self, make_batch: Callable[[Part], Batch], num_trials: int) -> None:
        self.make_batch = make_batch
        self.num_trials = num_trials

    def __len__(self) -> int:
        return self.num_trials

    def __getitem__(self, part: Part) -> Batch:
        return self.make_batch(part)


class OrderedBatches(DistributedSampler):
    """Trials in order, ``batch_size`` at a time; each of several processes takes a part of a batch.

    So the batches are the same however many processes there are, and every process has as many of
    them; a part may be empty. As a ``DistributedSampler`` it is left in place by Lightning.

    Args:
        trials: indices.
        batch_size: trials of a batch, those of all processes together.
        sessions: the number of each trial's session; a batch then ends where the trials of one
            more session than ``most_sessions`` would come, too.
        most_sessions: that a batch has trials of.
        num_replicas: how many processes there are.
        rank: which of them this is.
    """

    def __init__(
        self,
        trials: Int[np.ndarray, " chosen"],
        batch_size: int,
        *,
        sessions: Int[np.ndarray, " chosen"] | None = None,
        most_sessions: int = 1,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(trials, num_replicas=num_replicas, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.trials, self.batch_size = trials, batch_size
        self.sessions, self.most_sessions = sessions, most_sessions
        self.edges = self._edges()

    def __len__(self) -> int:
        return len(self.edges) - 1

    def __iter__(self) -> Iterator[Part]:
        trials = self.order()
        for start, stop in pairwise(self.edges):
            yield Part(self.part(trials[start:stop]), trials[start:stop])

    def _edges(self) -> list[int]:
        """Return the first trial of each batch, and the end."""
        total, edges, there = len(self.trials), [0], set[int]()
        labels = [0] * total if self.sessions is None else self.sessions.tolist()
        for place, label in enumerate(labels):
            is_full = place - edges[-1] == self.batch_size
            if is_full or len(there | {label}) > self.most_sessions:
                edges.append(place)
                there = set()
            there.add(label)
        return [*edges, total] if total else edges

    def order(self) -> Int[np.ndarray, " chosen"]:
        """Return the trials in the order of this epoch."""
        return self.trials

    def part(self, batch: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " part"]:
        """Return the trials of a batch that this process takes."""
        return batch[self.rank :: self.num_replicas]


class ShuffledBatches(OrderedBatches):
    """Shuffled trials; the order depends on seed and epoch alone.

    Trials of several sessions may come in runs, each of trials of one session, so that a batch has
    trials, and so neurons, of few sessions. Every trial has its turn once an epoch all the same.

    Args:
        trials: indices.
        batch_size: trials of a step, those of all processes together.
        seed: of the order.
        sessions: the number of each trial's session; trials then come in runs of one session.
        most_sessions: that a batch has trials of, or few more.
        num_replicas: how many processes there are.
        rank: which of them this is.
    """

    def __init__(
        self,
        trials: Int[np.ndarray, " chosen"],
        batch_size: int,
        *,
        seed: int,
        sessions: Int[np.ndarray, " chosen"] | None = None,
        most_sessions: int = 1,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(trials, batch_size, num_replicas=num_replicas, rank=rank)
        self.seed, self.sessions = seed, sessions
        self.run = math.ceil(batch_size / most_sessions)

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch; Lightning calls this before each one, also when it resumes."""
        self.epoch = epoch

    def order(self) -> Int[np.ndarray, " chosen"]:
        """Return the trials in the order of this epoch."""
        generator = np.random.default_rng([self.seed, self.epoch])
        if self.sessions is None:
            return generator.permutation(self.trials)
        places = generator.permutation(len(self.trials))
        places = places[np.argsort(self.sessions[places], kind="stable")]
        _, sizes = np.unique(self.sessions, return_counts=True)
        runs = [
            run
            for own in np.split(places, np.cumsum(sizes)[:-1])
            for run in np.array_split(own, math.ceil(len(own) / self.run))
        ]
        order = generator.permutation(len(runs))
        return self.trials[np.concatenate([runs[number] for number in order])]

    def part(self, batch: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " part"]:
        """Return the trials that this process takes: the first again, where it has none."""
        trials = super().part(batch)
        return trials if len(trials) else batch[:1]

    def share(self, index: int) -> Share:
        """Return how much of a batch of this epoch is this process's own."""
        whole = min(self.batch_size, len(self.trials) - index * self.batch_size)
        local = len(range(self.rank, whole, self.num_replicas))
        return Share(local, whole, self.num_replicas)
