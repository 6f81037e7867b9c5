"""HDF5 files as archives of arrays by name: see ``seqvae.data.sources.archives``."""

from __future__ import annotations

import math
import posixpath
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from seqvae.data.lazy import LazyActivity
from seqvae.data.sources.archives import (
    DENSEST,
    SMALL,
    Entries,
    check_claim,
    lacking_filter,
    mended,
)
from seqvae.data.sources.leaves import Leaf, read_shape, sliced
from seqvae.data.sources.rows import FileRows, large_rows

_FEW_ENTRIES = 4_000  # that any file may have
_ENTRY = 100  # bytes of a file for each entry beyond these, at least
_MATLAB = b"MATLAB 7.3"  # how the block of text before the HDF5 of MATLAB's files begins
_FILTERS = {32000: "lzf", 32001: "blosc", 32004: "lz4", 32008: "bitshuffle", 32015: "zstd"}
_CHECKS = (2, 3)  # filters of HDF5 that leave the size as it is: shuffle, fletcher32


@contextmanager
def open_hdf5(path: Path) -> Iterator[HDF5Entries]:
    """Yield datasets by path and the root's attributes; each is read when it is asked for.

    Raises:
        InputError: if the file is damaged, or an entry is not what is read here.
    """
    import h5py

    with suppress(ImportError):
        import hdf5plugin  # noqa: F401 (more filters, where it is installed)
    with mended(path):
        file = h5py.File(path, "r")
    with file:
        yield HDF5Entries(path, file)


class HDF5Entries(Entries):
    """The datasets of an HDF5 file and the attributes of its root."""

    def __init__(self, path: Path, file: Any) -> None:
        self._file = file
        super().__init__(path)

    @property
    def root(self) -> Any:
        """The root group."""
        return self._file

    @cached_property
    def is_matlab(self) -> bool:
        """Whether MATLAB wrote the file, so that its axes are turned round."""
        with self._path.open("rb") as file:
            begins = file.read(len(_MATLAB))
        return begins == _MATLAB or any(
            "MATLAB_class" in getattr(place, "attrs", ()) for place in self._places.values()
        )

    def leaf(self, name: str) -> Leaf:
        """Return an entry; datasets are gone through in bounded memory."""
        import h5py

        place = self._places[name]
        read = partial(self.__getitem__, name)
        if not isinstance(place, h5py.Dataset) or place.dtype.kind not in "biuf":
            return Leaf.of(read())
        shape = place.shape if self._class(place) is None else read_shape(place.shape)

        def pieces() -> Iterator[np.ndarray]:
            with mended(self._path):
                self.check_storage(name, place)
                check_claim(self._path, f"entry {name!r}", place.size * place.dtype.itemsize)
                yield from sliced(place)

        return Leaf(shape, place.dtype, read, pieces, partial(self._rows, name))

    def large(self, name: str, missing: int | None = None) -> LazyActivity | None:
        """Return large counts of few bits, of which one may be ``missing``; else None."""
        rows = self._rows(name) if getattr(self._places[name], "ndim", 0) == 3 else None
        return None if rows is None else LazyActivity(rows, missing=missing)

    def _rows(self, name: str) -> FileRows | None:
        import h5py

        place = self._places[name]
        if not isinstance(place, h5py.Dataset) or self._class(place) is not None:
            return None
        with mended(self._path):
            self.check_storage(name, place)
            num_bytes = place.size * place.dtype.itemsize
            if num_bytes > DENSEST * self._path.stat().st_size:
                check_claim(self._path, f"entry {name!r}", num_bytes)
            return large_rows(self._path, place)

    def _find(self) -> dict[str, Any]:
        """Find the datasets of all groups: hard links, and soft links to one of those."""
        import h5py

        datasets: dict[str, Any] = dict.fromkeys(self._file.attrs)
        soft: dict[str, str] = {}
        above: list[tuple[str, Any, tuple[Any, ...]]] = [("", self._file, (self._file,))]
        num_seen, most = 0, max(_FEW_ENTRIES, self._path.stat().st_size // _ENTRY)
        while above:
            prefix, group, ancestors = above.pop()
            for name in group:
                num_seen += 1
                if num_seen > most:
                    raise self.refusal(prefix + name, "is one of too many to be a recording")
                path = prefix + name
                link = group.get(name, getlink=True)
                if isinstance(link, h5py.SoftLink):
                    soft[path] = posixpath.normpath(posixpath.join("/", prefix, link.path))[1:]
                elif not isinstance(link, h5py.HardLink | None):  # None: damaged
                    datasets[path] = link
                elif isinstance(item := group.get(name), h5py.Dataset):
                    if item.shape is not None:
                        datasets[path] = item
                elif isinstance(item, h5py.Group) and item not in ancestors:
                    above.append((f"{path}/", item, (*ancestors, item)))
        return datasets | {
            path: datasets[target] for path, target in soft.items() if target in datasets
        }

    def _read(self, name: str, place: Any) -> np.ndarray:
        array = self.stored(name, place)
        kind = self._class(place)
        if kind is None:
            return array
        array = array.T  # MATLAB writes its first axis last, and vectors as 1 x N
        if kind in (b"char", "char") and array.dtype.kind in "iu" and array.ndim == 2:
            return np.array(["".join(map(chr, row)).rstrip() for row in array])
        return array.ravel() if array.ndim == 2 and 1 in array.shape else array

    def _class(self, place: Any) -> Any:
        """Return the class that MATLAB says of a dataset; None for what MATLAB has not written."""
        import h5py

        if not isinstance(place, h5py.Dataset):
            return None
        return place.attrs.get("MATLAB_class", b"double" if self.is_matlab else None)

    def stored(self, name: str, place: Any) -> np.ndarray:
        """Read a dataset, or an attribute of the root (None), as it lies there."""
        import h5py

        if isinstance(place, h5py.ExternalLink):
            raise self.refusal(name, "lies in another file, which is not opened; copy it here")
        entry = self._file.attrs.get_id(name) if place is None else place
        dtype, shape = entry.dtype, entry.shape
        if shape is None:
            raise self.refusal(name, "is empty; fill it or leave it out")
        is_text = h5py.check_string_dtype(dtype) is not None
        if not is_text and dtype.kind not in "biufc":
            raise self.refusal(name, f"holds {dtype}; save numbers or text")
        size = math.prod(shape)
        check_claim(self._path, f"entry {name!r}", size * dtype.itemsize)
        if place is not None:
            self.check_storage(name, place)
        if dtype.kind != "O":
            return np.asarray(self._file.attrs[name] if place is None else place[()])
        # Each text may be as long as the file, wherever it stands.
        at_once = max(1, SMALL // self._path.stat().st_size)
        if size <= at_once:
            return np.asarray(self._file.attrs[name] if place is None else place[()], dtype=object)
        if place is None or len(shape) > 1:
            raise self.refusal(name, "holds too many texts; save a list of them as a dataset")
        texts: list[Any] = []
        left = SMALL
        for start in range(0, size, at_once):
            texts.extend(place[start : start + at_once])
            left -= sum(map(len, texts[start:]))
            if left < 0:
                raise self.refusal(name, "holds too much text")
        return np.array(texts, dtype=object)

    def check_storage(self, name: str, dataset: Any) -> None:
        """Refuse what lies elsewhere or nowhere, and what may grow without bound when read."""
        import h5py

        if dataset.is_virtual or dataset.external:
            raise self.refusal(name, "lies in other files, which are not opened; copy it here")
        if dataset.size and not dataset.id.get_storage_size():
            raise self.refusal(name, "was never written; write it or leave it out")
        check_claim(
            self._path,
            f"a chunk of entry {name!r}",
            math.prod(dataset.chunks or ()) * dataset.dtype.itemsize,
        )
        plan = dataset.id.get_create_plist()
        filters = []
        for place in range(plan.get_nfilters()):
            code, _, _, title = plan.get_filter(place)
            filters.append(code)
            if not h5py.h5z.filter_avail(code):
                title = title.decode(errors="replace") or _FILTERS.get(code, "a filter")
                raise lacking_filter(self._path, f"{title} (filter {code} of HDF5)")
        if len([code for code in filters if code not in _CHECKS]) > 1:
            raise self.refusal(name, "is compressed more than once; compress it once")
