"""Archives of arrays by name, read in bounded memory; nothing in them is executed. Here: npz.

Files come from strangers, too. No pickle is read, nothing outside the file is reached (by links,
external storage, virtual datasets), and a size that a header only claims is refused before memory
is taken for it.
"""

from __future__ import annotations

import math
import re
import zipfile
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from seqvae.data.sizes import check_memory
from seqvae.data.sources.leaves import Leaf
from seqvae.errors import InputError

SMALL = 64 * 1024 * 1024
"""Bytes that any file may take."""
DENSEST = 1100
"""Bytes that one byte of a deflated file can hold."""
_AT_ONCE = 16 * 1024 * 1024  # bytes of a piece of an entry
HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""What reads the header of an array of NumPy's format, by the version of that."""


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
    if num_bytes > max(SMALL, DENSEST * size):
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
        lacking = re.search(r"required filter '(.*)' is not registered", str(error))
        raise lacking_filter(path, lacking[1]) if lacking else damage(path) from error


def damage(path: Path) -> InputError:
    """Return the refusal of a file that is not whole."""
    return InputError(f"source.path: {str(path)!r} is truncated or damaged; copy or write it again")


def lacking_filter(path: Path, name: str) -> InputError:
    """Return the refusal of HDF5 that was compressed by what is not installed."""
    name = name or "a filter"
    return InputError(
        f"source.path: {str(path)!r} is compressed by {name}, which is not installed; pip install "
        "hdf5plugin, or write it again with gzip"
    )


class Entries(Mapping[str, np.ndarray]):
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

    def refusal(self, name: str, reason: str) -> InputError:
        """Return a refusal that names entry and file."""
        return InputError(f"source.path: entry {name!r} of {str(self._path)!r} {reason}")


class NpzEntries(Entries):
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
                HEADERS[np.lib.format.read_magic(file)](file)
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
            shape, is_fortran, dtype = HEADERS[np.lib.format.read_magic(file)](file)
        if dtype.hasobject:
            raise self.refusal(
                name,
                "holds Python objects, which are not read for safety; save plain arrays of "
                "numbers or text",
            )
        if dtype.kind not in "biufcSU":
            raise self.refusal(name, f"holds {dtype}; save numbers or text")
        check_claim(self._path, f"entry {name!r}", math.prod(shape) * dtype.itemsize)
        return shape, is_fortran, dtype

    def _read(self, name: str, place: zipfile.ZipInfo) -> np.ndarray:
        self._header(name, place)
        with self._archive.open(place) as file:
            return np.lib.format.read_array(file, allow_pickle=False)
