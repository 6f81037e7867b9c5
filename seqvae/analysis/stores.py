"""Where what inference found is put, piece by piece: in memory, in a netCDF file or in zarr."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import h5netcdf
import h5py
import numpy as np
import xarray as xr

from seqvae.errors import InputError
from seqvae.storage.files import Lenient, atomic_path

Precision: TypeAlias = Literal["float16", "float32"]
ZARR = ".zarr"
"""How the name of a zarr store ends."""


def stored_dtype(dims: tuple[str, ...], precision: Precision) -> np.dtype:
    """Return double precision for one number per trial, what is asked for for the rest."""
    return np.dtype("float64" if dims == ("trial",) else precision)


def rounded(values: np.ndarray, precision: Precision) -> np.ndarray:
    """Return values in a precision that holds them.

    Raises:
        InputError: for numbers that float16 has no place for.
    """
    if precision == "float32":
        return values
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    beyond = np.isinf(half) & np.isfinite(values)
    if beyond.any():
        raise InputError(
            f"dtype: float16 holds numbers up to 65504, but there is {values[beyond][0]:.6g}; "
            "take float32"
        )
    return half


@runtime_checkable
class Store(Protocol):
    """What takes coordinates, and variables piece by piece.

    Attributes:
        variables: by name, each of which takes pieces by their index.
    """

    variables: dict[str, Any]

    def check(self) -> None:
        """Raise what the disk refused, if it did."""

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Note facts about the whole."""

    def add_coordinate(
        self, name: str, dim: str, values: np.ndarray, *, attributes: Mapping[str, str]
    ) -> None:
        """Put a coordinate, whole."""

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

    def dataset(self) -> xr.Dataset:
        """Return all that was put."""


def open_store(path: Path | None, place: ExitStack, precision: Precision) -> Store:
    """Return a store in memory, or one on disk that comes to its path when ``place`` is left.

    A path that ends in .zarr is a zarr store, any other a netCDF file.
    """
    if path is None:
        return InMemory(precision)
    if path.suffix.lower() == ZARR:
        from seqvae.analysis.zarr_store import InZarr

        return InZarr(path, place, precision)
    return InFile(path, place, precision)


class InMemory:
    """Variables as arrays."""

    def __init__(self, precision: Precision) -> None:
        self._precision = precision
        self.variables: dict[str, Any] = {}
        self._coordinates: dict[str, xr.Variable] = {}
        self._described: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {}
        self._attributes: dict[str, Any] = {}

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Note facts about the whole."""
        self._attributes = dict(attributes)

    def check(self) -> None:
        """Memory refuses nothing by halves."""

    def add_coordinate(
        self, name: str, dim: str, values: np.ndarray, *, attributes: Mapping[str, str]
    ) -> None:
        """Put a coordinate, whole."""
        self._coordinates[name] = xr.Variable((dim,), values, dict(attributes))

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
        self.variables[name] = np.full(shape, np.nan, dtype=stored_dtype(dims, self._precision))
        self._described[name] = (dims, dict(attributes))

    def dataset(self) -> xr.Dataset:
        """Return all that was put."""
        data = {
            name: xr.Variable(dims, self.variables[name], attributes)
            for name, (dims, attributes) in self._described.items()
        }
        return xr.Dataset(data, coords=self._coordinates, attrs=self._attributes)


class InFile:
    """Variables in a netCDF4 file that comes to its ``path`` when ``place`` is left."""

    def __init__(self, path: Path, place: ExitStack, precision: Precision) -> None:
        self._precision = precision
        self.variables: dict[str, Any] = {}
        self._path = path
        if path.is_dir():
            raise InputError(f"out: {path} is a folder; give the name of a file in it.")
        self._raw = Lenient(place.enter_context(atomic_path(path)))
        place.callback(self._raw.check)
        place.callback(self._raw.close)
        self._file = h5netcdf.File(self._raw, "w")
        place.callback(self._file.close)

    def check(self) -> None:
        """Raise what the disk refused, if it did."""
        self._raw.check()

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Note facts about the whole."""
        self._file.attrs.update(attributes)

    def add_coordinate(
        self, name: str, dim: str, values: np.ndarray, *, attributes: Mapping[str, str]
    ) -> None:
        """Strings have any length; netCDF has no booleans, and xarray reads them back by a mark."""
        attributes = dict(attributes)
        dtype: Any = values.dtype
        if dtype.kind in "OU":
            dtype = h5py.string_dtype()
            values = values.astype(object)
        elif dtype.kind == "b":
            dtype = np.dtype(np.int8)
            values = values.astype(dtype)
            attributes["dtype"] = "bool"
        self._create(name, (dim,), values.shape, dtype=dtype, attributes=attributes)[...] = values
        if name != dim:
            named = self._file.attrs.get("coordinates", "")
            self._file.attrs["coordinates"] = f"{named} {name}".strip()

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
            attributes=attributes,
            chunk=chunk,
        )

    def _create(
        self,
        name: str,
        dims: tuple[str, ...],
        shape: tuple[int, ...],
        *,
        dtype: Any,
        attributes: Mapping[str, str],
        chunk: tuple[int, ...] | None = None,
    ) -> Any:
        for dim, size in zip(dims, shape, strict=True):
            if dim not in self._file.dimensions:
                self._file.dimensions[dim] = size
        fill = np.nan if chunk else None
        variable = self._file.create_variable(name, dims, dtype, fillvalue=fill, chunks=chunk)
        variable.attrs.update(attributes)
        return variable

    def dataset(self) -> xr.Dataset:
        """Return all that was put, to be read when asked for."""
        return xr.open_dataset(self._path, engine="h5netcdf")
