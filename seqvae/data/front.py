"""The front step of the verbs: whatever holds a recording, as ``NeuralData`` with its defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from seqvae.config.arguments import InConfig
from seqvae.data.neural_data import NeuralData
from seqvae.data.sources.front import SourceLike, as_source
from seqvae.errors import InputError

if TYPE_CHECKING:
    _DataLike: TypeAlias = NeuralData | SourceLike
else:  # whatever else is given is refused in words by ``as_data``
    _DataLike: TypeAlias = Any

DataLike: TypeAlias = Annotated[_DataLike, InConfig(NeuralData)]
"""The data that a verb takes; a config gives ``NeuralData``."""

BinWidth: TypeAlias = Annotated[float | None, InConfig(is_there=False)]
"""Seconds per bin beside an array; a config gives it to the source."""


def as_data(thing: DataLike, bin_width: float | None = None) -> NeuralData:
    """Return the data that a verb was given.

    Args:
        thing: ``NeuralData``, which are returned as they are, or whatever ``as_source`` takes.
        bin_width: seconds per bin, beside an array or a file.

    Raises:
        InputError: in one sentence, for anything else.
    """
    if not isinstance(thing, NeuralData):
        return NeuralData(as_source(thing, bin_width))
    if bin_width is not None:
        raise InputError("bin_width stands beside arrays and files; NeuralData have their own")
    return thing
