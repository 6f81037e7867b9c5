"""What a file holds, before it is read: arrays with their shapes, and cells of arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import numpy as np

from seqvae.errors import InputError, nearest

_BYTES_AT_ONCE = 16 * 1024 * 1024
_MOST_NAMES = 10


def read_shape(stored: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape in which an array of MATLAB is read: turned round, vectors with one axis."""
    shape = stored[::-1]
    return (max(shape),) if len(shape) == 2 and 1 in shape else shape


@dataclass(frozen=True)
class Leaf:
    """An array of numbers or text that is read when it is asked for.

    Attributes:
        shape: of the array, as its format counts the axes.
        dtype: of what is stored; objects are text.
        read: returns the whole array.
        pieces: yields it piece by piece, in any order of the axes, so that memory is bounded.
        rows: returns what reads some of its rows, of a large one, where that is possible.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]
    pieces: Callable[[], Iterator[np.ndarray]]
    rows: Callable[[], Any] = lambda: None

    @classmethod
    def of(cls, array: np.ndarray) -> Leaf:
        """Return a leaf of what is in memory, or mapped into it."""
        return cls(array.shape, array.dtype, lambda: array, lambda: sliced(array))

    @property
    def is_text(self) -> bool:
        """Whether it holds text."""
        return self.dtype.kind in "SUOT"

    @property
    def size(self) -> int:
        """How many numbers or texts it holds."""
        return math.prod(self.shape)


EMPTY = Leaf.of(np.zeros((0, 0)))
"""What a cell holds that is empty; one for all, as there may be very many."""


@dataclass(frozen=True)
class Cells:
    """Several things under one name: a cell or struct array, or a group of a file for each trial.

    Attributes:
        shape: of the array of cells.
        items: one for each cell, in C order: a leaf, further cells, or a mapping of fields.
    """

    shape: tuple[int, ...]
    items: tuple[Any, ...]

    def map(self, function: Callable[[Any], Any]) -> Cells:
        """Return what a function makes of each."""
        return Cells(self.shape, tuple(map(function, self.items)))


Tree: TypeAlias = Mapping[str, Any]
"""Names to leaves, cells, or further trees."""


def sliced(array: Any, shape: tuple[int, ...] | None = None) -> Iterator[np.ndarray]:
    """Yield something that slices like an array in pieces of bounded memory, along its first axis.

    A first axis too short for that is gone through index by index.
    """
    shape = array.shape if shape is None else shape
    if not shape or 0 in shape:
        yield np.asarray(array[()])
        return
    row = math.prod(shape[1:]) * max(array.dtype.itemsize, 1)
    if row > _BYTES_AT_ONCE and len(shape) > 1:
        for index in range(shape[0]):
            yield from sliced(_Row(array, (index,)), shape[1:])
        return
    step = max(1, _BYTES_AT_ONCE // max(row, 1))
    for start in range(0, shape[0], step):
        yield np.asarray(array[start : start + step])


@dataclass(frozen=True)
class _Row:
    """A row of an array that need not be in memory."""

    array: Any
    index: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """Of its numbers."""
        dtype: np.dtype = self.array.dtype
        return dtype

    def __getitem__(self, key: Any) -> Any:
        return self.array[(*self.index, *(key if isinstance(key, tuple) else (key,)))]


def leaf_names(tree: Tree, separator: str) -> dict[str, Any]:
    """Return the leaves and cells of a tree by their whole name, through struct arrays, too.

    Args:
        tree: the tree.
        separator: between the names of a path.
    """
    names: dict[str, Any] = {}
    for name, value in tree.items():
        inner = _inner(value)
        if inner is None:
            names[name] = value
            continue
        for below in leaf_names(inner, separator):
            path = f"{name}{separator}{below}"
            reached = _under(tree, path, separator)
            if reached is not None and _inner(reached) is None:  # else a name holds a separator
                names[path] = reached
    return names


def _under(tree: Tree, name: str, separator: str) -> Any:
    """Return what lies under a name, or None."""
    if name in tree and _inner(tree[name]) is None:
        return tree[name]
    try:
        return _at(tree, name.split(separator), separator)
    except KeyError:
        return None


def _inner(value: Any) -> Tree | None:
    """Return the fields that a struct, or the first struct among cells, has."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, Cells):
        return next((inner for item in value.items if (inner := _inner(item)) is not None), None)
    return None


def entry(tree: Tree, name: str, separator: str) -> Any:
    """Return what lies under a name: a leaf, or cells of leaves where the path leads through cells.

    Raises:
        InputError: with the nearest names, at most ten.
    """
    value = _under(tree, name, separator)
    if value is None or _inner(value) is not None:
        names = leaf_names(tree, separator)
        what = "is a struct, not an array" if value is not None else "is not in the file"
        raise InputError(f"keys: {name!r} {what}{_listed(name, names)}")
    return value


def _at(value: Any, path: Sequence[str], separator: str) -> Any:
    if not path:
        return value
    if isinstance(value, Cells):
        return value.map(lambda item: _at(item, path, separator))
    if isinstance(value, Mapping):
        return _at(value[path[0]], path[1:], separator)
    if isinstance(value, Leaf) and value.size == 0:  # an empty cell where others hold structs
        return value
    raise KeyError(path[0])


def _listed(name: str, names: Mapping[str, Any]) -> str:
    below = [other for other in names if other.startswith(name)]
    if below or len(names) <= _MOST_NAMES:
        chosen = (below or list(names))[:_MOST_NAMES]
        return "; did you mean " + " or ".join(map(repr, chosen)) + "?" if chosen else ""
    return nearest(name, names) if len(nearest(name, names)) < 200 else ""


def alike(names: Sequence[str], pattern: str) -> list[str]:
    """Return the names that a pattern with * fits, those with numbers in the order of these."""
    return sorted(
        (name for name in names if fnmatchcase(name, pattern)),
        key=lambda name: [
            (int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)
        ],
    )
