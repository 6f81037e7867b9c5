"""A recording as tensors in memory, and what a DataLoader needs to answer trials with a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import Dataset, Sampler

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


class OrderedBatches(Sampler):
    """Trials in order, ``batch_size`` at a time."""

    def __init__(self, trials: Int[np.ndarray, " chosen"], batch_size: int) -> None:
        self.trials = trials
        self.batch_size = batch_size

    def __len__(self) -> int:
        return math.ceil(len(self.trials) / self.batch_size)

    def __iter__(self) -> Iterator[np.ndarray]:
        trials = self.order()
        for start in range(0, len(trials), self.batch_size):
            yield trials[start : start + self.batch_size]

    def order(self) -> Int[np.ndarray, " chosen"]:
        """Return the trials in the order of this epoch."""
        return self.trials


class ShuffledBatches(OrderedBatches):
    """Shuffled trials; the order hangs on seed and epoch alone."""

    def __init__(self, trials: Int[np.ndarray, " chosen"], batch_size: int, *, seed: int) -> None:
        super().__init__(trials, batch_size)
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Name the epoch; Lightning calls this before each one, also when it resumes."""
        self.epoch = epoch

    def order(self) -> Int[np.ndarray, " chosen"]:
        """Return the trials in the order of this epoch."""
        return np.random.default_rng([self.seed, self.epoch]).permutation(self.trials)
