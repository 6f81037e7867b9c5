"""What inference found as a zarr store: a folder in which each piece of an array is a file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from seqvae.analysis.stores import Precision, stored_dtype
from seqvae.errors import InputError
from seqvae.storage.files import atomic_folder

_MARKS = (".zgroup", "zarr.json")


class InZarr:
    """Variables in zarr, in its format 2, that come to their ``path`` when ``place`` is left.

    Raises:
        InputError: where zarr is not installed, or something else lies at the path.
    """

    def __init__(self, path: Path, place: ExitStack, precision: Precision) -> None:
        try:
            import zarr
        except ImportError as error:
            raise InputError(
                f"out: {path} needs the library zarr: pip install 'seqvae[zarr]'; or give a name "
                "that ends in .nc"
            ) from error
        is_store = any((path / mark).is_file() for mark in _MARKS)
        if path.exists() and not is_store:
            raise InputError(f"out: {path} is there and is no zarr store; give another name")
        self._precision, self._path = precision, path
        self.variables: dict[str, Any] = {}
        self._folder = place.enter_context(atomic_folder(path))
        # version 3 of the library writes format 2 if it is asked to; version 2 cannot be asked
        self._format = {} if zarr.__version__.startswith("2.") else {"zarr_format": 2}
        self._group = zarr.open_group(str(self._folder), mode="w", **self._format)
        place.callback(zarr.consolidate_metadata, str(self._folder), **self._format)

    def check(self) -> None:
        """Nothing is held back: what the disk refuses is raised at once."""

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Note facts about the whole."""
        self._group.attrs.update(attributes)

    def add_coordinate(
        self, name: str, dim: str, values: np.ndarray, *, attributes: Mapping[str, str]
    ) -> None:
        """Put a coordinate, whole; text has the length of the longest."""
        values = values.astype(str) if values.dtype.kind == "O" else values
        array = self._create(name, (dim,), values.shape, dtype=values.dtype, fill=None,
                             chunk=values.shape, attributes=attributes)  # fmt: skip
        array[...] = values
        if name != dim:
            named = self._group.attrs.get("coordinates", "")
            self._group.attrs["coordinates"] = f"{named} {name}".strip()

    def add_variable(
        self,
        name: str,
        dims: tuple[str, ...],
        *,
        shape: tuple[int, ...],
        chunk: tuple[int, ...],
        attributes: Mapping[str, str],
    ) -> None:
        """Make room for a variable; what is not put there later is NaN."""
        self.variables[name] = self._create(
            name,
            dims,
            shape,
            dtype=stored_dtype(dims, self._precision),
            fill=np.nan,
            chunk=chunk,
            attributes=attributes,
        )

    def _create(
        self,
        name: str,
        dims: tuple[str, ...],
        shape: tuple[int, ...],
        *,
        dtype: np.dtype,
        fill: float | None,
        chunk: tuple[int, ...],
        attributes: Mapping[str, str],
    ) -> Any:
        import zarr

        array: Any = zarr.open_array(
            str(self._folder / name),
            mode="w",
            shape=shape,
            chunks=tuple(max(1, size) for size in chunk),
            dtype=dtype,
            fill_value=fill,
            **self._format,
        )
        array.attrs.update({"_ARRAY_DIMENSIONS": list(dims), **attributes})
        return array

    def dataset(self) -> xr.Dataset:
        """Return all that was put, to be read when asked for.

        By zarr itself, as an xarray goes with one of its versions only.
        """
        import zarr

        group = zarr.open_group(str(self._path), mode="r", **self._format)
        attributes = dict(group.attrs)
        beside = str(attributes.pop("coordinates", "")).split()
        variables = {name: _variable(array) for name, array in group.arrays()}
        dims = {dim for variable in variables.values() for dim in variable.dims}
        dataset = xr.Dataset(variables, attrs=attributes)
        return dataset.set_coords([name for name in variables if name in {*dims, *beside}])


class _OnDisk(BackendArray):
    """An array of zarr as xarray reads those of its backends."""

    def __init__(self, array: Any) -> None:
        self.shape, self.dtype, self._array = array.shape, array.dtype, array

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._array.__getitem__
        )


def _variable(array: Any) -> xr.Variable:
    attributes = dict(array.attrs)
    dims = attributes.pop("_ARRAY_DIMENSIONS")
    values = indexing.LazilyIndexedArray(_OnDisk(array))
    return xr.Variable(dims, values, attributes, encoding={"chunks": array.chunks})
