"""From a source to batches: tensors are kept in memory and indexed, without worker processes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np
import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from seqvae.config.arguments import InConfig
from seqvae.data.adapting import adapt
from seqvae.data.chopping import Chopped, chop
from seqvae.data.containers import ArrayLike
from seqvae.data.loaders import Loaders
from seqvae.data.loading import resident
from seqvae.data.masking import CoordinatedDropout
from seqvae.data.moments import batch_moments
from seqvae.data.preparation import Preparation, Prepared
from seqvae.data.recording import Recording
from seqvae.data.settings import Alignment, check_settings
from seqvae.data.sources.arrays import Arrays
from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.front import SourceLike, as_source
from seqvae.data.transforms import Transform, check_transforms, learners, transformed
from seqvae.data.validation import NEW, OTHER, SPLITS, as_heldout
from seqvae.data.windows import is_continuous
from seqvae.errors import InputError, nearest
from seqvae.types import Batch, DataSpec, Moments

if TYPE_CHECKING:
    _HeldOut: TypeAlias = float | ArrayLike
else:  # whatever holds no indices is refused in words
    _HeldOut: TypeAlias = Any


class NeuralData(Loaders, pl.LightningDataModule):
    """A recording, split and masked, as batches for learning, selection and tests.

    The file is read once, when first needed. A split that the file gives wins over the fractions.
    One long trial, of which validation or test takes a share, is cut into windows, which are trials
    from then on; see ``seqvae.data.windows``.

    Args:
        source: where the recording comes from, or the recording itself: whatever
            ``seqvae.data.sources.as_source`` takes.
        bin_width: seconds per bin, beside an array or a file.
        val_fraction: share of the trials (of one long trial, of the bins) that choose the best
            checkpoint.
        test_fraction: share of the trials (bins) kept for the final scores.
        split_seed: of the random split.
        window_bins: bins of a window of one long trial; None: chosen by how long the activity
            remembers.
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
        transforms: what is done to the recording, in this order, before it is split; those that
            learn from training trials come last (``seqvae.data.transforms``).
        sessions_per_batch: of more sessions than these, about how many a batch has trials of;
            its time and memory are those of the neurons of these sessions alone.
        alignment: of several sessions, the averages over trials that are matched where learning
            begins: those of conditions (without any, of all trials), or of all ``trials``.

    Raises:
        InputError: in one sentence, for bad data or settings that do not fit them.
    """

    def __init__(
        self,
        source: Annotated[SourceLike, InConfig(RecordingSource)],
        *,
        bin_width: Annotated[float | None, InConfig(is_there=False)] = None,
        val_fraction: float = 0.2,
        test_fraction: float = 0.0,
        split_seed: int = 0,
        heldout: Annotated[_HeldOut, InConfig(float | list[int] | None)] = None,
        heldout_seed: int = 0,
        forecast_bins: int | None = None,
        batch_size: int = 64,
        eval_batch_size: int = 256,
        coordinated_dropout: CoordinatedDropout | None = None,
        speckled_fraction: float = 0.0,
        seed: int = 0,
        window_bins: Annotated[int | None, InConfig(tells_default=False)] = None,
        transforms: Annotated[list[Transform] | None, InConfig(tells_default=False)] = None,
        sessions_per_batch: Annotated[int, InConfig(tells_default=False)] = 8,
        alignment: Annotated[str, InConfig(Alignment, tells_default=False)] = "conditions",
    ) -> None:
        super().__init__()
        check_settings(
            sizes={
                "batch_size": batch_size,
                "eval_batch_size": eval_batch_size,
                "sessions_per_batch": sessions_per_batch,
            },
            seeds={"split_seed": split_seed, "heldout_seed": heldout_seed, "seed": seed},
            shares={"val_fraction": val_fraction, "test_fraction": test_fraction},
            speckled_fraction=speckled_fraction,
            window_bins=window_bins,
            forecast_bins=forecast_bins,
            coordinated_dropout=coordinated_dropout,
            alignment=alignment,
        )
        self.source = as_source(source, bin_width)
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.split_seed = split_seed
        self.heldout = as_heldout(heldout)
        self.heldout_seed = heldout_seed
        self.forecast_bins = forecast_bins
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.coordinated_dropout = coordinated_dropout
        self.speckled_fraction = speckled_fraction
        self.seed = seed
        self.window_bins = window_bins
        self.transforms = check_transforms(transforms)
        self.sessions_per_batch = sessions_per_batch
        self.alignment = alignment
        self._loaded: Prepared | None = None
        self._moments: Moments | None = None

    def setup(self, stage: str | None = None) -> None:
        """Load, validate and split the recording; a second call does nothing."""
        if self._loaded is not None:
            return
        recording, settled = transformed(self.source.load(), self.transforms)
        prepared = self._preparation.prepare(recording)
        self._loaded = prepared._replace(settled=(*settled, *prepared.settled))

    def raw(self) -> Recording:
        """Return the recording as given, a long trial whole, transformed by what learns nothing."""
        if self._loaded and self._loaded.start is None and not learners(self.transforms):
            return self.recording
        return transformed(self.source.load(), self.transforms).recording

    def pool(self) -> Recording:
        """Return what is not kept for the test, for others to divide; one long trial stays one."""
        for transform in learners(self.transforms):
            raise InputError(
                f"transforms: {type(transform).__name__} learns from training trials, which are "
                "others in each cell of a cross-validation; name its result (ids, mean, sd)"
            )
        return self._preparation.pool(self.raw())

    def of(self, recording: Recording) -> NeuralData:
        """Return another recording, as ``raw`` gives it, to be split and masked likewise."""
        data = self.with_source(Arrays(recording))
        data.transforms = learners(self.transforms) or None
        return data

    def with_source(self, source: RecordingSource) -> NeuralData:
        """Return the data of another source, not loaded yet, with these settings."""
        data = self._with(None)
        data.source = source
        return data

    def whole(self, *, like: DataSpec) -> NeuralData:
        """Return these data with nothing split off, as a model is asked about others than its own.

        Whatever the fractions say, no trial is drawn to validate or to test; a split that the file
        gives stays, else all trials are "new". One long trial stays one, unless it is longer than
        those that the model knows: it is then cut into windows of their length.

        Args:
            like: the facts that the model knows.
        """
        recording = self.raw()
        data = self.of(recording)
        data.val_fraction = data.test_fraction = 0.0
        if is_continuous(recording) and recording.num_time_bins > like.num_time_bins:
            data.window_bins = data.window_bins or like.num_time_bins
        data.setup()
        if recording.split is None:
            loaded = data._get()
            data._loaded = loaded._replace(split=np.full(len(loaded.split), NEW))
        return data

    def chopped(self, window_bins: int, *, overlap: float) -> tuple[NeuralData, Chopped]:
        """Return all of the recording in windows that may overlap, one long trial uncut before.

        See ``seqvae.data.chopping``. Nothing is split off.
        """
        learned = self.settled[len(self.settled) - len(learners(self.transforms)) :]
        chopped = chop(transformed(self.raw(), learned).recording, window_bins, overlap=overlap)
        data = self.of(chopped.recording)
        data.val_fraction = data.test_fraction = 0.0
        data.window_bins = data.forecast_bins = data.transforms = None
        return data, chopped

    def adapted(
        self, spec: DataSpec, names: Shaped[np.ndarray, " neuron"] | None = None
    ) -> NeuralData:
        """Return these data as the spec of a trained model asks for them; they stay as they are.

        Args:
            spec: of the model.
            names: of its neurons, where it knows them, by which they are found here.

        Raises:
            InputError: if neurons, inputs or bin width cannot be brought together; see
                ``seqvae.data.adapting``.
        """
        if spec == self.spec and names is None:
            return self
        recording, adapted_spec, lengths = adapt(self.recording, self.spec, spec, names)
        trials = resident(recording, adapted_spec, lengths)
        loaded = self._get()
        return self._with(loaded._replace(recording=recording, spec=adapted_spec, resident=trials))

    def merged(self) -> NeuralData:
        """Return these data with the validation trials among the training trials."""
        return self._with(self._get().merged())

    @property
    def recording(self) -> Recording:
        """The validated recording, as the source gave it, or its windows."""
        return self._get().recording

    @property
    def spec(self) -> DataSpec:
        """The facts a model must know."""
        return self._get().spec

    @property
    def start(self) -> Int[np.ndarray, " trial"] | None:
        """Where the trials are windows of one long recording, the first bin of each."""
        return self._get().start

    @property
    def settled(self) -> tuple[Transform, ...]:
        """The transforms, with what they took from the recording."""
        return self._get().settled

    @property
    def split(self) -> Shaped[np.ndarray, " trial"]:
        """The split of each trial: "train", "val", "test"; "gap" beside a block; or all "new"."""
        return self._get().split

    @property
    def num_trials(self) -> dict[str, int]:
        """How many trials there are of "train", "val" and "test", of "gap" or "new" if any are."""
        words = [*SPLITS, *(word for word in ("gap", NEW) if word in self.split)]
        return {word: int((self.split == word).sum()) for word in words}

    def trials(self, split: str) -> Int[np.ndarray, " chosen"]:
        """Return the indices of the trials of "train", "val", "test" or "all".

        Raises:
            InputError: if the word is unknown or the split has no trial.
        """
        if split not in (*SPLITS, "all"):
            raise InputError(f"split {split!r} is unknown{nearest(split, (*SPLITS, 'all'))}")
        chosen = np.flatnonzero((self.split == split) | ((split == "all") & (self.split != OTHER)))
        if chosen.size == 0 and NEW in self.split:
            raise InputError(
                f"split {split!r}: the data are not those of the run and have no split of their "
                "own, so that all trials are taken; leave split out, or give 'all'"
            )
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

    def __str__(self) -> str:
        """Tell the recording, its splits and how many neurons are held out, if it is loaded."""
        if self._loaded is None:
            return f"NeuralData({type(self.source).__name__}, not loaded yet)"
        splits = ", ".join(f"{number} {word}" for word, number in self.num_trials.items() if number)
        return f"NeuralData({self.recording}; {splits}; {len(self.spec.heldout)} held out)"

    __repr__ = __str__

    @property
    def train_mean(self) -> Float[Tensor, " neuron"]:
        """Mean of each neuron over the observed training entries, per bin."""
        return self.train_moments.mean

    @property
    def train_std(self) -> Float[Tensor, " neuron"]:
        """Standard deviation of each neuron over the observed training entries."""
        return self.train_moments.std

    @property
    def _preparation(self) -> Preparation:
        names = [field.name for field in fields(Preparation) if field.name != "transforms"]
        settings = {name: getattr(self, name) for name in names}
        return Preparation(**settings, transforms=learners(self.transforms))

    def _with(self, loaded: Prepared | None) -> NeuralData:
        data = copy.copy(self)
        data._loaded, data._moments, data._owners = loaded, None, None
        return data

    def _get(self) -> Prepared:
        self.setup()
        assert self._loaded is not None
        return self._loaded

    @property
    def train_moments(self) -> Moments:
        """Mean, standard deviation and share of nonzero of each neuron in training."""
        if self._moments is None:
            batches = partial(self.compact_batches, "train")
            self._moments = batch_moments(batches, self.spec.num_neurons)
        return self._moments
