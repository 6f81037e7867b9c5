"""NumPy archives, read (without pickle) and written."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from seqvae.config.arguments import InConfig
from seqvae.data.recording import Recording
from seqvae.data.sources.archives import open_npz
from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.holdings import opened
from seqvae.data.sources.layout import read_recording, recording_fields
from seqvae.data.sources.planned import needs_plan, read_named
from seqvae.data.sources.settled import existing_file, settled
from seqvae.data.sources.stored import Stored
from seqvae.errors import InputError
from seqvae.storage.files import atomic_path


@dataclass(frozen=True)
class Npz(RecordingSource):
    """An ``.npz`` archive in either layout of ``HDF5``; scalars such as ``bin_width`` are entries.

    Attributes:
        path: the file.
        keys: entries with other names, by field, as in ``HDF5``.
        bin_width: seconds per bin, where the file does not say it.
        dims: the axes of the activity in their order, where that is another than trial, time,
            neuron; what is not named has one entry.
        trial_bins: bins of a trial, where trials of one length stand one after another in an array
            (time, neuron).
    """

    path: str | Path
    keys: dict[str, str] | None = None
    bin_width: float | None = None
    dims: Annotated[list[str] | None, InConfig(tells_default=False)] = None
    trial_bins: Annotated[int | None, InConfig(tells_default=False)] = None

    def load(self) -> Recording:
        """Read the file."""
        file = existing_file(self.path)
        if not zipfile.is_zipfile(file):
            raise InputError(
                f"source.path: {str(file)!r} is no whole npz archive; check the path or write it "
                "again"
            )
        with settled(file), open_npz(file) as entries:
            if not needs_plan(list(entries), self.keys, self.dims, self.trial_bins):
                return read_recording(entries, self.keys, self.bin_width)
        with opened(file) as holdings:
            return read_named(
                holdings,
                self.keys,
                dims=self.dims,
                bin_width=self.bin_width,
                trial_bins=self.trial_bins,
            )


def write_npz(recording: Recording, path: str | Path) -> None:
    """Write a recording that ``Npz(path)`` reads back equal; the file appears whole or not.

    Counts are written in the smallest unsigned type, a block at a time.
    """
    stored = Stored.of(recording.activity)
    header = {"descr": stored.dtype.str, "fortran_order": False, "shape": stored.shape}
    with atomic_path(path) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in recording_fields(recording, stored).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
        with archive.open("activity.npy", "w", force_zip64=True) as entry:
            np.lib.format.write_array_header_1_0(entry, header)
            for _, _, values in stored.blocks():
                entry.write(np.ascontiguousarray(values).data)
