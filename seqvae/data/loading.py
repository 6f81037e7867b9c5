"""A recording as tensors in memory, and what a DataLoader needs to answer trials with a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from seqvae.compute.ranks import Share
from seqvae.data.recording import Recording
from seqvae.types import Batch, DataSpec


def resident_batch(
    recording: Recording, spec: DataSpec, lengths: Int[np.ndarray, " trial"]
) -> Batch:
    """Return all trials as one batch of tensors to index."""
    observed = torch.from_numpy(~np.isnan(recording.activity))
    target = torch.from_numpy(np.nan_to_num(recording.activity))
    inputs = recording.inputs
    if inputs is None:
        inputs = np.empty((*recording.activity.shape[:2], 0), dtype=np.float32)
    return Batch(
        observed=_encoded(target, spec),
        observed_mask=_encoded(observed, spec),
        target=target,
        weight=observed.float(),
        inputs=torch.from_numpy(np.nan_to_num(inputs)),
        lengths=torch.from_numpy(lengths),
        trial=torch.arange(recording.num_trials),
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
