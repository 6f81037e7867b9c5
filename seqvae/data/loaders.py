"""The loaders of batches that a trainer asks data for."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from jaxtyping import Float, Int, Shaped
from numpy import ndarray, unique
from torch import Tensor
from torch.utils.data import DataLoader

from seqvae.compute import noise
from seqvae.compute.noise import step_seed
from seqvae.data import sizes
from seqvae.data.batching import OrderedBatches, Part, ShuffledBatches, TrialDataset
from seqvae.data.by_session import BySession
from seqvae.data.lazy import LazyActivity
from seqvae.data.masking import CoordinatedDropout, speckle
from seqvae.data.recording import Recording
from seqvae.data.session_rows import StitchedActivity
from seqvae.data.sizes import spread_out
from seqvae.types import Batch, DataSpec

_CURE = (
    "learn by gradients, e.g. a SequentialVAE with a LinearReadIn, and score sessions one by one "
    "(session)"
)
_COPIES = 3  # a batch holds what is seen, what is scored, and with which weight


class Loaders(BySession):
    """Loaders of data that are split and made batches by whoever inherits this."""

    batch_size: int
    sessions_per_batch: int
    coordinated_dropout: CoordinatedDropout | None
    speckled_fraction: float
    seed: int

    def train_dataloader(self) -> DataLoader:
        """Shuffled training trials; the order of an epoch depends on ``seed`` and epoch alone."""
        trials = self.trials("train")
        sampler = ShuffledBatches(
            trials, self.batch_size, seed=self.seed, **self._sessions(trials), **self._place
        )
        dataset = TrialDataset(self._part, self.recording.num_trials)
        return DataLoader(dataset, sampler=sampler, batch_size=None)

    def val_dataloader(self) -> list[DataLoader]:
        """Validation trials, plain and, if ``speckled_fraction`` > 0, speckled; empty if none."""
        if "val" not in self.split:
            return []
        speckled = [self._speckled_batch] if self.speckled_fraction > 0 else []
        return [self._loader("val", make_batch) for make_batch in (self._part, *speckled)]

    def test_dataloader(self) -> DataLoader:
        """Test trials in order."""
        return self._loader("test", self._part)

    def predict_dataloader(self) -> DataLoader:
        """All trials in order, each with all neurons."""
        return self._loader("all", lambda part: self.batch(part.own))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Apply coordinated dropout in learning; the mask depends on ``seed``, step and trial."""
        trainer = self._trainer
        if self.coordinated_dropout is None or trainer is None or not trainer.training:
            return batch
        seed = step_seed(self.seed, trainer.fit_loop.total_batch_idx, stream=1)
        spec, neurons = self.spec, batch.neurons
        center = self._center.to(batch.observed)
        if neurons is not None:
            center = center[spec.heldin_among(neurons)]
        heldin = spec.heldin if neurons is None else spec.among(neurons).heldin
        with noise.keyed(seed), noise.of_trials(batch.trial):
            return self.coordinated_dropout(batch, heldin, center=center)

    def at_once(self, split: str) -> Int[ndarray, " chosen"]:
        """Return the trials of a split to be held at a time, for what cannot go batch by batch.

        Of a recording that is read when it is asked for they are evenly spread ones; a warning
        tells it.
        """
        trials, recording = self.trials(split), self.recording
        if isinstance(recording.activity, StitchedActivity):
            what = f"{split}: {len(trials)} trials of {len(self.sessions)} sessions at a time"
            shape = (len(trials), *recording.shape[1:])
            sizes.check_memory(what, 4.0 * _COPIES * math.prod(shape), cure=_CURE)
            return trials
        if not isinstance(recording.activity, LazyActivity):
            return trials
        some = spread_out(trials, recording.shape, most=sizes.HELD)
        if len(some) < len(trials):
            warnings.warn(
                f"{split}: {len(some)} of {len(trials)} trials are learned from, evenly spread, "
                "since all of them are too large to be held at a time",
                stacklevel=3,
            )
        return some

    @property
    @abstractmethod
    def recording(self) -> Recording:
        """The recording."""

    @property
    @abstractmethod
    def spec(self) -> DataSpec:
        """Its facts."""

    @property
    @abstractmethod
    def split(self) -> Shaped[ndarray, " trial"]:
        """The split of each trial."""

    @property
    @abstractmethod
    def train_mean(self) -> Float[Tensor, " neuron"]:
        """Mean of each neuron in training."""

    @abstractmethod
    def batch(self, trials: Int[ndarray, " chosen"] | list[int] | int) -> Batch:
        """Return trials as one batch."""

    def _part(self, part: Part) -> Batch:
        """Return what a process takes of a batch, of the neurons of the whole batch."""
        return self.compact(part.own, among=part.whole)

    def _speckled_batch(self, part: Part) -> Batch:
        batch, spec = self._part(part), self.spec
        if not len(batch):
            return batch
        return speckle(batch, spec, self.speckled_fraction, seed=self.seed, center=self._center)

    @property
    def _center(self) -> Float[Tensor, " heldin"]:
        return self.train_mean[list(self.spec.heldin)]

    def _loader(self, split: str, make_batch: Callable[..., Batch]) -> DataLoader:
        trials = self.trials(split)
        sampler = OrderedBatches(
            trials, self.eval_batch_size, **self._sessions(trials), **self._place
        )
        dataset = TrialDataset(make_batch, self.recording.num_trials)
        return DataLoader(dataset, sampler=sampler, batch_size=None)

    def _sessions(self, trials: Int[ndarray, " chosen"]) -> dict[str, Any]:
        """Tell which sessions trials are of, where a batch is not to have those of all."""
        if len(self.sessions) <= self.sessions_per_batch:
            return {}
        assert self.recording.trial_sessions is not None
        _, numbers = unique(self.recording.trial_sessions[trials], return_inverse=True)
        return {"sessions": numbers, "most_sessions": self.sessions_per_batch}

    @property
    def _trainer(self) -> Any:
        """The trainer that asks, if any."""
        return getattr(self, "trainer", None)

    @property
    def _place(self) -> dict[str, Any]:
        """Which of how many processes this is, where the trainer has several."""
        return dict(getattr(self._trainer, "distributed_sampler_kwargs", None) or {})
