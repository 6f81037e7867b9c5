"""The source for a path, told by its suffix."""

from __future__ import annotations

from pathlib import Path

from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.hdf5 import HDF5
from seqvae.data.sources.images import Images
from seqvae.data.sources.mat import MAT
from seqvae.data.sources.npy import Npy
from seqvae.data.sources.npz import Npz
from seqvae.data.sources.nwb import NWB
from seqvae.errors import InputError


def from_path(path: str | Path) -> RecordingSource:
    """Return the source of a file.

    That is ``HDF5`` for .h5, .hdf5 and .hdf, ``Npz`` for .npz, ``Npy`` for .npy, ``MAT`` for .mat,
    ``NWB`` for .nwb and zarr folders of it, ``Images`` for IDX files.

    Raises:
        InputError: for another ending.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        return Npz(path)
    if suffix == ".npy":
        return Npy(path)
    if suffix == ".mat":
        return MAT(path)
    if suffix in (".h5", ".hdf5", ".hdf"):
        return HDF5(path)
    if suffix == ".nwb" or str(path).endswith(".nwb.zarr"):
        return NWB(path)
    if "-ubyte" in Path(path).name:
        return Images(path)
    raise InputError(
        f"path: {str(path)!r} ends in {suffix!r}; give a .h5, .hdf5, .hdf, .npz, .npy, .mat or "
        ".nwb file"
    )
