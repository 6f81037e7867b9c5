"""The source for a path, told by its suffix."""

from __future__ import annotations

from pathlib import Path

from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.hdf5 import HDF5
from seqvae.data.sources.images import Images
from seqvae.data.sources.npz import Npz
from seqvae.errors import InputError


def from_path(path: str | Path) -> RecordingSource:
    """Return ``HDF5`` for .h5, .hdf5 and .hdf, ``Npz`` for .npz, ``Images`` for IDX files."""
    suffix = Path(path).suffix.lower()
    if suffix == ".npz":
        return Npz(path)
    if suffix in (".h5", ".hdf5", ".hdf"):
        return HDF5(path)
    if "-ubyte" in Path(path).name:
        return Images(path)
    raise InputError(
        f"path: {str(path)!r} ends in {suffix!r}; give a .h5, .hdf5, .hdf or .npz file"
    )
