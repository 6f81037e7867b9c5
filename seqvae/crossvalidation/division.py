"""A recording divided into what each cell learns from, sees, and is scored on.

What is held out is missing (NaN) in every recording that a model gets, so no value of it can reach
a prediction.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from seqvae.data.folds import entry_folds, neuron_folds, subsample, trial_folds
from seqvae.data.recording import Recording
from seqvae.data.splits import members
from seqvae.data.windows import (
    WINDOWS_PER_BLOCK,
    Stretch,
    autocorrelation_time,
    block_folds,
    gap_bins,
    windows,
)
from seqvae.errors import InputError

Scheme: TypeAlias = Literal["fold_in", "gabriel", "speckled"]
Rows: TypeAlias = Literal["trials", "blocks", "random"]


class Holdout(NamedTuple):
    """What is scored together.

    Attributes:
        seen: the recording that inference gets; what is held out is missing.
        heldin: neurons that inference may see.
        truth: the values to score, NaN where nothing is scored.
    """

    seen: Recording
    heldin: tuple[int, ...]
    truth: Float[np.ndarray, "trial time neuron"]


@dataclass(frozen=True, eq=False)
class Division:
    """The folds of a recording.

    Rows are whole ``trials``, contiguous ``blocks`` of one long recording with a gap on either
    side, or single bins at ``random``. Columns are neurons, in folds alike in firing rate.

    Attributes:
        recording: all that may be learned from and scored.
        scheme: ``fold_in`` and ``gabriel`` hold out rows and columns, ``speckled`` random entries.
        rows: as above.
        num_trial_folds: folds of trials (speckled: of entries).
        num_neuron_folds: folds of neurons.
        gap: bins left free on either side of a block.
        seed: of the folds.
        fraction: of the training trials of each fold that is learned from; what is held out stays.
    """

    recording: Recording
    scheme: Scheme
    rows: Rows
    num_trial_folds: int
    num_neuron_folds: int
    gap: int
    seed: int
    fraction: float = 1.0

    @classmethod
    def of(
        cls,
        recording: Recording,
        *,
        scheme: Scheme,
        rows: Literal["auto", "trials", "blocks", "random"],
        trial_folds: int,
        neuron_folds: int,
        gap: int | None,
        seed: int,
    ) -> Division:
        """Divide a recording; what is left to us is chosen by the data.

        ``rows="auto"`` takes blocks for one long trial, else trials. ``gap=None`` is the time in
        which the activity forgets itself, at most a quarter of a block.

        Raises:
            InputError: if the folds do not fit the data.
        """
        if rows == "auto":
            long = recording.num_trials == 1 and recording.num_time_bins > 1
            rows = "blocks" if long and scheme != "speckled" else "trials"
        if scheme == "speckled" and rows != "trials":
            raise InputError(f"rows: speckled hold-out has no rows, got {rows!r}; leave it 'auto'")
        if rows == "blocks" and recording.num_trials > 1:
            raise InputError(
                f"rows: 'blocks' cuts one long recording, but there are {recording.num_trials} "
                "trials, which are safer folds; use rows='trials'"
            )
        if gap is not None and gap < 0:
            raise InputError(f"gap must be at least 0 bins, got {gap}")
        memory = autocorrelation_time(recording.read()) if rows != "trials" else 1.0
        block = recording.num_time_bins // max(trial_folds, 1)
        if rows == "random" and memory > 2:
            warnings.warn(
                f"rows: activity is correlated over {memory:.0f} bins, so random rows are no fair "
                "test: they favour the largest dimension; use 'trials' or 'blocks'",
                stacklevel=2,
            )
        if rows == "blocks" and memory > block / 10:
            warnings.warn(
                f"rows: activity is correlated over {memory:.0f} bins, a sizeable share of a block "
                f"of {block}; fewer trial_folds make longer blocks",
                stacklevel=2,
            )
        if gap is None:
            gap = gap_bins(memory, block) if rows == "blocks" else 0
        # the folds say what is held out, not the file
        recording = replace(recording, split=None, heldin=None, rates=None, behavior=None)
        if rows == "random":
            recording = _single_bins(recording)
        division = cls(recording, scheme, rows, trial_folds, neuron_folds, gap, seed)
        division.part(0, None if scheme == "speckled" else 0)  # refuses here what it must
        return division

    @cached_property
    def neuron_fold(self) -> Int[np.ndarray, " neuron"]:
        """The fold of each neuron."""
        activity = self.recording.read()
        present = np.isfinite(activity)
        total = np.where(present, activity, 0.0).sum((0, 1), dtype=np.float64)
        mean = total / np.maximum(present.sum((0, 1)), 1)
        fold = np.empty(len(mean), dtype=np.int64)
        for own in members(self.recording.neuron_sessions, len(mean)).values():
            fold[own] = neuron_folds(self.num_neuron_folds, mean=mean[own], seed=self.seed)
        return fold

    @cached_property
    def trial_fold(self) -> Int[np.ndarray, " trial"]:
        """The fold of each trial, where rows are trials."""
        return trial_folds(self.num_trial_folds, condition=self._strata, seed=self.seed)

    @cached_property
    def entry_fold(self) -> Int[np.ndarray, "trial time neuron"]:
        """The fold of each entry, where entries are held out."""
        return entry_folds(self.num_trial_folds, shape=self.recording.shape, seed=self.seed)

    def heldin(self, neuron_fold: int | None) -> tuple[int, ...]:
        """Return the neurons that inference may see; None: all."""
        everyone = np.arange(self.recording.num_neurons)
        seen = everyone if neuron_fold is None else everyone[self.neuron_fold != neuron_fold]
        return tuple(int(neuron) for neuron in seen)

    def train(self, trial_fold: int) -> Recording:
        """Return what is learned from when a fold is held out, all neurons of it."""
        if self.scheme == "speckled":
            return self.recording.hide(self.entry_fold == trial_fold)
        if self.rows == "blocks":
            return _windowed(self.recording, self._stretches(trial_fold)[0], self._longest)
        return self.recording.select(self._training_trials(trial_fold))

    def test(self, trial_fold: int) -> Recording:
        """Return the rows of a fold, nothing hidden."""
        if self.rows == "blocks":
            return _windowed(self.recording, [self._stretches(trial_fold)[1]], self._longest)
        return self.recording.select(np.flatnonzero(self.trial_fold == trial_fold))

    def scored(self, trial_fold: int) -> Bool[np.ndarray, "trial time neuron"]:
        """Return the rows of a fold (speckled: its entries), as entries of the recording."""
        if self.scheme == "speckled":
            return self.entry_fold == trial_fold
        entries = np.zeros(self.recording.shape, dtype=bool)
        if self.rows == "blocks":
            entries[:, slice(*self._stretches(trial_fold)[1])] = True
        else:
            entries[self.trial_fold == trial_fold] = True
        return entries

    def holding(self, recording: Recording) -> Division:
        """Return the same folds of another recording of this shape."""
        other = replace(self, recording=recording)
        other.__dict__["neuron_fold"] = self.neuron_fold  # which its own rates would change
        return other

    def part(self, trial_fold: int, neuron_fold: int | None) -> Holdout:
        """Return what is scored of a trial fold and a fold of neurons."""
        if self.scheme == "speckled":
            hidden = self.entry_fold == trial_fold
            truth = _encoded(self.recording, hidden)
            return Holdout(self.recording.hide(hidden), self.heldin(None), truth)
        test = self.test(trial_fold)
        heldin = self.heldin(neuron_fold)
        hidden = np.ones(test.shape, dtype=bool)
        hidden[..., list(heldin)] = False
        return Holdout(test.hide(hidden), heldin, _encoded(test, hidden))

    def with_fraction(self, fraction: float) -> Division:
        """Return the same folds, where a fraction of each fold's training trials is learned from.

        Subsamples are nested, and spread over the conditions.
        """
        return replace(self, fraction=fraction)

    @property
    def num_training_trials(self) -> int:
        """The fewest trials that a fold is learned from, where rows are trials."""
        return min(len(self._training_trials(fold)) for fold in range(self.num_trial_folds))

    def _training_trials(self, trial_fold: int) -> Int[np.ndarray, " trial"]:
        trials = np.flatnonzero(self.trial_fold != trial_fold)
        if self.fraction == 1:
            return trials
        seed = [self.seed, 3, trial_fold]
        return trials[subsample(self.fraction, condition=self._strata[trials], seed=seed)]

    @property
    def _strata(self) -> Shaped[np.ndarray, " trial"]:
        """Labels that are spread over folds: conditions, of several sessions those of each."""
        condition, session = self.recording.condition, self.recording.trial_sessions
        condition = np.zeros(self.recording.num_trials) if condition is None else condition
        if session is None:
            return condition
        return np.char.add(np.char.add(session.astype(str), "/"), condition.astype(str))

    def _stretches(self, fold: int) -> tuple[list[Stretch], Stretch]:
        return block_folds(self.recording.num_time_bins, self.num_trial_folds, fold, gap=self.gap)

    @property
    def _longest(self) -> int:
        block = self.recording.num_time_bins / self.num_trial_folds
        return max(1, math.ceil(block / WINDOWS_PER_BLOCK))


def _encoded(
    recording: Recording, hidden: Bool[np.ndarray, "trial time neuron"]
) -> Float[np.ndarray, "trial time neuron"]:
    """Return the hidden entries in encoded bins, NaN elsewhere."""
    truth = np.where(hidden, recording.read(), np.float32(np.nan))
    if recording.num_encoded_bins is not None:
        truth[:, recording.num_encoded_bins :] = np.nan
    return truth


def _windowed(recording: Recording, stretches: list[Stretch], longest: int) -> Recording:
    """Return windows of stretches of one long trial as trials of their own."""
    pieces = [window for stretch in stretches for window in windows(stretch, longest)]
    (activity,) = recording.read([0])
    return recording.cut([piece for piece in pieces if np.isfinite(activity[slice(*piece)]).any()])


def _single_bins(recording: Recording) -> Recording:
    """Return each bin as a trial of its own; those without any value are left out."""
    seen = np.isfinite(recording.read()).any(axis=2)

    def rows(values: np.ndarray) -> np.ndarray:
        return values[seen][:, None]

    condition = recording.condition
    return Recording(
        rows(recording.read()),
        recording.bin_width,
        inputs=None if recording.inputs is None else rows(recording.inputs),
        condition=None if condition is None else np.repeat(condition, seen.sum(axis=1)),
        neuron_ids=recording.neuron_ids,
    )
