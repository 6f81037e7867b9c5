"""Names along the axes of tables and DataArrays: series are laid as (trial, time, channel) by them.

What stands under a name goes where the name goes: columns, dims and trials of another order are
brought into that of the activity, or refused; nothing that is named is taken by its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from seqvae.data.containers import article, is_list, plain_labels, plain_numbers
from seqvae.data.spacing import Clock, row_clock
from seqvae.errors import InputError

DIMS = ("trial", "time", "neuron")
_CHANNELS = "channel"  # stands for a dim of any name
_SYNONYMS = {
    "trial": ("trials", "trial_id", "epoch", "event", "sample"),
    "time": ("times", "t", "bin", "bins", "time_bin", "timepoint"),
    "neuron": ("neurons", "unit", "units", "unit_id", "cell", "cells", "channel", "channels"),
}


@dataclass(frozen=True, eq=False)
class Series:
    """Numbers (trial, time, channel), and the names along their axes where they have any.

    Attributes:
        values: the numbers; NaN = missing, or padding after the end of a trial.
        trials: names of the trials.
        channels: names of the channels.
        is_counted: whether the latter only count from 0, as the columns of a table do by default.
        clocks: the times of the bins, of all trials or of each.
        lengths: bins of each trial, where the trials came one by one.
    """

    values: np.ndarray
    trials: np.ndarray | None = None
    channels: np.ndarray | None = None
    is_counted: bool = False
    clocks: tuple[Clock, ...] = ()
    lengths: list[int] | None = None

    def bin_width(self, name: str, *, is_told: bool) -> float | None:
        """Return the seconds between bins, where times tell them.

        Raises:
            InputError: for times that are no even rise, unless ``is_told``, or no rise at all.
        """
        spacings = [clock.spacing(is_told=is_told) for clock in self.clocks]
        widths = [width for width in spacings if width is not None]
        if widths and max(widths) > 1.001 * min(widths):
            raise InputError(
                f"the bins of the trials in {name} are {min(widths):g} to {max(widths):g} s wide; "
                "bins must be of one width, which bin_width can tell"
            )
        return widths[0] if widths else None


def series(name: str, value: Any, lengths: list[int] | None = None) -> Series:
    """Lay out a whole series, or a list with one (time, channel) array per trial.

    Args:
        name: ``activity`` and ``rates`` have neurons as channels, others channels of any name.
        value: what holds it.
        lengths: the bins of each trial, which those of a list must have, too.

    Raises:
        InputError: for what has no such axes.
    """
    if isinstance(value, Series):
        return value
    if is_list(value) and len(value) == 0:
        raise InputError(f"{name} holds zero trials; give at least one")
    if is_list(value) and any(_has_axes(trial) for trial in value):
        return _stacked(name, [_trial(name, i, trial) for i, trial in enumerate(value)], lengths)
    whole = _laid(name, value, ("trial", "time", _channel(name)))
    if whole.values.ndim != 3:
        raise InputError(f"{name} must be (trial, time, channel), got shape {whole.values.shape}")
    return whole


def stand_in(shape: tuple[int, int, int]) -> Series:
    """Return a series of these sizes that takes no memory, in place of one that is not read."""
    return Series(np.broadcast_to(np.float32(0), shape))


def places_of(
    name: str,
    axis: str,
    own: np.ndarray,
    ids: np.ndarray,
    *,
    are_given: bool,
    is_counted: bool = False,
) -> np.ndarray | None:
    """Return the places at which the names of the activity stand in another argument.

    Args:
        name: of the argument.
        axis: "trial" or "neuron".
        own: its names.
        ids: those of the activity.
        are_given: whether anything says the latter, else they count from 0.
        is_counted: whether the former only count from 0.

    Returns:
        The places, or None where its order is that of the activity.

    Raises:
        InputError: for other names, and for another order where one side only counts.
    """
    if len(own) != len(ids) or np.array_equal(own, ids):
        return None  # another number of them is refused for its shape
    places = {label: place for place, label in enumerate(own.tolist())}
    order = [places.get(label, -1) for label in ids.tolist()]
    if -1 in order or len(places) < len(own):
        if is_counted or not are_given:
            return None
        raise InputError(
            f"{name} has other names of {axis}s than the activity, such as "
            f"{str(ids[order.index(-1) if -1 in order else 0])!r} there; give both the same names, "
            "each once, or plain arrays"
        )
    if is_counted or not are_given:
        raise InputError(
            f"{name} names the {axis}s in another order than the activity, where they only count; "
            "name them in both, or give plain arrays in one order"
        )
    return np.array(order)


def labels_in_order(name: str, value: Any, ids: np.ndarray, *, are_given: bool) -> Any:
    """Return labels of trials in the order of the activity's, where they name their trials.

    The index of a pandas Series is that of a table, of which trials may have been chosen: of it no
    more is asked than that it is not the trials in another order.
    """
    if hasattr(value, "dims") and hasattr(value, "coords"):
        if "trial" not in value.dims or "trial" not in value.coords:
            return value
        own = plain_labels(f"the coordinate trial of {name}", value.coords["trial"].values)
        order = places_of(name, "trial", own, ids, are_given=are_given)
        return value if order is None else plain_labels(name, value)[order]
    index = getattr(value, "index", None)
    if index is None or callable(index) or getattr(index, "nlevels", 1) > 1:
        return value
    own = np.asarray(index)
    if len(own) == len(ids) and not np.array_equal(own, ids) and set(own) == set(ids.tolist()):
        raise InputError(
            f"{name} is {article(value)} whose index is the trials in another order; give "
            f"{name}.to_numpy() if it stands in the order of the activity, else sort it"
        )
    return value


def along(axis: str, order: np.ndarray) -> tuple[Any, ...]:
    """Return the index that puts trials or neurons of a series in an order."""
    return (order,) if axis == "trial" else (slice(None), slice(None), order)


def _channel(name: str) -> str:
    return "neuron" if name.startswith(("activity", "rates")) else _CHANNELS


def _has_axes(item: Any) -> bool:
    return isinstance(item, list | tuple) or getattr(item, "ndim", 0) != 0


def _trial(name: str, index: int, trial: Any) -> Series:
    if not _has_axes(trial):
        raise InputError(
            f"trial {index} of the list {name} is {article(trial)}; give one (time, channel) array "
            "per trial"
        )
    return _laid(f"{name}[{index}]", trial, ("time", _channel(name)))


def _laid(name: str, value: Any, dims: tuple[str, ...]) -> Series:
    """Read a DataArray by its dims, a table by its columns, and anything else by place."""
    if hasattr(value, "dims") and hasattr(value, "coords"):
        return _of_data_array(name, value, dims)
    values = plain_numbers(name, value)
    if not hasattr(value, "columns"):
        return Series(values)
    columns, rows = value.columns, getattr(value, "index", None)
    if any(getattr(index, "nlevels", 1) > 1 for index in (columns, rows)):
        raise InputError(
            f"{name} is a table with an index of several levels; give a list of tables (time, "
            "neuron), one per trial: [trial.droplevel(0) for _, trial in table.groupby(level=0)]"
        )
    clock = None if rows is None else row_clock(name, rows)
    return Series(
        values,
        channels=plain_labels(f"the columns of {name}", columns),
        is_counted=getattr(columns, "step", None) == 1 and columns.start == 0,
        clocks=() if clock is None else (clock,),
    )


def _of_data_array(name: str, array: Any, dims: tuple[str, ...]) -> Series:
    there = [str(dim) for dim in array.dims]
    if dims[-1] == _CHANNELS:
        foreign = [dim for dim in there if dim not in ("trial", "time")]
        dims = (*dims[:-1], foreign[0] if len(foreign) == 1 else _CHANNELS)
    wanted = [dim for dim in dims if dim in there or dim != "trial"]
    if sorted(there) != sorted(wanted):
        raise InputError(
            f"{'' if name == 'activity' else f'{name}: '}a DataArray needs the dims "
            f"{', '.join(dims[:-1])} and {dims[-1]}"
            f"{' (or time and neuron)' if name == 'activity' else ''}, got {', '.join(there)}; "
            f"rename them, e.g. array.rename({_renaming(there, dims)})"
        )
    values = plain_numbers(name, array)
    values = np.transpose(values, [there.index(dim) for dim in wanted])
    coords = {str(dim): array.coords[dim] for dim in array.coords}
    names: dict[str, np.ndarray] = {}
    for dim in {dims[-1], "trial"} & set(coords):
        if coords[dim].ndim and coords[dim].to_index().nlevels > 1:
            raise InputError(f"{name}: the coordinate {dim} has several levels; give it one")
        names[dim] = np.atleast_1d(plain_labels(f"the coordinate {dim} of {name}", coords[dim]))
    clocks: tuple[Clock, ...] = ()
    if "time" in coords and coords["time"].ndim:
        units = coords["time"].attrs.get("units")
        clocks = (Clock(np.asarray(coords["time"].values), units, "the coordinate time"),)
    if "trial" in dims and "trial" not in wanted:
        values = values[None]
    return Series(values, names.get("trial"), names.get(dims[-1]), clocks=clocks)


def _renaming(there: list[str], dims: tuple[str, ...]) -> str:
    """Return what of the dims that are there may be meant by one that is not."""
    for dim in there:
        for wanted in (wanted for wanted in dims if wanted not in there):
            if dim not in dims and dim.lower() in _SYNONYMS.get(wanted, ()):
                return f"{dim}={wanted!r}" if dim.isidentifier() else f"{{{dim!r}: {wanted!r}}}"
    return "unit='neuron'"


def _stacked(name: str, trials: Sequence[Series], lengths: list[int] | None) -> Series:
    """Stack (time_i, channel) series, padded with NaN to the longest, channels by their names."""
    if lengths is not None and len(trials) != len(lengths):
        raise InputError(f"{name} has {len(trials)} trials, but activity has {len(lengths)}")
    shapes = [trial.values.shape for trial in trials]
    num_channels = shapes[0][-1] if len(shapes[0]) == 2 else "channel"
    own = [(shape or (0,))[0] for shape in shapes] if lengths is None else lengths
    for index, (shape, length) in enumerate(zip(shapes, own, strict=True)):
        if shape != (length, num_channels):
            raise InputError(
                f"{name}[{index}] has shape {shape}, expected ({length}, {num_channels})"
            )
    kind = np.result_type(np.float32, *{trial.values.dtype for trial in trials})
    stacked = np.full((len(trials), max(own), shapes[0][1]), np.nan, dtype=kind)
    for index, trial in enumerate(trials):
        order = _column_order(name, index, trial, trials[0])
        stacked[index, : own[index]] = trial.values if order is None else trial.values[:, order]
    ids = [trial.trials for trial in trials]
    named = [one for one in ids if one is not None]
    return replace(
        trials[0],
        values=stacked,
        trials=np.concatenate(named) if len(named) == len(ids) else None,
        clocks=tuple(clock for trial in trials for clock in trial.clocks),
        lengths=own,
    )


def _column_order(name: str, index: int, trial: Series, first: Series) -> np.ndarray | None:
    """Return the places at which the columns of the first trial stand in another."""
    if trial.channels is None and first.channels is None:
        return None
    if trial.channels is None or first.channels is None:
        names, nameless = (0, index) if trial.channels is None else (index, 0)
        raise InputError(
            f"{name}[{names}] names its columns, {name}[{nameless}] does not; give all trials as "
            "tables or all as arrays"
        )
    places = {label: place for place, label in enumerate(trial.channels.tolist())}
    order = [places.get(label, -1) for label in first.channels.tolist()]
    if -1 in order or len(places) < len(trial.channels):
        raise InputError(
            f"{name}[{index}] has other columns than {name}[0]; each must stand in every trial once"
        )
    return np.array(order)
