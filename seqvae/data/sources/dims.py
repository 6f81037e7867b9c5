"""The axes of stored arrays and cells by name, and series laid out as (trial, time, channel)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from seqvae.data.sources.leaves import Cells, Leaf
from seqvae.errors import InputError, nearest

AXES = ("trial", "time", "neuron")
Sizes: TypeAlias = tuple[int | None, ...]


@dataclass(frozen=True)
class Block:
    """An array, or arrays in cells, with the axes of both in one row: cells first.

    Attributes:
        sizes: of the axes; None where the arrays or cells differ. Axes of size one are none in
            MATLAB, where every array has two.
        num_cell_axes: how many of them are those of cells.
        leaves: the arrays, each with its place among the cells, in C order.
        kept: the axes of the arrays that are some; None: all are vectors.
    """

    sizes: Sizes
    num_cell_axes: int
    leaves: tuple[tuple[tuple[int, ...], Leaf], ...]
    kept: tuple[int, ...] | None

    @classmethod
    def of(cls, value: Leaf | Cells, *, drops_ones: bool) -> Block:
        """Read the axes of something."""
        sizes, level = _cells(value, drops_ones)
        leaves = tuple((place, leaf) for place, leaf in level if isinstance(leaf, Leaf))
        shapes = [leaf.shape for _, leaf in leaves]
        num_axes = {len(shape) for shape in shapes}
        if drops_ones and all(_long(shape) <= 1 for shape in shapes) and max(num_axes) <= 2:
            lengths = {math.prod(shape) for shape in shapes}
            inner: Sizes = () if lengths == {1} else (next(iter(lengths)),)
            inner = inner if len(lengths) == 1 else (None,)
            return cls(sizes + inner, len(sizes), leaves, None)
        if len(num_axes) > 1:
            raise InputError("the arrays in the cells have unlike numbers of axes; give one kind")
        columns = [{shape[axis] for shape in shapes} for axis in range(num_axes.pop())]
        kept = tuple(i for i, column in enumerate(columns) if not drops_ones or column != {1})
        inner = tuple(next(iter(columns[i])) if len(columns[i]) == 1 else None for i in kept)
        return cls(sizes + inner, len(sizes), leaves, kept)

    @property
    def are_vectors(self) -> bool:
        """Whether cells hold vectors, as times of spikes lie."""
        return self.num_cell_axes > 0 and len(self.sizes) - self.num_cell_axes == 1

    def array(self, leaf: Leaf) -> np.ndarray:
        """Read one of the arrays, without the axes that are none."""
        values = leaf.read()
        has_axis = len(self.sizes) > self.num_cell_axes
        if self.kept is None:
            return values.reshape(-1) if has_axis else values.reshape(())
        return values.reshape([values.shape[axis] for axis in self.kept])

    def vector(self) -> np.ndarray:
        """Read everything as one row of labels."""
        return np.concatenate([leaf.read().reshape(-1) for _, leaf in self.leaves])


def _long(shape: tuple[int, ...]) -> int:
    return sum(size != 1 for size in shape) if 0 not in shape else 0


def _cells(value: Any, drops_ones: bool) -> tuple[Sizes, list[tuple[tuple[int, ...], Any]]]:
    """Go down through nested cells; return the sizes of their axes, and what lies in the last."""
    sizes: Sizes = ()
    level: list[tuple[tuple[int, ...], Any]] = [((), value)]
    while any(isinstance(item, Cells) for _, item in level):
        cells = [(i, item if isinstance(item, Cells) else Cells((0,), ())) for i, item in level]
        shapes = {
            tuple(size for size in item.shape if size != 1 or not drops_ones) for _, item in cells
        }
        if len(shapes) == 1:
            (shape,) = shapes
            sizes += shape
            places = list(np.ndindex(*shape)) if 0 not in shape else []
        else:
            sizes += (None,)
            places = [(i,) for i in range(max(len(item.items) for _, item in cells))]
        level = [
            (i + place, below)
            for i, item in cells
            for place, below in zip(places, item.items, strict=False)
        ]
    if not level:
        raise InputError("the cells are empty; give others")
    return sizes, level


def check_dims(dims: Sequence[str], block: Block, name: str) -> tuple[str, ...]:
    """Return the names of the axes of a block.

    Raises:
        InputError: for another number of names, an unknown one, or one that stands twice, which
            ``neuron`` alone may in nested cells.
    """
    names = tuple(map(str, dims))
    for axis in names:
        if axis not in AXES:
            raise InputError(f"dims: {axis!r} is no axis{nearest(axis, AXES)}")
    is_nest = names == ("neuron",) * block.num_cell_axes
    if not is_nest and len(set(names)) < len(names):
        raise InputError(f"dims {list(names)} names an axis twice; name each once, outermost first")
    num_axes = block.num_cell_axes if _tells_times(names, block) else len(block.sizes)
    if len(names) != num_axes:
        raise InputError(
            f"dims names {len(names)} axes, but {name!r} has {described(block.sizes)}; name each "
            "once, outermost first"
        )
    return names


def _tells_times(names: tuple[str, ...], block: Block) -> bool:
    return block.are_vectors and "time" not in names


def described(sizes: Sizes) -> str:
    """Return sizes in words."""
    return " x ".join("unequal" if size is None else str(size) for size in sizes) or "one value"


def laid(block: Block, dims: tuple[str, ...], name: str) -> np.ndarray | list[np.ndarray]:
    """Return a series as one array (trial, time, channel), or a list of (time, channel) arrays.

    Args:
        block: the series.
        dims: the names of its axes; what is not named has one entry.
        name: of the series, for the errors.

    Raises:
        InputError: for axes that are unequal, unless that is the time of the trials.
    """
    outer, inner = dims[: block.num_cell_axes], dims[block.num_cell_axes :]
    unequal = [axis for axis, size in zip(dims, block.sizes, strict=True) if size is None]
    if not unequal:
        arrays = [block.array(leaf) for _, leaf in block.leaves]
        whole = arrays[0] if len(arrays) == 1 else np.stack(arrays)
        return _ordered(whole.reshape([size or 0 for size in block.sizes]), dims, AXES)
    if unequal != ["time"] or "trial" not in outer:
        raise InputError(
            f"{name!r} holds unequal numbers of {unequal[0]}s, {described(block.sizes)}; only the "
            "times of trials may be unequal, so leave out what not all trials have"
        )
    trials: dict[int, list[np.ndarray]] = {}
    for place, leaf in block.leaves:
        trials.setdefault(place[outer.index("trial")], []).append(block.array(leaf))
    if outer == ("trial",):
        return [_ordered(array, inner, AXES[1:]) for (array,) in trials.values()]
    for trial, columns in trials.items():
        if len({len(column) for column in columns}) > 1:
            raise InputError(f"{name!r}: the neurons of trial {trial} have unequal numbers of bins")
    return [np.stack(columns, axis=-1) for columns in trials.values()]


def _ordered(array: np.ndarray, dims: Sequence[str], axes: Sequence[str]) -> np.ndarray:
    """Put the axes in order; those that are not named have size one."""
    there = [axis for axis in axes if axis in dims]
    array = np.transpose(array, [dims.index(axis) for axis in there])
    for place, axis in enumerate(axes):
        if axis not in dims:
            array = np.expand_dims(array, place)
    return array


def dims_beside(
    sizes: Sizes, num_trials: int, num_bins: int, order: Sequence[str]
) -> tuple[str, ...] | None:
    """Tell the axes of a series from those of the activity, whose trials and bins it has.

    Args:
        sizes: of its axes.
        num_trials: of the activity.
        num_bins: of the activity, in the longest trial.
        order: the axes of the activity in the order in which they are stored, which decides where
            sizes alone do not.

    Returns:
        Names, of which ``neuron`` stands for the channel; None where these are not its axes.
    """
    wanted = {"trial": num_trials, "time": num_bins}
    needed = [axis for axis in order if axis in wanted and wanted[axis] != 1]
    ways: list[tuple[str, ...]] = []

    def choose(names: tuple[str, ...]) -> None:
        if len(names) == len(sizes):
            if all(axis in names for axis in needed):
                ways.append(names)
            return
        size = sizes[len(names)]
        for axis in AXES:
            fits = axis == "neuron" or size == wanted[axis] or (axis == "time" and size is None)
            if axis not in names and fits and (size is not None or axis == "time"):
                choose((*names, axis))

    choose(())
    rank = {axis: place for place, axis in enumerate(order)}
    ways.sort(key=lambda names: [rank.get(axis, len(rank)) for axis in names] != sorted(
        rank.get(axis, len(rank)) for axis in names))  # fmt: skip
    return ways[0] if ways else None
