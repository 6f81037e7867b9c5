"""An array in NumPy's own format, read by its place in the file: a map of it may be cut away."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from seqvae.data.sources.archives import HEADERS, damage, mended
from seqvae.data.sources.leaves import Leaf
from seqvae.data.sources.rows import FileRows, is_large
from seqvae.errors import InputError

_AT_ONCE = 4_000_000  # numbers


def npy_leaf(path: Path) -> Leaf:
    """Return the array of a file, of which nothing is read yet.

    Raises:
        InputError: if the file is damaged, or holds no numbers.
    """
    with mended(path), path.open("rb") as file:
        shape, is_fortran, dtype = HEADERS[np.lib.format.read_magic(file)](file)
        offset = file.tell()
        if dtype.kind not in "biuf":
            raise InputError(f"source.path: {str(path)!r} holds no numbers; save an array of some")
        if min(shape, default=0) < 0 or _end(offset, shape, dtype) > path.stat().st_size:
            raise damage(path)
    read = partial(_read, path, offset, shape, dtype, is_fortran=is_fortran)

    def pieces() -> Iterator[np.ndarray]:
        for start in range(0, math.prod(shape), _AT_ONCE):
            count = min(_AT_ONCE, math.prod(shape) - start)
            yield _read(path, offset + start * dtype.itemsize, (count,), dtype)

    def rows() -> FileRows | None:
        if is_fortran or not is_large(shape, dtype):
            return None
        return FileRows(path, "", shape, dtype, offset=offset)

    return Leaf(shape, dtype, read, pieces, rows)


def _end(offset: int, shape: tuple[int, ...], dtype: np.dtype) -> int:
    return offset + math.prod(shape) * dtype.itemsize


def _read(
    path: Path, offset: int, shape: tuple[int, ...], dtype: np.dtype, *, is_fortran: bool = False
) -> np.ndarray:
    """Read an array that begins at a place of a file.

    Raises:
        InputError: if the file ends before.
    """
    with mended(path):
        numbers = np.fromfile(path, dtype, math.prod(shape), offset=offset)
        if len(numbers) < math.prod(shape):
            raise damage(path)
        return numbers.reshape(shape, order="F" if is_fortran else "C")
