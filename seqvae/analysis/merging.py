"""What inference found in overlapping windows, merged onto the time of the whole recording."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, Shaped

from seqvae.analysis.posterior import ChunkValues, inferred
from seqvae.data import NeuralData
from seqvae.data.chopping import Chopped, CrossFade, Moments, Piece
from seqvae.errors import InputError
from seqvae.models import Model

if TYPE_CHECKING:
    import xarray as xr

    from seqvae.analysis.stores import Precision, Store

_BINS_AT_ONCE = 4096
_MOST_BINS = 1_000_000_000


class Axis(NamedTuple):
    """The bins of a whole recording, gaps between its trials included.

    Attributes:
        first: the place of the first bin of each trial.
        num_bins: bins from the first to the last.
        start: seconds at which the first begins.
    """

    first: Int[np.ndarray, " trial"]
    num_bins: int
    start: float


def axis_of(
    lengths: Int[np.ndarray, " trial"],
    start_times: Shaped[np.ndarray, " trial"] | None,
    bin_width: float | None,
) -> Axis:
    """Lay the trials of a recording onto one axis of time.

    Args:
        lengths: bins of each trial.
        start_times: seconds at which each trial begins; None: one trial, from 0 on.
        bin_width: seconds.

    Raises:
        InputError: for several trials of which nobody knows when they were, or that overlap.
    """
    if start_times is None or bin_width is None:
        if len(lengths) > 1:
            raise InputError(
                f"merged: nobody says when the {len(lengths)} trials began; give start_times (and "
                "bin_width) with the recording, or leave merged out"
            )
        start_times = np.zeros(1)
    start = float(start_times.min())
    first = np.round((start_times - start) / (bin_width or 1.0)).astype(np.int64)
    order = np.argsort(first, kind="stable")
    ends = (first + lengths)[order]
    overlaps = first[order][1:] < ends[:-1]
    if overlaps.any():
        one, other = order[int(np.argmax(overlaps))], order[int(np.argmax(overlaps)) + 1]
        raise InputError(
            f"merged: trials {one} and {other} overlap in time, so that a bin has two rates; leave "
            "merged out"
        )
    if ends[-1] > _MOST_BINS:
        raise InputError(
            f"merged: from the first trial to the last there are {ends[-1]:.3g} bins; look at "
            "start_times, which are in seconds"
        )
    return Axis(first, int(ends[-1]), start)


def merged_dataset(
    model: Model,
    data: NeuralData,
    chopped: Chopped,
    axis: Axis,
    *,
    split: Shaped[np.ndarray, " bin"],
    num_samples: int,
    path: str | None = None,
    attributes: Mapping[str, str | int | float] | None = None,
    seed: int = 0,
    devices: Sequence[torch.device] | None = None,
    work: str | None = None,
    variables: Sequence[str] | None = None,
    precision: Precision = "float32",
) -> xr.Dataset:
    """Infer overlapping windows, and cross-fade their moments to those of each bin.

    See ``CrossFade``. Of discrete latents the probabilities are faded, and the likeliest state is
    theirs. What a trial has one of (bounds, initial conditions) is left out. Bins in which nothing
    was observed are NaN.

    Args:
        model: a trained model.
        data: the windows, as data that answer to the model's spec.
        chopped: how they lie in the recording.
        axis: of its bins.
        split: of each bin.
        num_samples: posterior samples for each window.
        path: netCDF file, or zarr store, to stream to; None gathers in memory.
        attributes: facts about the run, kept in the result.
        seed: of the posterior samples.
        devices: share the windows out to replicas of the model.
        work: what a progress bar calls it.
        variables: names of those to keep; None: all.
        precision: of the numbers.

    Returns:
        Dataset with dims time (seconds at which the bin begins), neuron, factor and those of the
        latents.
    """
    from seqvae.analysis.stores import open_store

    order = np.lexsort((chopped.start, axis.first[chopped.trial]))
    starts = axis.first[chopped.trial][order] + chopped.start[order]
    answers = inferred(
        model, data, order, num_samples=num_samples, seed=seed, devices=devices, work=work
    )
    with ExitStack() as place:
        store = open_store(None if path is None else Path(path), place, precision)
        _describe_axes(store, data, axis, split=split, attributes=attributes or {})
        writer = _Writer(store, axis.num_bins, variables, precision)
        fade, window = CrossFade(chopped.ramp), 0
        with closing(answers):
            for part in answers:
                writer.discrete |= {name for name, v in part.values.items() if v.ndim == 2}
                for values, length in _windows(part):
                    for piece in fade.add(int(starts[window]), length, values):
                        writer.write(piece)
                    window += 1
                store.check()
        for piece in fade.rest():
            writer.write(piece)
    return store.dataset()


def _windows(part: ChunkValues) -> list[tuple[dict[str, Moments], int]]:
    """Return mean and deviation of each series over time by the name of the mean, per window."""
    pairs = {}
    for name, values in part.values.items():
        if values.ndim == 3 and not name.endswith("_sd"):
            missing = ~part.observed[:, : values.shape[1], None]
            sd = part.values[f"{name.removesuffix('_mean')}_sd"]
            pairs[name] = np.where(missing, np.nan, values), np.where(missing, np.nan, sd)
    return [
        ({name: Moments(mean[row], sd[row]) for name, (mean, sd) in pairs.items()}, int(length))
        for row, length in enumerate(part.lengths)
    ]


def _describe_axes(
    store: Store,
    data: NeuralData,
    axis: Axis,
    *,
    split: Shaped[np.ndarray, " bin"],
    attributes: Mapping[str, str | int | float],
) -> None:
    spec, width = data.spec, data.spec.bin_width
    heldin = np.zeros(spec.num_neurons, dtype=bool)
    heldin[list(spec.heldin)] = True
    bins = np.arange(axis.num_bins)
    time = bins if width is None else axis.start + bins * width
    described = {"units": "1", "long_name": "time bin"}
    if width is not None:
        described = {"units": "s", "long_name": "start of the bin"}
    neuron = data.recording.neuron_ids
    assert neuron is not None
    store.add_coordinate("time", "time", time, attributes=described)
    store.add_coordinate("neuron", "neuron", neuron, attributes={"long_name": "neuron"})
    store.add_coordinate("heldin", "neuron", heldin, attributes={"long_name": "heldin"})
    store.add_coordinate("split", "time", split, attributes={"long_name": "split"})
    facts = {**attributes, **({} if width is None else {"bin_width": width})}
    store.set_attributes(facts)


class _Writer:
    """Puts pieces of time into a store.

    Attributes:
        discrete: names of the latents that have a likeliest state.
    """

    def __init__(
        self,
        store: Store,
        num_bins: int,
        variables: Sequence[str] | None,
        precision: Precision,
    ) -> None:
        self._store, self._num_bins = store, num_bins
        self._variables, self._precision = variables, precision
        self.discrete: set[str] = set()

    def write(self, piece: Piece) -> None:
        """Put bins of which all is known."""
        from seqvae.analysis.posterior_file import chosen_variables, describe
        from seqvae.analysis.stores import rounded

        values = {}
        for name, (mean, sd) in piece.moments.items():
            values[name], values[f"{name.removesuffix('_mean')}_sd"] = mean, sd
            stem = name.removesuffix("_mean")
            if stem in self.discrete:
                values[stem] = np.where(np.isnan(mean).any(1), np.nan, mean.argmax(1))
        for name, array in chosen_variables(values, self._variables).items():
            dims, units, long_name = describe(name, array.ndim + 1)
            shape = (self._num_bins, *array.shape[1:])
            if name not in self._store.variables:
                self._store.add_variable(
                    name,
                    dims[1:],
                    shape=shape,
                    chunk=(min(self._num_bins, _BINS_AT_ONCE), *array.shape[1:]),
                    attributes={"units": units, "long_name": long_name},
                )
            stop = piece.start + len(array)
            self._store.variables[name][piece.start : stop] = rounded(array, self._precision)
