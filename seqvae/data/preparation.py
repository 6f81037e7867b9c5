"""A recording made ready: split (or cut into windows), with held-in neurons and encoded bins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from seqvae.data.loading import Trials, resident
from seqvae.data.recording import Recording
from seqvae.data.splits import check_fractions, choose_heldin, split_trials
from seqvae.data.transforms import Transform
from seqvae.data.windows import held_blocks, into_windows, is_continuous
from seqvae.errors import InputError
from seqvae.types import DataSpec


class Prepared(NamedTuple):
    """What batches are taken from.

    Attributes:
        recording: the recording, or its windows.
        split: "train", "val" or "test" for each trial; "gap" beside a block of windows.
        spec: the facts a model must know.
        resident: all trials, to index.
        start: the first bin of each window, where there are windows.
        settled: the transforms, with what they took from the recording.
    """

    recording: Recording
    split: np.ndarray
    spec: DataSpec
    resident: Trials
    start: np.ndarray | None
    settled: tuple[Transform, ...] = ()

    def merged(self) -> Prepared:
        """Return the same with the validation trials among the training trials."""
        return self._replace(split=np.where(self.split == "val", "train", self.split))


@dataclass(frozen=True)
class Preparation:
    """How a recording is split and what inference may see; the fields are those of NeuralData."""

    val_fraction: float
    test_fraction: float
    split_seed: int
    heldout: float | list[int] | None
    heldout_seed: int
    forecast_bins: int | None
    window_bins: int | None
    transforms: Sequence[Transform] = ()

    def prepare(self, recording: Recording) -> Prepared:
        """Split a recording, or cut one long trial into windows, and choose what is encoded.

        In between, transforms learn from the training trials what they do to all.

        Raises:
            InputError: if the settings do not fit the recording.
        """
        check_fractions(val_fraction=self.val_fraction, test_fraction=self.test_fraction)
        start = None
        if self._cuts(recording):
            recording, split, start = into_windows(
                recording,
                val_fraction=self.val_fraction,
                test_fraction=self.test_fraction,
                window_bins=self.window_bins,
                seed=self.split_seed,
            )
        else:
            split = split_trials(
                recording,
                val_fraction=self.val_fraction,
                test_fraction=self.test_fraction,
                seed=self.split_seed,
            )
        learned = []
        for transform in self.transforms:
            learned.append(transform.learned(recording, np.flatnonzero(split == "train")))
            recording = learned[-1](recording)
        spec = DataSpec(
            heldin=choose_heldin(recording, self.heldout, seed=self.heldout_seed),
            num_neurons=recording.num_neurons,
            num_inputs=recording.num_inputs,
            num_time_bins=recording.num_time_bins,
            num_encoded_bins=self._encoded_bins(recording),
            bin_width=recording.bin_width,
        )
        trials = resident(recording, spec, recording.lengths)
        return Prepared(recording, split, spec, trials, start, tuple(learned))

    def pool(self, recording: Recording) -> Recording:
        """Return what is not kept for the test; of one long trial, the bins before it."""
        test, seed = self.test_fraction, self.split_seed
        check_fractions(val_fraction=0.0, test_fraction=test)
        if self._cuts(recording) and test > 0:
            blocks = held_blocks(recording, val_fraction=0.0, test_fraction=test, seed=seed)
            recording, test = recording.cut(blocks.train), 0.0
        split = split_trials(recording, val_fraction=0.0, test_fraction=test, seed=seed)
        encoded = self._encoded_bins(recording)
        return recording.select(np.flatnonzero(split != "test")).encode(encoded)

    def _cuts(self, recording: Recording) -> bool:
        """Whether the recording is one long trial, to be cut into windows."""
        is_long = is_continuous(recording)
        if self.window_bins is not None and not is_long:
            raise InputError(
                f"window_bins cuts one long trial without a split of its own, got {recording}; "
                "leave it out"
            )
        holds_out = self.val_fraction > 0 or self.test_fraction > 0
        return is_long and (holds_out or self.window_bins is not None)

    def _encoded_bins(self, recording: Recording) -> int:
        num_time_bins = recording.num_time_bins
        if self.forecast_bins is None:
            return recording.num_encoded_bins or num_time_bins
        if not 0 <= self.forecast_bins < num_time_bins:
            raise InputError(
                f"forecast_bins must be from 0 to {num_time_bins - 1}, one below the "
                f"{num_time_bins} bins of a trial, got {self.forecast_bins}"
            )
        return num_time_bins - self.forecast_bins
