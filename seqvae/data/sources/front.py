"""Whatever holds one recording, as a source."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
import torch

from seqvae.data.axes import series
from seqvae.data.containers import article, cure_of, is_list
from seqvae.data.recording import Recording
from seqvae.data.sources.arrays import Arrays, over_time
from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.images import Images
from seqvae.data.sources.paths import from_path
from seqvae.data.sources.sessions import Sessions
from seqvae.data.sources.spike_times import SpikeTimes
from seqvae.data.spikes import holds_spikes
from seqvae.errors import InputError


class Container(Protocol):
    """What else may hold an array: DataArrays, tables, sparse and masked arrays, by their axes."""

    @property
    def ndim(self) -> int:
        """Number of axes."""


if TYPE_CHECKING:
    SourceLike: TypeAlias = (
        RecordingSource
        | Recording
        | str
        | os.PathLike[str]
        | np.ndarray
        | torch.Tensor
        | Sequence[Any]
        | Container
    )
else:  # whatever else is given is refused in words by ``as_source``
    SourceLike: TypeAlias = Any


def as_source(thing: SourceLike, bin_width: float | None = None) -> RecordingSource:
    """Return a source of what holds a recording.

    Args:
        thing: a source; a ``Recording``; a path, whose ending tells the format, or a pattern of the
            paths of several sessions, such as ``monkey/*.h5``; an array or tensor
            (trial, time, neuron); a table, or an array whose first axis is by far the longer one,
            (time, neuron) of one long recording; a list with one (time, neuron) array, sparse
            matrix or DataFrame per trial, whose columns are the neurons; times of spikes, as
            ``SpikeTimes`` takes them; or an ``xarray.DataArray`` with dims time,
            neuron and, unless it is one long recording, trial, in any order. Its coordinates neuron
            and trial name neurons and trials, and time, in seconds, tells the width of the bins.
        bin_width: seconds per bin, for arrays and files, where it takes the place of what these
            say; a source and a recording say it themselves.

    Raises:
        InputError: in one sentence, for anything else.
    """
    if isinstance(thing, RecordingSource | Recording):
        if bin_width is not None:
            name = type(thing).__name__
            raise InputError(
                f"bin_width stands beside arrays and files only; {name} has its own, give it there"
            )
        return thing if isinstance(thing, RecordingSource) else Arrays(thing)
    if isinstance(thing, str | os.PathLike):
        return _of_path(os.fspath(thing), bin_width)
    if type(thing).__name__ == "TsdFrame" and hasattr(thing, "as_dataframe"):
        thing = thing.as_dataframe()
    if holds_spikes(thing):
        if bin_width is None:
            raise InputError(
                f"bin_width is required: {article(thing)} of times of spikes is counted in bins"
            )
        return SpikeTimes(thing, bin_width)
    cure = cure_of(thing)
    if is_list(thing):
        assert isinstance(thing, Sequence | np.ndarray)
        for index, trial in enumerate(thing):
            if cure_of(trial) or not (isinstance(trial, list) or getattr(trial, "ndim", 0) != 0):
                raise InputError(
                    f"trial {index} of the list is {article(trial)}; "
                    f"{cure_of(trial) or 'give one (time, neuron) array per trial'}"
                )
        return Arrays(thing, bin_width)
    if cure is None and hasattr(thing, "dims") and hasattr(thing, "coords"):
        laid = series("activity", thing)
        laid.bin_width("activity", is_told=bin_width is not None)
        return Arrays(laid, bin_width)
    if cure is None and hasattr(thing, "ndim") and hasattr(thing, "shape"):
        if thing.ndim == 2:
            return Arrays([over_time(thing, bin_width)], bin_width)
        return Arrays(thing, bin_width)
    cure = cure or "if it holds numbers (trial, time, neuron), give np.asarray of it"
    raise InputError(
        "data must be an array (trial, time, neuron), a list of (time, neuron) arrays, a "
        f"DataArray, a path, a Recording or a source such as Lorenz(), got {article(thing)}; "
        f"{cure}"
    )


def _of_path(path: str, bin_width: float | None) -> RecordingSource:
    if glob.has_magic(path) and not os.path.exists(path):
        sessions = Sessions(path)
        if bin_width is None:
            return sessions
        return Sessions([_of_path(str(one), bin_width) for one in sessions.sources])
    source = from_path(path)
    if bin_width is None:
        return source
    if isinstance(source, Images):
        raise InputError(f"bin_width: {path!r} holds images, which have no bins; leave it out")
    return replace(source, bin_width=bin_width)  # type: ignore[type-var]
