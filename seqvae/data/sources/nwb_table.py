"""A table of an NWB file, of units, trials or other intervals: its columns by name."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seqvae.data.sources.archives import mended
from seqvae.errors import InputError, nearest


class Outline(NamedTuple):
    """What something is like before it is read.

    Attributes:
        sizes: of its axes; None: unequal.
        kind: type of the numbers, or "text".
    """

    sizes: tuple[int | None, ...]
    kind: str


def outline_of(data: Any) -> Outline:
    """Return sizes and type of what pynwb gives for a column or a series."""
    shape = getattr(data, "shape", None)
    shape = (len(data),) if shape is None else tuple(shape)
    dtype = getattr(data, "dtype", None)
    if dtype is None:
        dtype = np.asarray(data[:1]).dtype
    return Outline(shape, "text" if np.dtype(dtype).kind in "OSUT" else str(dtype))


class Table:
    """A table of units, trials or other intervals; a column is read when it is asked for."""

    def __init__(
        self, name: str, table: Any, *, path: Path, read: Callable[[str, Any], np.ndarray]
    ) -> None:
        self.name = name
        self._path, self._array = path, read
        with mended(path):
            self._columns = {column.name: column for column in table.columns}
            self._names = list(table.colnames)
            self.ids = np.asarray(read(f"{name}/id", table.id.data)).astype(np.int64)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        return self._names

    def column(self, name: str, *, field: str) -> np.ndarray:
        """Return a column of one number or text for each row.

        Args:
            name: of the column.
            field: the setting that names it, for errors.

        Raises:
            InputError: if there is none such.
        """
        if name not in self:
            raise InputError(
                f"{field}: {self.name} has no column {name!r}{nearest(name, self._names)}"
            )
        values = self._read(name) if self.is_flat(name) else np.zeros(0)
        if values.ndim != 1 or values.dtype.kind not in "biufU" or len(values) != len(self):
            raise InputError(
                f"{field}: column {name!r} of {self.name} holds no one number or text a row; name "
                "another"
            )
        return values

    def is_flat(self, name: str) -> bool:
        """Whether a column has one entry a row and not a list of them."""
        return f"{name}_index" not in self._columns

    def outline(self, name: str) -> Outline:
        """Return sizes and type of a column, unread; lists of a row are of unequal lengths."""
        with mended(self._path):
            sizes, kind = outline_of(self._columns[name].data)
        return Outline(sizes if self.is_flat(name) else (len(self), None, *sizes[1:]), kind)

    def ragged(self, name: str) -> list[np.ndarray]:
        """Return a column of one array for each row."""
        values = self._read(name)
        if self.is_flat(name):
            return list(values)
        ends = np.asarray(self._read(f"{name}_index")).astype(np.int64)
        edges = np.concatenate([[0], ends])
        if (
            len(ends) != len(self)
            or (np.diff(edges) < 0).any()
            or edges[-1] > len(values)
            or values.dtype.kind not in "iuf"
        ):
            raise InputError(
                f"source.path: {self.name}/{name} of {str(self._path)!r} is damaged: its "
                "index does not fit; write it again"
            )
        return [values[a:b] for a, b in pairwise(edges.tolist())]

    def _read(self, name: str) -> np.ndarray:
        return self._array(f"{self.name}/{name}", self._columns[name].data)
