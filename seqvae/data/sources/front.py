"""Whatever holds one recording, as a source."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch

from seqvae.data.recording import Recording
from seqvae.data.sources.arrays import Arrays
from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.hdf5 import HDF5
from seqvae.data.sources.npz import Npz
from seqvae.data.sources.paths import from_path
from seqvae.errors import InputError


@runtime_checkable
class DataArray(Protocol):
    """What is asked of an ``xarray.DataArray``, which is not imported for those who have none."""

    @property
    def ndim(self) -> int:
        """Number of axes."""

    @property
    def dims(self) -> tuple[Hashable, ...]:
        """Name of each axis."""

    @property
    def coords(self) -> Any:
        """Labels along the axes."""

    @property
    def values(self) -> np.ndarray:
        """The numbers."""


if TYPE_CHECKING:
    SourceLike: TypeAlias = (
        RecordingSource
        | Recording
        | str
        | os.PathLike[str]
        | np.ndarray
        | torch.Tensor
        | Sequence[np.ndarray]
        | Sequence[torch.Tensor]
        | DataArray
    )
else:  # whatever else is given is refused in words by ``as_source``
    SourceLike: TypeAlias = Any

_DIMS = ("trial", "time", "neuron")
_SECONDS = (None, "s", "sec", "second", "seconds")
_CURES = {
    "DataFrame": "give counts as an array (trial, time, neuron), e.g. "
    "table.to_numpy().reshape(num_trials, num_bins, num_neurons)",
    "Dataset": "give the DataArray that holds the counts, e.g. dataset['counts']",
    "Ts": "count the spikes in bins first",
    "TsGroup": "count the spikes in bins first, e.g. [group.count(0.02, trial).to_numpy() for "
    "trial in trials]",
    "TsdFrame": "give its values, [frame.to_numpy()], with bin_width",
    "Mapping": "give the array of counts, or Arrays(**fields) for several fields",
    "NeuralData": "give it as it is, or its source",
}


def as_source(thing: SourceLike, bin_width: float | None = None) -> RecordingSource:
    """Return a source of what holds a recording.

    Args:
        thing: a source; a ``Recording``; a path, whose ending tells the format; an array or tensor
            (trial, time, neuron); a list with one (time, neuron) array per trial; or an
            ``xarray.DataArray`` with dims time, neuron and, unless it is one long recording, trial,
            in any order. Its coordinates neuron and trial name neurons and trials, and time, in
            seconds, tells the width of the bins.
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
    if isinstance(thing, DataArray):
        return _of_data_array(thing, bin_width)
    if isinstance(thing, np.ndarray | torch.Tensor):
        array = _plain(thing)
        if array.ndim == 2:
            raise InputError(
                f"an array of shape {array.shape} may be (time, neuron) or (trial, neuron); give "
                "[counts] for one recording over time, counts[:, None] for trials of one bin"
            )
        return Arrays(array, bin_width)
    if isinstance(thing, list | tuple):
        for index, trial in enumerate(thing):
            if not isinstance(trial, np.ndarray | torch.Tensor | list):
                raise InputError(
                    f"trial {index} of the list is {_article(trial)}; give one (time, neuron) "
                    "array per trial"
                )
        return Arrays([_plain(trial) for trial in thing], bin_width)
    names = [cls.__name__ for cls in type(thing).__mro__]
    names += ["Mapping"] if hasattr(thing, "keys") and hasattr(thing, "items") else []
    cures = [_CURES[name] for name in names if name in _CURES]
    if hasattr(thing, "toarray"):
        cures = ["a sparse matrix has no trials; give thing.toarray() as (trial, time, neuron)"]
    cure = cures[0] if cures else "if it holds numbers (trial, time, neuron), give np.asarray of it"
    raise InputError(
        "data must be an array (trial, time, neuron), a list of (time, neuron) arrays, a "
        f"DataArray, a path, a Recording or a source such as Lorenz(), got {_article(thing)}; "
        f"{cure}"
    )


def _of_path(path: str, bin_width: float | None) -> RecordingSource:
    source = from_path(path)
    if bin_width is None:
        return source
    if not isinstance(source, HDF5 | Npz):
        raise InputError(f"bin_width: {path!r} holds images, which have no bins; leave it out")
    return replace(source, bin_width=bin_width)


def _of_data_array(array: DataArray, bin_width: float | None) -> Arrays:
    dims = [str(dim) for dim in array.dims]
    if not {"time", "neuron"} <= set(dims) <= set(_DIMS):
        raise InputError(
            f"a DataArray needs the dims trial, time and neuron (or time and neuron), got "
            f"{', '.join(dims)}; rename them, e.g. array.rename(unit='neuron')"
        )
    values = np.transpose(array.values, [dims.index(dim) for dim in _DIMS if dim in dims])
    labels = {dim: array.coords[dim].values for dim in _DIMS if dim in array.coords}
    if bin_width is None and "time" in labels:
        bin_width = _spacing(labels["time"], array.coords["time"].attrs.get("units"))
    return Arrays(
        values if "trial" in dims else values[None],
        bin_width,
        neuron_ids=labels.get("neuron"),
        trial_ids=labels.get("trial"),
    )


def _spacing(time: np.ndarray, units: str | None) -> float | None:
    """Return the seconds between bins; refuse other units and uneven bins."""
    if units not in _SECONDS:
        raise InputError(f"the coordinate time is in {units!r}; give it in seconds, or bin_width")
    if time.dtype.kind not in "iufmM":
        raise InputError(
            f"the coordinate time holds {time.dtype}; give it in seconds, or bin_width"
        )
    if len(time) < 2:
        return None
    steps = np.diff(time)
    if steps.dtype.kind == "m":
        steps = steps / np.timedelta64(1, "s")
    step = float(np.median(steps))
    if not (step > 0 and np.allclose(steps, step, rtol=1e-3, atol=0)):
        index = int(np.argmax(~np.isclose(steps, step, rtol=1e-3, atol=0)))
        raise InputError(
            f"the coordinate time goes on by {steps[index]:g} s after bin {index}, elsewhere by "
            f"{step:g} s; bins must be of one width, which bin_width can tell"
        )
    return float(f"{step:.9g}")  # what differences of sums of it have lost


def _plain(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else values


def _article(thing: object) -> str:
    name = type(thing).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
