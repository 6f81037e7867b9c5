"""From a source to batches: tensors are kept in memory and indexed, without worker processes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.utils.data import DataLoader

from seqvae.compute import noise
from seqvae.compute.noise import step_seed
from seqvae.data.loading import (
    OrderedBatches,
    ShuffledBatches,
    TrialDataset,
    embedded,
    resident_batch,
)
from seqvae.data.masking import CoordinatedDropout, speckle
from seqvae.data.recording import Recording
from seqvae.data.sources.base import RecordingSource
from seqvae.data.splits import choose_heldin, split_trials
from seqvae.data.validation import SPLITS, check_memory
from seqvae.errors import InputError, nearest
from seqvae.types import Batch, DataSpec


class NeuralData(pl.LightningDataModule):
    """A recording, split and masked, as batches for learning, selection and tests.

    The file is read once, when first needed. A split that the file gives wins over the fractions.

    Args:
        source: where the recording comes from.
        val_fraction: share of the trials that choose the best checkpoint.
        test_fraction: share of the trials kept for the final scores.
        split_seed: of the random split.
        heldout: fraction or indices of the neurons that inference never sees; None: as the file
            says, else none.
        heldout_seed: of the random choice of held-out neurons.
        forecast_bins: bins at the end of each trial that inference never sees; None: as the file
            says, else none.
        batch_size: trials per step of learning, those of all devices together: the same settings
            make the same fit on one GPU and on eight.
        eval_batch_size: trials per batch everywhere else, those of all devices together.
        coordinated_dropout: applied to the training batches.
        speckled_fraction: share of the held-in entries hidden in a second validation loader.
        seed: of the order of the training trials and of the speckles.

    Raises:
        InputError: in one sentence, for bad data or settings that do not fit them.
    """

    def __init__(
        self,
        source: RecordingSource,
        *,
        val_fraction: float = 0.2,
        test_fraction: float = 0.0,
        split_seed: int = 0,
        heldout: float | list[int] | None = None,
        heldout_seed: int = 0,
        forecast_bins: int | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        coordinated_dropout: CoordinatedDropout | None = None,
        speckled_fraction: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(source, RecordingSource):
            raise InputError(
                "source must be a RecordingSource, such as Arrays(counts, bin_width=0.01) or "
                f"HDF5(path), got {type(source).__name__}"
            )
        for name, size in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
            if size < 1:
                raise InputError(f"{name} must be at least 1, got {size}")
        for name, number in (("split_seed", split_seed), ("heldout_seed", heldout_seed)):
            if number < 0:
                raise InputError(f"{name} must be at least 0, got {number}")
        if not 0 <= speckled_fraction < 1:
            raise InputError(
                f"speckled_fraction must be from 0 to below 1, got {speckled_fraction:g}"
            )
        self.source = source
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.heldout = heldout
        self.heldout_seed = heldout_seed
        self.forecast_bins = forecast_bins
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.coordinated_dropout = coordinated_dropout
        self.speckled_fraction = speckled_fraction
        self.seed = seed
        self._loaded: _Loaded | None = None
        self._moments: _Moments | None = None

    def setup(self, stage: str | None = None) -> None:
        """Load, validate and split the recording; a second call does nothing."""
        if self._loaded is not None:
            return
        recording = self.source.load()
        split = split_trials(
            recording,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            seed=self.split_seed,
        )
        heldin = choose_heldin(recording, self.heldout, seed=self.heldout_seed)
        spec = _spec(recording, heldin, _encoded_bins(recording, self.forecast_bins))
        resident = resident_batch(recording, spec, recording.lengths)
        self._loaded = _Loaded(recording, split, spec, resident)

    def pool(self) -> Recording:
        """Return the trials that are not kept for the test, for others to divide."""
        recording = self.source.load() if self._loaded is None else self._loaded.recording
        test, seed = self.test_fraction, self.split_seed
        split = split_trials(recording, val_fraction=0.0, test_fraction=test, seed=seed)
        encoded = _encoded_bins(recording, self.forecast_bins)
        return recording.select(np.flatnonzero(split != "test")).encode(encoded)

    def adapted(self, spec: DataSpec) -> NeuralData:
        """Return these data as the spec of a trained model asks for them; they stay as they are.

        A file with all neurons takes the model's held-in ones; one with only the held-in neurons
        is embedded, its held-out neurons missing. For a model that forecasts, a file with only
        the encoded bins is embedded likewise.

        Raises:
            InputError: if neurons, inputs or bin width cannot be brought together.
        """
        if spec == self.spec:
            return self
        recording, num_encoded = self.recording, self.spec.num_encoded_bins
        width = recording.bin_width
        if width and spec.bin_width and not math.isclose(width, spec.bin_width, rel_tol=1e-6):
            raise InputError(
                f"bin_width is {width:g} s, but the model was trained with {spec.bin_width:g} s; "
                "bin the data alike"
            )
        if recording.num_inputs != spec.num_inputs:
            raise InputError(
                f"inputs: the data have {recording.num_inputs}, but the model was trained with "
                f"{spec.num_inputs}; give the same external inputs"
            )
        if recording.num_neurons not in (spec.num_neurons, spec.num_heldin):
            raise InputError(
                f"activity has {recording.num_neurons} neurons, but the model was trained with "
                f"{spec.num_neurons}, {spec.num_heldin} of them held in; give the same neurons"
            )
        num_bins = recording.num_time_bins
        if spec.num_forecast_bins:
            num_encoded = min(spec.num_encoded_bins, num_bins)
            num_bins = spec.num_time_bins if num_bins == spec.num_encoded_bins else num_bins
        check_memory(f"{num_bins} bins", 16.0 * recording.num_trials * num_bins * spec.num_neurons)
        own = replace(spec, num_time_bins=num_bins, num_encoded_bins=num_encoded)
        lengths = recording.lengths
        lengths = np.where(lengths == recording.num_time_bins, num_bins, lengths)
        recording = embedded(recording, own)
        adapted = copy.copy(self)
        adapted._moments = None
        adapted._loaded = _Loaded(
            recording, self.split, own, resident_batch(recording, own, lengths)
        )
        return adapted

    @property
    def recording(self) -> Recording:
        """The validated recording, as the source gave it."""
        return self._get().recording

    @property
    def spec(self) -> DataSpec:
        """The facts a model must know."""
        return self._get().spec

    @property
    def split(self) -> Shaped[np.ndarray, " trial"]:
        """The split of each trial: "train", "val" or "test"."""
        return self._get().split

    def trials(self, split: str) -> Int[np.ndarray, " chosen"]:
        """Return the indices of the trials of "train", "val", "test" or "all".

        Raises:
            InputError: if the word is unknown or the split has no trial.
        """
        if split not in (*SPLITS, "all"):
            raise InputError(f"split {split!r} is unknown{nearest(split, (*SPLITS, 'all'))}")
        chosen = np.flatnonzero((self.split == split) | (split == "all"))
        if chosen.size == 0:
            there = ", ".join(word for word in SPLITS if word in self.split)
            raise InputError(f"split {split!r} has no trials; the data hold: {there}")
        return chosen

    def batch(self, trials: Int[np.ndarray, " chosen"] | list[int] | int) -> Batch:
        """Return the given trials as one batch, without dropout."""
        index = torch.as_tensor(np.atleast_1d(trials), dtype=torch.int64)
        return self._get().resident[index]

    def batches(
        self, trials: str | Int[np.ndarray, " chosen"] | list[int], batch_size: int | None = None
    ) -> Iterator[Batch]:
        """Yield the trials (or those of a split) in order, ``eval_batch_size`` at a time."""
        chosen = self.trials(trials) if isinstance(trials, str) else np.asarray(trials)
        size = self.eval_batch_size if batch_size is None else batch_size
        for start in range(0, len(chosen), size):
            yield self.batch(chosen[start : start + size])

    @property
    def train_mean(self) -> Float[Tensor, " neuron"]:
        """Mean of each neuron over the observed training entries, per bin."""
        return self._train_moments().mean

    @property
    def train_std(self) -> Float[Tensor, " neuron"]:
        """Standard deviation of each neuron over the observed training entries."""
        return self._train_moments().std

    def train_dataloader(self) -> DataLoader:
        """Shuffled training trials; the order of an epoch hangs on ``seed`` and epoch alone."""
        sampler = ShuffledBatches(
            self.trials("train"), self.batch_size, seed=self.seed, **self._place
        )
        dataset = TrialDataset(self.batch, self.recording.num_trials)
        return DataLoader(dataset, sampler=sampler, batch_size=None)

    def val_dataloader(self) -> list[DataLoader]:
        """Validation trials, plain and, if ``speckled_fraction`` > 0, speckled; empty if none."""
        if "val" not in self.split:
            return []
        speckled = [self._speckled_batch] if self.speckled_fraction > 0 else []
        return [self._loader("val", make_batch) for make_batch in (self.batch, *speckled)]

    def test_dataloader(self) -> DataLoader:
        """Test trials in order."""
        return self._loader("test", self.batch)

    def predict_dataloader(self) -> DataLoader:
        """All trials in order."""
        return self._loader("all", self.batch)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Apply coordinated dropout while learning; the mask hangs on ``seed``, step and trial."""
        if self.coordinated_dropout is None or self.trainer is None or not self.trainer.training:
            return batch
        seed = step_seed(self.seed, self.trainer.fit_loop.total_batch_idx, stream=1)
        center = self._center.to(batch.observed)
        with noise.keyed(seed), noise.of_trials(batch.trial):
            return self.coordinated_dropout(batch, self.spec.heldin, center=center)

    def _get(self) -> _Loaded:
        self.setup()
        assert self._loaded is not None
        return self._loaded

    def _speckled_batch(self, trials: Int[np.ndarray, " chosen"] | list[int] | int) -> Batch:
        batch = self.batch(trials)
        if not len(batch):
            return batch
        return speckle(
            batch,
            self.spec.heldin,
            self.speckled_fraction,
            seed=self.seed,
            center=self._center,
        )

    @property
    def _center(self) -> Float[Tensor, " heldin"]:
        return self.train_mean[list(self.spec.heldin)]

    def _loader(self, split: str, make_batch: Callable[..., Batch]) -> DataLoader:
        sampler = OrderedBatches(self.trials(split), self.eval_batch_size, **self._place)
        dataset = TrialDataset(make_batch, self.recording.num_trials)
        return DataLoader(dataset, sampler=sampler, batch_size=None)

    @property
    def _place(self) -> dict[str, int]:
        """Which of how many processes this is, where the trainer has several."""
        return dict(getattr(self.trainer, "distributed_sampler_kwargs", None) or {})

    def _train_moments(self) -> _Moments:
        if self._moments is not None:
            return self._moments
        total = square = count = torch.zeros(self.spec.num_neurons, dtype=torch.float64)
        for batch in self.batches("train"):
            target, weight = batch.target.double(), batch.weight.double()
            total = total + (weight * target).sum((0, 1))
            square = square + (weight * target**2).sum((0, 1))
            count = count + weight.sum((0, 1))
        mean = total / count.clamp(min=1)
        variance = square / count.clamp(min=1) - mean**2
        self._moments = _Moments(mean.float(), variance.clamp(min=0).sqrt().float())
        return self._moments


class _Moments(NamedTuple):
    mean: Float[Tensor, " neuron"]
    std: Float[Tensor, " neuron"]


class _Loaded(NamedTuple):
    recording: Recording
    split: np.ndarray
    spec: DataSpec
    resident: Batch


def _encoded_bins(recording: Recording, forecast_bins: int | None) -> int:
    num_time_bins = recording.num_time_bins
    if forecast_bins is None:
        return recording.num_encoded_bins or num_time_bins
    if not 0 <= forecast_bins < num_time_bins:
        raise InputError(
            f"forecast_bins must be from 0 to {num_time_bins - 1}, one below the {num_time_bins} "
            f"bins of a trial, got {forecast_bins}"
        )
    return num_time_bins - forecast_bins


def _spec(recording: Recording, heldin: tuple[int, ...], num_encoded_bins: int) -> DataSpec:
    return DataSpec(
        heldin=heldin,
        num_neurons=recording.num_neurons,
        num_inputs=recording.num_inputs,
        num_time_bins=recording.num_time_bins,
        num_encoded_bins=num_encoded_bins,
        bin_width=recording.bin_width,
    )
