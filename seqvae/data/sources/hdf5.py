"""HDF5 files, read and written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from seqvae.config.arguments import InConfig
from seqvae.data.lazy import LazyActivity
from seqvae.data.recording import Recording
from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.hdf5_file import open_hdf5
from seqvae.data.sources.holdings import opened
from seqvae.data.sources.layout import read_recording, recording_fields
from seqvae.data.sources.planned import needs_plan, read_named
from seqvae.data.sources.settled import existing_file, settled
from seqvae.data.sources.stored import Stored
from seqvae.errors import InputError
from seqvae.storage.files import Lenient, atomic_path


@dataclass(frozen=True)
class HDF5(RecordingSource):
    """An HDF5 file in one of two layouts, told apart by what it holds.

    Split layout: datasets ``train_encod_data`` (what inference may see) and ``train_recon_data``
    (the same, then held-out neurons and forecast bins at the end), likewise ``valid_`` and
    ``test_`` (where the second may be lacking); optional ``*_ext_input``, ``*_behavior``,
    ``*_condition``, ``*_inds`` (trial ids), ``*_length`` (bins of each padded trial) and
    ``*_truth`` (expected counts per bin, after multiplication by ``conversion_factor`` where that
    is given); attribute ``bin_width_s``.

    Flat layout, as ``write_hdf5`` writes it: datasets and attributes named like the fields of
    ``Recording``, ``lengths`` where trials are padded, and ``activity_missing_value``, the count
    that stands for what is missing; or, one entry for each spike,
    ``spike_times``, ``neuron_ids`` and perhaps ``trial_ids``, as ``SpikeTimes`` reads them. In
    ``keys`` a * stands for one group, or entry, for each trial: ``trial_*/spikes``. Arrays
    that MATLAB 7.3 wrote have their axes in MATLAB's order.

    Attributes:
        path: the file.
        keys: entries with other names, by field: the fields of ``Recording`` and, in the split
            layout, ``encoded`` and ``conversion_factor``. ``{split}`` in a name stands for train,
            valid and test: ``{"condition": "{split}_label"}``.
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
        import h5py

        file = existing_file(self.path)
        if not h5py.is_hdf5(file):
            raise InputError(f"source.path: {str(file)!r} is not an HDF5 file; check the path")
        with settled(file), open_hdf5(file) as entries:
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

    @property
    def is_matlab(self) -> bool:
        """Whether MATLAB wrote arrays of it; these lie there with their axes turned round."""
        with open_hdf5(existing_file(self.path)) as entries:
            return entries.is_matlab


def write_hdf5(recording: Recording, path: str | Path) -> None:
    """Write a recording that ``HDF5(path)`` reads back equal; the file appears whole or not.

    Counts are written in the smallest unsigned type. What is too large to be held at a time is
    written a block at a time, and not compressed, so that it is read fast from wherever it lies.
    """
    import h5py

    stored = Stored.of(recording.activity)
    small = {"compression": "gzip", "shuffle": True}
    is_large = isinstance(recording.activity, LazyActivity)
    with atomic_path(path) as draft, Lenient(draft) as raw:
        with h5py.File(raw, "w") as h:
            for name, array in recording_fields(recording, stored).items():
                if array.ndim == 0:
                    h.attrs[name] = array
                else:
                    h.create_dataset(name, data=array, **small)
            options = {} if is_large else small
            place = h.create_dataset("activity", stored.shape, stored.dtype, **options)
            for trials, bins, values in stored.blocks():
                place[trials, bins] = values
                raw.check()
        raw.check()
