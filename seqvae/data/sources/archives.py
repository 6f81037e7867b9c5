"""Archives of arrays by name, npz and HDF5, read in bounded memory; nothing in them is executed.

Files come from strangers, too. No pickle is read, nothing outside the file is reached (by links,
external storage, virtual datasets), and a size that a header only claims is refused before memory
is taken for it.
"""

from __future__ import annotations

import math
import posixpath
import zipfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from seqvae.data.lazy import LazyActivity
from seqvae.data.sizes import check_memory
from seqvae.data.sources.leaves import Leaf, read_shape, sliced
from seqvae.data.sources.rows import FileRows, large_rows
from seqvae.errors import InputError

_SMALL = 64 * 1024 * 1024  # bytes that any file may take
_DENSEST = 1100  # bytes that one byte of a deflated file can hold
_FEW_ENTRIES = 4_000  # that any file may have
_ENTRY = 100  # bytes of a file for each entry beyond these, at least
_AT_ONCE = 16 * 1024 * 1024  # bytes of a piece of an entry
_MATLAB = b"MATLAB 7.3"  # how the block of text before the HDF5 of MATLAB's files begins
_CHECKS = (2, 3)  # filters of HDF5 that leave the size as it is: shuffle, fletcher32
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@contextmanager
def open_npz(path: Path) -> Iterator[NpzEntries]:
    """Yield the arrays of an npz archive by name; each is read when it is asked for.

    Raises:
        InputError: if the file is damaged, or an array is not what is read here.
    """
    with mended(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield NpzEntries(path, archive)


@contextmanager
def open_hdf5(path: Path) -> Iterator[HDF5Entries]:
    """Yield datasets by path and the root's attributes; each is read when it is asked for.

    Raises:
        InputError: if the file is damaged, or an entry is not what is read here.
    """
    import h5py

    with mended(path):
        file = h5py.File(path, "r")
    with file:
        yield HDF5Entries(path, file)


def check_claim(path: Path, what: str, num_bytes: int) -> None:
    """Refuse what takes more memory than the file, even deflated, or the machine can hold.

    Args:
        path: the file.
        what: the part of it, for the error.
        num_bytes: what it claims to hold.

    Raises:
        InputError: naming file and part.
    """
    size = path.stat().st_size
    if num_bytes > max(_SMALL, _DENSEST * size):
        raise InputError(
            f"source.path: {what} of {str(path)!r} claims {num_bytes / 1e9:.3g} GB, which a file "
            f"of {size} bytes cannot hold; write it again"
        )
    check_memory(f"{what} of {str(path)!r}", num_bytes)


@contextmanager
def mended(path: Path) -> Iterator[None]:
    """Turn what a reader raises for a damaged file, which is of many kinds, into one sentence."""
    try:
        yield
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"source.path: {str(path)!r} may not be read; check its mode") from error
    except MemoryError as error:
        raise InputError(f"source.path: {str(path)!r} needs more memory than there is") from error
    except Exception as error:
        raise InputError(
            f"source.path: {str(path)!r} is truncated or damaged; copy or write it again"
        ) from error


class _Entries(Mapping[str, np.ndarray]):
    """The entries of a file, by name."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @cached_property
    def _places(self) -> dict[str, Any]:
        with mended(self._path):
            return self._find()

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, name: str) -> np.ndarray:
        place = self._places[name]
        with mended(self._path):
            return self._read(name, place)

    @abstractmethod
    def leaf(self, name: str) -> Leaf:
        """Return an entry with its shape, to be read when it is asked for."""

    @abstractmethod
    def _find(self) -> dict[str, Any]:
        """List where each entry lies."""

    @abstractmethod
    def _read(self, name: str, place: Any) -> np.ndarray:
        """Read an entry."""

    def _refusal(self, name: str, reason: str) -> InputError:
        return InputError(f"source.path: entry {name!r} of {str(self._path)!r} {reason}")


class NpzEntries(_Entries):
    """The arrays of a zip archive; ``np.load`` would take the memory that a header claims."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        super().__init__(path)

    def _find(self) -> dict[str, zipfile.ZipInfo]:
        return {part.filename.removesuffix(".npy"): part for part in self._archive.infolist()}

    def leaf(self, name: str) -> Leaf:
        """Return an entry; what is stored in the order of C is gone through in bounded memory."""
        place = self._places[name]
        with mended(self._path):
            shape, _, dtype = self._header(name, place)
        read = partial(self.__getitem__, name)

        def pieces() -> Iterator[np.ndarray]:
            with mended(self._path), self._archive.open(place) as file:
                _HEADERS[np.lib.format.read_magic(file)](file)
                left = math.prod(shape)
                while left > 0:
                    content = file.read(min(left, _AT_ONCE // dtype.itemsize) * dtype.itemsize)
                    if not content:
                        raise ValueError(name)
                    yield np.frombuffer(content, dtype)
                    left -= len(content) // dtype.itemsize

        return Leaf(shape, dtype, read, pieces)

    def _header(self, name: str, place: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype]:
        check_claim(self._path, f"entry {name!r}", place.file_size)
        with self._archive.open(place) as file:
            shape, is_fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
        if dtype.hasobject:
            raise self._refusal(
                name,
                "holds Python objects, which are not read for safety; save plain arrays of "
                "numbers or text",
            )
        if dtype.kind not in "biufcSU":
            raise self._refusal(name, f"holds {dtype}; save numbers or text")
        check_claim(self._path, f"entry {name!r}", math.prod(shape) * dtype.itemsize)
        return shape, is_fortran, dtype

    def _read(self, name: str, place: zipfile.ZipInfo) -> np.ndarray:
        self._header(name, place)
        with self._archive.open(place) as file:
            return np.lib.format.read_array(file, allow_pickle=False)


class HDF5Entries(_Entries):
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
            if num_bytes > _DENSEST * self._path.stat().st_size:
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
                    raise self._refusal(prefix + name, "is one of too many to be a recording")
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
            raise self._refusal(name, "lies in another file, which is not opened; copy it here")
        entry = self._file.attrs.get_id(name) if place is None else place
        dtype, shape = entry.dtype, entry.shape
        if shape is None:
            raise self._refusal(name, "is empty; fill it or leave it out")
        is_text = h5py.check_string_dtype(dtype) is not None
        if not is_text and dtype.kind not in "biufc":
            raise self._refusal(name, f"holds {dtype}; save numbers or text")
        size = math.prod(shape)
        check_claim(self._path, f"entry {name!r}", size * dtype.itemsize)
        if place is not None:
            self.check_storage(name, place)
        if dtype.kind != "O":
            return np.asarray(self._file.attrs[name] if place is None else place[()])
        # Each text may be as long as the file, wherever it stands.
        at_once = max(1, _SMALL // self._path.stat().st_size)
        if size <= at_once:
            return np.asarray(self._file.attrs[name] if place is None else place[()], dtype=object)
        if place is None or len(shape) > 1:
            raise self._refusal(name, "holds too many texts; save a list of them as a dataset")
        texts: list[Any] = []
        left = _SMALL
        for start in range(0, size, at_once):
            texts.extend(place[start : start + at_once])
            left -= sum(map(len, texts[start:]))
            if left < 0:
                raise self._refusal(name, "holds too much text")
        return np.array(texts, dtype=object)

    def check_storage(self, name: str, dataset: Any) -> None:
        """Refuse what lies elsewhere or nowhere, and what may grow without bound when read."""
        if dataset.is_virtual or dataset.external:
            raise self._refusal(name, "lies in other files, which are not opened; copy it here")
        if dataset.size and not dataset.id.get_storage_size():
            raise self._refusal(name, "was never written; write it or leave it out")
        check_claim(
            self._path,
            f"a chunk of entry {name!r}",
            math.prod(dataset.chunks or ()) * dataset.dtype.itemsize,
        )
        plan = dataset.id.get_create_plist()
        filters = [plan.get_filter(place)[0] for place in range(plan.get_nfilters())]
        if len([code for code in filters if code not in _CHECKS]) > 1:
            raise self._refusal(name, "is compressed more than once; compress it once")
