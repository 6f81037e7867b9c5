"""Large arrays of a file that are read piece by piece, when their numbers are asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from seqvae.data import sizes
from seqvae.errors import InputError


def large_rows(path: Path, dataset: Any) -> FileRows | None:
    """Return what reads a large dataset of HDF5; None for one that is read at once.

    Args:
        path: the file.
        dataset: of it, (trial, time, neuron), or (time, neuron) of one trial.
    """
    kind = dataset.dtype
    is_large = dataset.size > sizes.LARGE and kind.kind in "biu" and kind.itemsize <= 2
    if not is_large or dataset.ndim not in (2, 3):
        return None
    offset = dataset.id.get_offset() if dataset.chunks is None else None
    return FileRows(path, dataset.name, dataset.shape, kind, offset=offset)


class FileRows:
    """An array (trial, time, neuron), or (time, neuron) of one trial, in a file.

    Args:
        path: the file.
        name: of the dataset of HDF5.
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

            try:
                with h5py.File(self._path, "r") as file:
                    where = slice(start, stop) if self._is_flat else (trial, slice(start, stop))
                    compressed: np.ndarray = file[self._name][where]
                    return compressed
            except Exception as error:  # of many kinds
                raise self._damaged() from error
        width = self.shape[2]
        skipped = (trial * self.shape[1] + start) * width * self.dtype.itemsize
        count = max(0, stop - start) * width
        numbers = np.fromfile(self._path, self.dtype, count, offset=self._offset + skipped)
        if len(numbers) < count:
            raise self._damaged()
        return numbers.reshape(-1, width)

    def _damaged(self) -> InputError:
        return InputError(
            f"source.path: {str(self._path)!r} is truncated or damaged; copy or write it again"
        )

    def _now(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size
