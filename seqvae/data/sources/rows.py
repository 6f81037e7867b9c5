"""Large arrays of a file that are read piece by piece, when their numbers are asked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from seqvae.data import sizes
from seqvae.data.sources.archives import damage, mended
from seqvae.errors import InputError


def is_large(shape: tuple[int, ...], dtype: np.dtype) -> bool:
    """Whether an array is one of counts that are read when they are asked for."""
    is_small_type = dtype.kind in "biu" and dtype.itemsize <= 2
    return is_small_type and len(shape) in (2, 3) and math.prod(shape) > sizes.LARGE


def large_rows(path: Path, dataset: Any) -> FileRows | None:
    """Return what reads a large dataset of HDF5; None for one that is read at once.

    Args:
        path: the file.
        dataset: of it, (trial, time, neuron), or (time, neuron) of one trial.
    """
    if not is_large(dataset.shape, dataset.dtype):
        return None
    offset = dataset.id.get_offset() if dataset.chunks is None else None
    return FileRows(path, dataset.name, dataset.shape, dataset.dtype, offset=offset)


class FileRows:
    """An array (trial, time, neuron), or (time, neuron) of one trial, in a file.

    Args:
        path: the file.
        name: of the dataset of HDF5; of an array that stands in one piece, any.
        shape: sizes of its axes.
        dtype: type of the numbers.
        offset: bytes before the first number, where all stand in one piece; None: HDF5 reads them.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype,
        *,
        offset: int | None,
    ) -> None:
        self.shape, self.dtype = (1, *shape)[-3:], dtype
        self._is_flat = len(shape) == 2
        self._path, self._name, self._offset = path.resolve(), name, offset
        self._stamp = self._now()

    def __getitem__(self, index: tuple[int, slice]) -> np.ndarray:
        """Read a slice of the bins of a trial.

        Raises:
            InputError: if the file is gone, was changed, or is damaged.
        """
        if self._now() != self._stamp:
            raise InputError(
                f"source.path: {str(self._path)!r} was changed while it was read; leave it alone, "
                "and give the command again"
            )
        trial, place = index
        start, stop, _ = place.indices(self.shape[1])
        if self._offset is None:
            import h5py

            with mended(self._path), h5py.File(self._path, "r") as file:
                where = slice(start, stop) if self._is_flat else (trial, slice(start, stop))
                compressed: np.ndarray = file[self._name][where]
                return compressed
        width = self.shape[2]
        skipped = (trial * self.shape[1] + start) * width * self.dtype.itemsize
        count = max(0, stop - start) * width
        numbers = np.fromfile(self._path, self.dtype, count, offset=self._offset + skipped)
        if len(numbers) < count:
            raise damage(self._path)
        return numbers.reshape(-1, width)

    def _now(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
