"""A recording as tensors, in memory or read when asked for, and what a DataLoader needs of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from seqvae.compute.ranks import Share
from seqvae.data.lazy import LazyActivity
from seqvae.data.recording import Recording
from seqvae.types import Batch, DataSpec


@runtime_checkable
class Trials(Protocol):
    """Trials to index by a tensor of their numbers: one batch, or what makes it when asked."""

    def __getitem__(self, index: Tensor) -> Batch:
        """Return some trials as a batch."""


def resident(recording: Recording, spec: DataSpec, lengths: Int[np.ndarray, " trial"]) -> Trials:
    """Return all trials to index: as tensors in memory, or read when asked for."""
    if isinstance(recording.activity, LazyActivity):
        return OnDemand(recording, spec, lengths)
    everyone = np.arange(recording.num_trials)
    return _batch(recording.activity, recording.inputs, everyone, spec, lengths)


class OnDemand:
    """Trials of a recording whose activity is read when it is asked for."""

    def __init__(
        self, recording: Recording, spec: DataSpec, lengths: Int[np.ndarray, " trial"]
    ) -> None:
        self._recording, self._spec, self._lengths = recording, spec, lengths

    def __getitem__(self, index: Tensor) -> Batch:
        """Read some trials as a batch."""
        recording = self._recording
        chosen = np.arange(recording.num_trials)[index.cpu().numpy()]
        inputs = None if recording.inputs is None else recording.inputs[chosen]
        activity = recording.read(chosen)
        return _batch(activity, inputs, chosen, self._spec, self._lengths[chosen])


def _batch(
    activity: Float[np.ndarray, "trial time neuron"],
    inputs: Float[np.ndarray, "trial time input"] | None,
    trials: Int[np.ndarray, " trial"],
    spec: DataSpec,
    lengths: Int[np.ndarray, " trial"],
) -> Batch:
    """Return trials as one batch of tensors."""
    observed = torch.from_numpy(~np.isnan(activity))
    target = torch.from_numpy(np.nan_to_num(activity))
    if inputs is None:
        inputs = np.empty((*activity.shape[:2], 0), dtype=np.float32)
    return Batch(
        observed=_encoded(target, spec),
        observed_mask=_encoded(observed, spec),
        target=target,
        weight=observed.float(),
        inputs=torch.from_numpy(np.nan_to_num(inputs)),
        lengths=torch.from_numpy(lengths),
        trial=torch.from_numpy(trials),
    )


def _encoded(
    values: Float[Tensor, "trial time neuron"] | Bool[Tensor, "trial time neuron"], spec: DataSpec
) -> Tensor:
    if spec.num_heldin == spec.num_neurons and spec.num_forecast_bins == 0:
        return values
    return values[:, : spec.num_encoded_bins][:, :, list(spec.heldin)].contiguous()


class TrialDataset(Dataset):
    """Whole batches by the indices of their trials."""

    def __init__(self, make_batch: Callable[..., Batch], num_trials: int) -> None:
        self.make_batch = make_batch
        self.num_trials = num_trials

    def __len__(self) -> int:
        return self.num_trials

    def __getitem__(self, trials: Int[np.ndarray, " chosen"] | list[int] | int) -> Batch:
        return self.make_batch(trials)


class OrderedBatches(DistributedSampler):
    """Trials in order, ``batch_size`` at a time; each of several processes takes a part of a batch.

    So the batches are the same however many processes there are, and every process has as many of
    them; a part may be empty. As a ``DistributedSampler`` it is left in place by Lightning.

    Args:
        trials: indices.
        batch_size: trials of a batch, those of all processes together.
        num_replicas: how many processes there are.
        rank: which of them this is.
    """

    def __init__(
        self,
        trials: Int[np.ndarray, " chosen"],
        batch_size: int,
        *,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(trials, num_replicas=num_replicas, rank=rank, shuffle=False)  # type: ignore[arg-type]
        self.trials = trials
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.trials) / self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        trials = self.order()
        for start in range(0, len(trials), self.batch_size):
            yield self.part(trials[start : start + self.batch_size])

    def order(self) -> Int[np.ndarray, " chosen"]:
        """Return the trials in the order of this epoch."""
        return self.trials

    def part(self, batch: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " part"]:
        """Return the trials of a batch that this process takes."""
        return batch[self.rank :: self.num_replicas]


class ShuffledBatches(OrderedBatches):
    """Shuffled trials; the order depends on seed and epoch alone.

    Args:
        trials: indices.
        batch_size: trials of a step, those of all processes together.
        seed: of the order.
        num_replicas: how many processes there are.
        rank: which of them this is.
    """

    def __init__(
        self,
        trials: Int[np.ndarray, " chosen"],
        batch_size: int,
        *,
        seed: int,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(trials, batch_size, num_replicas=num_replicas, rank=rank)
        self.seed = seed

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch; Lightning calls this before each one, also when it resumes."""
        self.epoch = epoch

    def order(self) -> Int[np.ndarray, " chosen"]:
        """Return the trials in the order of this epoch."""
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.trials)

    def part(self, batch: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " part"]:
        """Return the trials that this process takes: the first again, where it has none."""
        trials = super().part(batch)
        return trials if len(trials) else batch[:1]

    def share(self, index: int) -> Share:
        """Return how much of a batch of this epoch is this process's own."""
        whole = min(self.batch_size, len(self.trials) - index * self.batch_size)
        local = len(range(self.rank, whole, self.num_replicas))
        return Share(local, whole, self.num_replicas)
