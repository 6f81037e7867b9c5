"""What inference found, as labelled arrays: chunks of trials in, one ``xarray.Dataset`` out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import xarray as xr
from jaxtyping import Float, Int, Shaped

from seqvae.analysis.stores import Precision, Store, open_store, rounded
from seqvae.errors import InputError, nearest

_ACTIVITY = ("trial", "time", "neuron")
_KNOWN = {
    "rates": (_ACTIVITY, "Hz", "firing rate, posterior mean"),
    "rates_sd": (_ACTIVITY, "Hz", "firing rate, posterior standard deviation"),
    "mean": (_ACTIVITY, "data units", "expected activity, posterior mean"),
    "mean_sd": (_ACTIVITY, "data units", "expected activity, posterior standard deviation"),
    "activity": (_ACTIVITY, "per bin", "recorded activity"),
    "factors": (("trial", "time", "factor"), "1", "factors, posterior mean"),
    "factors_sd": (("trial", "time", "factor"), "1", "factors, posterior standard deviation"),
    "elbo": (("trial",), "nats", "evidence lower bound of the trial"),
}


class PosteriorWriter:
    """Gathers chunks of trials, in memory or straight into a netCDF4 file, or zarr, of any size.

    A context manager: the file is written beside ``path`` under a passing name and put in its
    place in one move when the block ends well, so that a failure leaves no half file and does not
    touch an older one. Both routes give the same dataset.

    Variables have dims from (trial, time, neuron), (trial, time, factor), (trial,) or, for a latent
    ``<name>_mean`` and ``<name>_sd``, (trial, [time,] ``<name>_dim``). A discrete latent has the
    probabilities of its states for its mean, and the most likely state, from 0, under its own name
    (trial, time). Values are stored in single precision, those with one number per trial in double.

    Args:
        path: file to write; None gathers in memory.
        trial: id of each trial, in the order in which the chunks will come.
        neuron: id of each neuron.
        num_time_bins: bins of the longest trial.
        bin_width: seconds; the time coordinate is then the start of each bin in seconds. None:
            the index of the bin.
        centres: of the bins, in seconds from an event, which are then the time coordinate.
        event_name: what the event is.
        coordinates: more coordinates, name -> (dim, values), such as
            ``{"heldin": ("neuron", mask), "condition": ("trial", labels)}``.
        attributes: facts about the whole, such as model, run hash and versions.
        variables: names of those to keep; None: all.
        precision: of what has more than one number per trial.

    Raises:
        InputError: ``path`` cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        trial: Shaped[np.ndarray, " trial"],
        neuron: Shaped[np.ndarray, " neuron"],
        num_time_bins: int,
        bin_width: float | None = None,
        centres: Float[np.ndarray, " time"] | None = None,
        event_name: str | None = None,
        coordinates: Mapping[str, tuple[str, np.ndarray]] | None = None,
        attributes: Mapping[str, str | int | float] | None = None,
        variables: Sequence[str] | None = None,
        precision: Precision = "float32",
    ) -> None:
        self._variables, self._precision = variables, precision
        self._path = None if path is None else Path(path)
        self._sizes = {"trial": len(trial), "time": num_time_bins, "neuron": len(neuron)}
        self._attributes = dict(attributes or {})
        time: np.ndarray = np.arange(num_time_bins)
        units, long_name = "1", "time bin"
        if bin_width is not None:
            time = time * bin_width
            units, long_name = "s", "start of the bin"
            self._attributes["bin_width"] = bin_width
        described = {"units": units, "long_name": long_name}
        if centres is not None:
            event = event_name or "event"
            time = centres
            described = {"units": "s", "long_name": f"centre of the bin, 0 at {event}"}
            described["event"] = event
        self._coordinates: dict[str, tuple[str, np.ndarray, dict[str, str]]] = {
            "trial": ("trial", trial, {"long_name": "trial"}),
            "time": ("time", time, described),
            "neuron": ("neuron", neuron, {"long_name": "neuron"}),
        }
        for name, (dim, values) in (coordinates or {}).items():
            self._coordinates[name] = (dim, values, {"long_name": name.replace("_", " ")})
        self._store: Store
        self._num_written = 0

    def __enter__(self) -> PosteriorWriter:
        with ExitStack() as place:
            self._store = open_store(self._path, place, self._precision)
            for name, (dim, values, attributes) in self._coordinates.items():
                self._store.add_coordinate(name, dim, values, attributes=attributes)
            self._store.set_attributes(self._attributes)
            self._place = place.pop_all()
        return self

    def write(
        self,
        values: Mapping[str, np.ndarray],
        *,
        lengths: Int[np.ndarray, " chunk"] | None = None,
    ) -> None:
        """Add the next trials; every chunk holds the same variables.

        Args:
            values: name -> array that begins with the trial axis.
            lengths: bins of each trial; what lies past them becomes NaN. None: all bins count.
        """
        start = self._num_written
        stop = start + len(next(iter(values.values())))
        for name, array in chosen_variables(values, self._variables).items():
            dims, units, long_name = describe(name, array.ndim)
            assert len(array) == stop - start, f"{name}: {len(array)} trials, not {stop - start}"
            if start == 0:
                for dim, size in zip(dims, array.shape, strict=True):
                    expected = self._sizes.setdefault(dim, size)
                    assert dim == "trial" or size == expected, (
                        f"{name}: {dim} {size}, not {expected}"
                    )
                self._store.add_variable(
                    name,
                    dims,
                    shape=tuple(self._sizes[dim] for dim in dims),
                    chunk=array.shape,
                    attributes={"units": units, "long_name": long_name},
                )
            if lengths is not None and "time" in dims:
                padded = np.arange(array.shape[1]) >= lengths[:, None]
                array = np.where(padded[(...,) + (None,) * (array.ndim - 2)], np.nan, array)
            whole = dims == ("trial",)
            self._store.variables[name][start:stop] = (
                array if whole else rounded(array, self._precision)
            )
        self._store.check()
        self._num_written = stop

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._place:
            if error is not None:
                raise error
            num_trials = self._sizes["trial"]
            assert self._num_written == num_trials, f"{self._num_written} of {num_trials} trials"

    def dataset(self) -> xr.Dataset:
        """All that was written, once the block has ended; read lazily if it lies in a file."""
        return self._store.dataset()


def chosen_variables(
    values: Mapping[str, np.ndarray], names: Sequence[str] | None
) -> dict[str, np.ndarray]:
    """Return the variables of some names, by name.

    Raises:
        InputError: for a name that is not there.
    """
    for name in names or ():
        if name not in values:
            raise InputError(f"variables: there is no {name!r}{nearest(name, values)}")
    return {name: values[name] for name in values if names is None or name in names}


def describe(name: str, num_axes: int) -> tuple[tuple[str, ...], str, str]:
    """Dims, units and long name of a variable."""
    if name in _KNOWN:
        return _KNOWN[name]
    if num_axes == 1:
        return ("trial",), "nats", name.replace("_", " ")
    if num_axes == 2 and not name.endswith(("_mean", "_sd")):
        return ("trial", "time"), "1", f"{name.replace('_', ' ')}, most likely"
    latent, _, moment = name.rpartition("_")
    assert moment in ("mean", "sd"), f"{name}: a latent is <name>_mean or <name>_sd"
    dims = ("trial", "time", f"{latent}_dim") if num_axes == 3 else ("trial", f"{latent}_dim")
    word = "mean" if moment == "mean" else "standard deviation"
    return dims, "1", f"{latent.replace('_', ' ')}, posterior {word}"
