"""What X may be: rows, one long recording, trials, or a list of trials of unequal lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from seqvae.errors import InputError

Trials: TypeAlias = Any
"""(row, neuron), (trial, time, neuron), or a list with one (time, neuron) array per trial."""


@dataclass(frozen=True)
class Layout:
    """How X lies, so that what is made of it lies alike.

    Attributes:
        kind: ``rows``: each on its own; ``recording``: rows are successive bins; ``trials``: three
            axes; ``list``: arrays of unequal lengths.
        lengths: bins of each trial.
        dtype: of what is returned.
    """

    kind: Literal["rows", "recording", "trials", "list"]
    lengths: tuple[int, ...]
    dtype: np.dtype

    def like_x(self, values: np.ndarray) -> Any:
        """Lay (trial, time, feature) out as X lies."""
        values = values.astype(self.dtype)
        if self.kind == "rows":
            return values[:, 0]
        if self.kind == "recording":
            return values[0]
        if self.kind == "trials":
            return values
        return [trial[:length] for trial, length in zip(values, self.lengths, strict=True)]


def is_rows(x: Trials) -> bool:
    """Return whether X has two axes, which scikit-learn's own check then looks at."""
    if isinstance(x, list | tuple) and len(x) and np.ndim(x[0]) == 2:
        return False
    return getattr(x, "ndim", None) != 3


def as_trials(x: Trials) -> tuple[list[np.ndarray], Literal["trials", "list"]]:
    """Return trials of three axes, or of a list, as arrays (time, neuron) of numbers.

    Raises:
        InputError: for a trial without numbers, or of another number of neurons than the first.
    """
    kind: Literal["trials", "list"] = "trials" if getattr(x, "ndim", None) == 3 else "list"
    trials = [_numbers(trial, f"X[{index}]") for index, trial in enumerate(x)]
    if not trials:
        raise InputError("X: found no trial; give at least one (time, neuron) array")
    for index, trial in enumerate(trials):
        if trial.ndim != 2 or trial.shape[1] != trials[0].shape[-1] or not len(trial):
            raise InputError(
                f"X[{index}] has shape {trial.shape}; give (time, neuron) with the "
                f"{trials[0].shape[-1]} neurons of X[0]"
            )
    return trials, kind


def padded(trials: Sequence[np.ndarray]) -> np.ndarray:
    """Stack trials as (trial, time, neuron), NaN past the end of each."""
    longest = max(len(trial) for trial in trials)
    stacked = np.full((len(trials), longest, trials[0].shape[1]), np.nan)
    for row, trial in zip(stacked, trials, strict=True):
        row[: len(trial)] = trial
    return stacked


def _numbers(trial: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(trial, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} does not hold numbers: {error}") from error
