"""MATLAB files of version 7.3, which are HDF5: references are followed, axes are MATLAB's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from seqvae.data.sources.archives import HDF5Entries, check_claim, mended, open_hdf5
from seqvae.data.sources.leaves import Cells, Leaf, Tree, sliced
from seqvae.errors import InputError

_DEEPEST = 24
_MOST_ITEMS = 1_000_000
_OWN = "#"  # with which MATLAB's groups of what is referred to begin


@contextmanager
def open_matlab73(path: Path) -> Iterator[Tree]:
    """Yield the variables of a file: leaves, which are read when asked for, cells, and mappings.

    Raises:
        InputError: if the file is damaged, or not MATLAB's, so that the order of axes is unknown.
    """
    with open_hdf5(path) as entries:
        if not entries.is_matlab:
            raise InputError(
                f"source.path: {str(path)!r} is an HDF5 file that MATLAB has not written, so that "
                "the order of its axes is unknown; call it .h5 and read it by HDF5, or save it by "
                "MATLAB's save -v7.3"
            )
        with mended(path):
            yield _Reader(path, entries).tree(entries.root, ())


class _Reader:
    """Goes through the groups and references of a file."""

    def __init__(self, path: Path, entries: Any) -> None:
        self._path = path
        self._entries: HDF5Entries = entries  # a check of its type would read an entry
        self._left = _MOST_ITEMS

    def tree(self, group: Any, above: tuple[str, ...]) -> dict[str, Any]:
        """Return what a group or struct holds by name."""
        names = [name for name in group if not name.startswith(_OWN)]
        items = {name: self._item(group, name, (*above, name)) for name in names}
        return {name: item for name, item in items.items() if item is not None}

    def _item(self, group: Any, name: str, above: tuple[str, ...]) -> Any:
        import h5py

        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            return None
        return self._of(group[name], above)

    def _of(self, item: Any, above: tuple[str, ...]) -> Any:
        """Return a dataset as a leaf or cells, a group as a mapping or cells of mappings."""
        import h5py

        self._left -= 1
        if self._left < 0 or len(above) > _DEEPEST:
            raise InputError(
                f"source.path: {'.'.join(above[:3])!r} of {str(self._path)!r} holds too many "
                "cells, or cells that hold themselves; write it again"
            )
        if isinstance(item, h5py.Group):
            if "MATLAB_sparse" in item.attrs:
                return self._sparse(item, above)
            return self.tree(item, above)  # a struct array: cells under each of its fields
        name = ".".join(above)
        if item.shape is None or "MATLAB_object_decode" in item.attrs:
            return None
        if h5py.check_ref_dtype(item.dtype) is h5py.Reference:
            return self._cells(item, name, above)
        if "MATLAB_empty" in item.attrs:
            return Leaf.of(np.zeros((0, 0)))
        if item.dtype.kind not in "biuf":
            return None
        shape = item.shape[::-1]
        dtype = np.dtype(bool) if _class(item) == "logical" else item.dtype

        def read() -> np.ndarray:
            array = self._entries.stored(name, item).T
            if _class(item) == "char" and array.ndim == 2:
                return np.array(["".join(map(chr, row)).rstrip() for row in array])
            return array.astype(dtype, copy=False)

        def pieces() -> Iterator[np.ndarray]:
            self._entries.check_storage(name, item)
            yield from sliced(item)

        if _class(item) == "char":
            return Leaf.of(read())
        return Leaf(shape, dtype, read, pieces)

    def _cells(self, item: Any, name: str, above: tuple[str, ...]) -> Cells:
        check_claim(self._path, f"entry {name!r}", item.size * 8)
        self._entries.check_storage(name, item)
        if item.size > self._left:
            self._left = -1  # refused with the first of them
        references = np.asarray(item[()]).T
        items = [
            self._of(self._entries.root[reference], (*above, "{}")) if reference else None
            for reference in references.ravel()
        ]
        empty = Leaf.of(np.zeros((0, 0)))
        return Cells(references.shape, tuple(empty if one is None else one for one in items))

    def _sparse(self, group: Any, above: tuple[str, ...]) -> Leaf | None:
        import scipy.sparse

        name = ".".join(above)
        num_rows = int(group.attrs["MATLAB_sparse"])
        columns = self._entries.stored(name, group["jc"])
        shape = (num_rows, len(columns) - 1)
        if num_rows < 0 or len(columns) == 0:
            raise InputError(
                f"source.path: entry {name!r} of {str(self._path)!r} is sparse, of no size; "
                "it is damaged, copy or write it again"
            )
        check_claim(self._path, f"entry {name!r}", num_rows * len(columns) * 8)
        if "data" not in group:
            return Leaf.of(np.zeros(shape))
        parts = [self._entries.stored(name, group[part]) for part in ("data", "ir")]
        matrix = scipy.sparse.csc_array((*parts, columns), shape=shape)
        matrix.check_format(full_check=True)  # else its indices may point anywhere
        return Leaf.of(matrix.toarray())


def _class(item: Any) -> str:
    kind = item.attrs.get("MATLAB_class", b"")
    return kind.decode() if isinstance(kind, bytes) else str(kind)
