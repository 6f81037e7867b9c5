"""The front step of the verbs: whatever holds a recording, as ``NeuralData`` with its defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from seqvae.config.arguments import InConfig
from seqvae.data.neural_data import NeuralData
from seqvae.data.sources.front import SourceLike, as_source
from seqvae.data.windows import is_continuous
from seqvae.errors import InputError
from seqvae.types import DataSpec

if TYPE_CHECKING:
    _DataLike: TypeAlias = NeuralData | SourceLike
else:  # whatever else is given is refused in words by ``as_data``
    _DataLike: TypeAlias = Any

DataLike: TypeAlias = Annotated[_DataLike, InConfig(NeuralData)]
"""The data that a verb takes; a config gives ``NeuralData``."""

BinWidth: TypeAlias = Annotated[float | None, InConfig(is_there=False)]
"""Seconds per bin beside an array; a config gives it to the source."""


def as_data(
    thing: DataLike, bin_width: float | None = None, *, like: DataSpec | None = None
) -> NeuralData:
    """Return the data that a verb was given.

    Args:
        thing: ``NeuralData``, which are returned as they are, or whatever ``as_source`` takes.
        bin_width: seconds per bin, beside an array or a file.
        like: the facts of the data of a model that is asked about others: one long trial is cut
            into windows as long as the trials that it knows; of one trial nothing validates.

    Raises:
        InputError: in one sentence, for anything else.
    """
    if not isinstance(thing, NeuralData):
        source = as_source(thing, bin_width)
        if like is None:
            return NeuralData(source)
        recording = source.load()
        if not is_continuous(recording):
            is_one = recording.num_trials == 1 and recording.split is None
            return NeuralData(recording, val_fraction=0.0 if is_one else 0.2)
        return NeuralData(recording, val_fraction=0.0, window_bins=like.num_time_bins)
    if bin_width is not None:
        raise InputError("bin_width stands beside arrays and files; NeuralData have their own")
    return thing
