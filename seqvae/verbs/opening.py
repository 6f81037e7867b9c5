"""What the verbs share that ask a fitted model: the run they open, and where answers may go."""

from __future__ import annotations

import copy
import math
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from seqvae.data import NeuralData, as_data
from seqvae.data.front import DataLike
from seqvae.data.neurons import order_of
from seqvae.errors import InputError
from seqvae.runs import Run
from seqvae.storage.files import check_writable

_FOLDERS = (".zarr",)  # endings of what is a folder itself


class Opened(NamedTuple):
    """A run that a verb asks.

    Attributes:
        run: the run.
        data: the data to look at, as its model asks for them.
        model: its model.
        is_new: whether the data are others than the run was learned on.
    """

    run: Run
    data: NeuralData
    model: Any
    is_new: bool

    @property
    def scored_split(self) -> str:
        """The trials to score where none are named: test, else val; all of data without a split.

        Raises:
            InputError: if none are left that the run was not learned from.
        """
        learned = self.model.refitted and not self.is_new
        words = ("test",) if learned else ("test", "val")
        split = next((word for word in words if word in self.data.split), "all")
        if split == "all" and not self.is_new and not learned:
            warnings.warn(
                "split: no trials were kept for validation or test, so these scores are of the "
                "trials that the run was learned from; fit with data.val_fraction to tell more",
                stacklevel=4,
            )
        if learned and split == "all":
            raise InputError(
                "split: the run was refitted, so it has learned from its validation trials, too, "
                "and there are no test trials; give --split val to score them all the same, other "
                "data, or fit again with data.test_fraction"
            )
        return split

    def split_of(self, split: str | None) -> str:
        """Return the trials to score, and warn of trials that validated but were learned from.

        Args:
            split: what was asked for; None: nothing.

        Raises:
            InputError: if nothing was, and no trials are left that were not learned from.
        """
        if split == "val" and self.model.refitted and not self.is_new:
            warnings.warn(
                "split: the run was refitted, so it has learned from its validation trials, too: "
                "these scores are of training trials",
                stacklevel=3,
            )
        return self.scored_split if split is None else split


def open_run(
    run: Run | str, data: DataLike | None, trust: bool, *, bin_width: float | None = None
) -> Opened:
    """Return a run, the data to look at (its own, or others that fit it), and its model.

    The recording of the run, given again in whatever order of its neurons, is split as it was. Of
    others nothing is split off, and their neurons are found by name; see ``NeuralData.whole`` and
    ``seqvae.data.neurons``. What the run did to its recording is done to both, with the numbers it
    took from it; to ``NeuralData`` with transforms of their own only the latter.

    Raises:
        InputError: if run and data cannot be read, or do not go together.
    """
    run = run if isinstance(run, Run) else Run(run)
    model = run.model(trust=trust)
    if data is None:
        return Opened(run, as_data(run.data(trust=trust), bin_width), model, is_new=False)
    data = as_data(data, bin_width)
    raw, names = data.raw(), run.neuron_names(trust=trust)
    recording = raw if data.transforms else run.prepared(raw, trust=trust)
    model.observation.check(recording)
    order = order_of(recording.neuron_names, names)
    recording = recording if order is None else recording.arrange(order)
    if (again := run.own_data(recording, trust=trust)) is not None:
        return Opened(run, again, model, is_new=False)
    recording = raw if data.transforms else run.as_learned(raw, trust=trust)
    order = order_of(recording.neuron_names, names)
    data = data.of(recording if order is None else recording.arrange(order)).whole(like=run.spec)
    data = data.adapted(run.spec, names)
    if model.keeps_trials:
        model = copy.deepcopy(model)
        model.make_room(data.recording.num_trials, data.spec.num_encoded_bins)
    return Opened(run, data, model, is_new=True)


def check_num_samples(num_samples: int) -> None:
    """Refuse no posterior samples."""
    if num_samples < 1:
        raise InputError(f"num_samples must be at least 1, got {num_samples}")


def check_out(out: str, *endings: str) -> None:
    """Refuse a file that could not be written, before the work.

    Args:
        out: the file.
        endings: of its name, which say the format.

    Raises:
        InputError: for another ending, for a folder, or one that does not exist or may not be
            written to.
    """
    is_store = Path(out).suffix.lower() in _FOLDERS and Path(out).suffix.lower() in endings
    if Path(out).is_dir() and not is_store:
        raise InputError(f"out: {out!r} is a folder; give the name of a file in it")
    parent = Path(out).parent
    if not parent.is_dir():
        raise InputError(f"out: the folder {str(parent)!r} does not exist")
    if Path(out).suffix.lower() not in endings:
        formats = " or ".join(endings)
        raise InputError(f"out: {out!r} would be written as {formats}; give a name that ends so")
    check_writable(parent)


def tell_replaced(out: str) -> None:
    """Warn of a file that is there and will be replaced."""
    if Path(out).exists():
        warnings.warn(f"out: {out!r} is there already, and is replaced", stacklevel=3)


def without_nan(value: Any) -> Any:
    """Write NaN and infinity as null: JSON has no other word for what is no number."""
    if isinstance(value, dict):
        return {name: without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
