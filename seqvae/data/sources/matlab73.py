"""MATLAB files of version 7.3, which are HDF5: references are followed, axes are MATLAB's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from seqvae.data.sources.archives import check_claim, mended
from seqvae.data.sources.hdf5_file import HDF5Entries, open_hdf5
from seqvae.data.sources.leaves import EMPTY, Cells, Leaf, Tree, sliced
from seqvae.errors import InputError

_DEEPEST = 24
_MOST_ITEMS, _FEW_ITEMS = 1_000_000, 10_000  # of any file, and of one of few bytes
_BYTES = 8  # of a file for each item beyond these, at least
_LITTLE = 4096  # bytes
_MOST_TEXT = 1_000_000
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
    """Goes through the groups and references of a file.

    Things may be referred to many times, so that few bytes would stand for very many: an array is
    looked at once, and all that is reached must be what the file can hold.
    """

    def __init__(self, path: Path, entries: Any) -> None:
        self._path = path
        self._entries: HDF5Entries = entries  # a check of its type would read an entry
        self._left = min(_MOST_ITEMS, _FEW_ITEMS + path.stat().st_size // _BYTES)
        self._claimed = 0
        self._leaves: dict[int, Leaf | None] = {}

    def tree(self, group: Any, above: tuple[str, ...]) -> dict[str, Any]:
        """Return what a group or struct holds by name."""
        names = [name for name in group if not name.startswith(_OWN)]
        items = {name: self._item(group, name, (*above, name)) for name in names}
        return {name: item for name, item in items.items() if item is not None}

    def _item(self, group: Any, name: str, above: tuple[str, ...]) -> Any:
        item = _own(group, name)
        return None if item is None else self._of(item, above)

    def _of(self, item: Any, above: tuple[str, ...]) -> Any:
        """Return a dataset as a leaf or cells, a group as a mapping or cells of mappings."""
        import h5py

        self._left -= 1
        if self._left < 0 or len(above) > _DEEPEST:
            raise InputError(
                f"source.path: {'.'.join(above[:3])!r} of {str(self._path)!r} holds too many "
                "cells, or cells that hold themselves; write it again"
            )
        name = ".".join(above)
        if isinstance(item, h5py.Group):
            if "MATLAB_sparse" not in item.attrs:
                return self.tree(item, above)  # a struct array: cells under each of its fields
        elif not isinstance(item, h5py.Dataset) or item.shape is None:
            return None
        elif h5py.check_ref_dtype(item.dtype) is h5py.Reference and not _is_object(item):
            return self._cells(item, name, above)
        address = h5py.h5o.get_info(item.id).addr
        if address not in self._leaves:
            is_sparse = isinstance(item, h5py.Group)
            self._leaves[address] = (self._sparse if is_sparse else self._leaf)(item, name)
        leaf = self._leaves[address]
        if leaf is not None:
            self._claimed += leaf.size * leaf.dtype.itemsize
            check_claim(self._path, "all that is referred to", self._claimed)
        return leaf

    def _leaf(self, item: Any, name: str) -> Leaf | None:
        if _is_object(item) or item.dtype.kind not in "biuf":
            return None
        if "MATLAB_empty" in item.attrs:
            return EMPTY
        shape = item.shape[::-1]
        kind = _class(item)
        if kind == "char" and len(shape) == 2:
            return Leaf(shape[:1], np.dtype(str), lambda: self._text(name, item),
                        lambda: iter([self._text(name, item)]))  # fmt: skip
        dtype = np.dtype(bool) if kind == "logical" else item.dtype

        def read() -> np.ndarray:
            return self._entries.stored(name, item).T.astype(dtype, copy=False)

        def pieces() -> Iterator[np.ndarray]:
            self._entries.check_storage(name, item)
            yield from sliced(item)

        if item.size * dtype.itemsize <= _LITTLE:  # open, each would take more memory than read
            return Leaf.of(read())
        return Leaf(shape, dtype, read, pieces)

    def _text(self, name: str, item: Any) -> np.ndarray:
        """Read rows of characters."""
        if item.size > _MOST_TEXT:
            raise InputError(
                f"source.path: entry {name!r} of {str(self._path)!r} holds too much text"
            )
        rows = self._entries.stored(name, item).T
        return np.array(["".join(map(chr, row)).rstrip() for row in rows], dtype=str)

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
        return Cells(references.shape, tuple(EMPTY if one is None else one for one in items))

    def _sparse(self, group: Any, name: str) -> Leaf:
        import scipy.sparse

        num_rows = int(group.attrs["MATLAB_sparse"])
        parts = {part: _own(group, part) for part in ("jc", "data", "ir")}
        if any(parts[part] is None for part in set(parts) & set(group)):
            raise InputError(
                f"source.path: entry {name!r} of {str(self._path)!r} lies in another file, which "
                "is not opened; copy it here"
            )
        columns = self._entries.stored(name, parts["jc"])
        shape = (num_rows, len(columns) - 1)
        if num_rows < 0 or len(columns) == 0:
            raise InputError(
                f"source.path: entry {name!r} of {str(self._path)!r} is sparse, of no size; "
                "it is damaged, copy or write it again"
            )
        check_claim(self._path, f"entry {name!r}", num_rows * len(columns) * 8)
        if parts["data"] is None:
            return Leaf.of(np.zeros(shape))
        values, rows = (self._entries.stored(name, parts[part]) for part in ("data", "ir"))
        matrix = scipy.sparse.csc_array((values, rows, columns), shape=shape)
        matrix.check_format(full_check=True)  # else its indices may point anywhere
        return Leaf.of(matrix.toarray())


def _own(group: Any, name: str) -> Any:
    """Return what lies in a group itself; None for what a link tells to lie elsewhere."""
    import h5py

    is_here = isinstance(group.get(name, getlink=True), h5py.HardLink)
    return group[name] if is_here else None


def _is_object(item: Any) -> bool:
    return "MATLAB_object_decode" in item.attrs


def _class(item: Any) -> str:
    kind = item.attrs.get("MATLAB_class", b"")
    return kind.decode() if isinstance(kind, bytes) else str(kind)
