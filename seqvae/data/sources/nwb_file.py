"""An NWB file, opened by pynwb: its tables and series by name, read in bounded memory.

Links to other files are not followed, and what a dataset only claims to hold is refused, as
everywhere; see ``seqvae.data.sources.archives``.
"""

from __future__ import annotations

import math
import posixpath
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from seqvae.data.sizes import check_memory
from seqvae.data.sources.archives import mended
from seqvae.data.sources.hdf5_file import open_hdf5
from seqvae.data.sources.nwb_table import Outline, Table, outline_of
from seqvae.data.sources.settled import existing_file, settled
from seqvae.errors import InputError, nearest

_MOST_NAMES = 10
_FEW = 100_000  # entries that any file may have in one dataset


class Series(NamedTuple):
    """Values over time.

    Attributes:
        place: where it lies, such as "behavior/hand_vel".
        kind: its type, such as "TimeSeries".
        times: seconds on the clock of the session.
        values: a row for each time.
        ids: of the columns, where they are regions of interest.
    """

    place: str
    kind: str
    times: Float[np.ndarray, " sample"]
    values: Float[np.ndarray, "sample channel"]
    ids: Shaped[np.ndarray, " channel"] | None


class NWBContents:
    """What an open NWB file holds.

    Attributes:
        path: the file or, of zarr, the folder.
    """

    def __init__(self, path: Path, file: Any, stored: Callable[..., np.ndarray] | None) -> None:
        self.path = path
        self._file = file
        self._stored = stored

    @property
    def session_id(self) -> str:
        """The name of the session, or what tells the file from any other."""
        return str(self._file.session_id or self._file.identifier)

    @property
    def units(self) -> Table | None:
        """The sorted units, if there are any."""
        table = self._file.units
        if table is None:
            return None
        units = Table("units", table, path=self.path, read=self.array)
        return units if len(units) and "spike_times" in units else None

    @property
    def interval_tables(self) -> list[str]:
        """Names of the tables of intervals that have rows, trials first."""
        tables = {"trials": self._file.trials, "epochs": self._file.epochs}
        tables |= {name: self._file.intervals[name] for name in self._file.intervals or {}}
        return [name for name, table in tables.items() if table is not None and len(table.id)]

    def intervals(self, name: str) -> Table:
        """Return a table of intervals; those of ``interval_tables``."""
        table = getattr(self._file, name) if name in ("trials", "epochs") else None
        table = self._file.intervals[name] if table is None else table
        return Table(name, table, path=self.path, read=self.array)

    @property
    def series(self) -> dict[str, str]:
        """The kind of every series of numbers over time, by its place."""
        return {place: kind for place, (kind, _) in self._all_series().items()}

    def outlines(self) -> dict[str, Outline]:
        """Return sizes and type of every series, unread, by its place."""
        with mended(self.path):
            return {place: outline_of(one.data) for place, (_, one) in self._all_series().items()}

    def find_series(self, name: str, *, field: str) -> Series:
        """Read a series.

        Args:
            name: its place, or the end of it.
            field: the setting that names it, for errors.

        Raises:
            InputError: if there is none such, or several.
        """
        there = self._all_series()
        places = [place for place in there if f"/{place}".endswith(f"/{name.strip('/')}")]
        if len(places) > 1:
            places = [place for place in places if place == name.strip("/")] or places
        if not places:
            raise InputError(f"{field}: the file has no series {name!r}{_offered(name, there)}")
        if len(places) > 1:
            raise InputError(
                f"{field}: {name!r} may be {' or '.join(map(repr, places[:3]))}; give the whole"
            )
        kind, found = there[places[0]]
        with mended(self.path):
            return self._read_series(places[0], kind, found, field)

    def array(self, name: str, data: Any) -> np.ndarray:
        """Read an array, of text as text; refuse what is none."""
        import h5py

        with mended(self.path):
            if isinstance(data, h5py.Dataset) and self._stored is not None:
                values = self._stored(name, data)
            else:
                shape = getattr(data, "shape", (len(data),))
                size = getattr(getattr(data, "dtype", None), "itemsize", 8)
                check_memory(f"{name} of {str(self.path)!r}", math.prod(shape) * size)
                values = np.asarray(data[:])
            if values.dtype.kind in "OS":
                texts = [v.decode() if isinstance(v, bytes) else str(v) for v in values.ravel()]
                values = np.array(texts, dtype=str).reshape(values.shape)
            return values

    def _all_series(self) -> dict[str, tuple[str, Any]]:
        from pynwb import TimeSeries

        there = {}
        for container in self._file.objects.values():
            if not isinstance(container, TimeSeries) or getattr(container, "data", None) is None:
                continue
            parts, above = [container.name], container.parent
            while above is not None and above is not self._file:
                parts.append(above.name)
                above = above.parent
            there["/".join(reversed(parts))] = (type(container).__name__, container)
        return there

    def _read_series(self, place: str, kind: str, found: Any, field: str) -> Series:
        values = self.array(place, found.data)
        if values.ndim not in (1, 2) or values.dtype.kind not in "biuf" or not len(values):
            raise InputError(
                f"{field}: {place!r} holds {values.dtype} of shape {values.shape}; name a series "
                "of numbers (time, channel)"
            )
        values = values.reshape(len(values), -1).astype(np.float64)
        values = values * float(found.conversion or 1.0) + float(found.offset or 0.0)
        if found.timestamps is not None:
            times = self.array(f"{place}/timestamps", found.timestamps).astype(np.float64)
        elif found.rate and math.isfinite(found.rate) and found.rate > 0:
            times = float(found.starting_time or 0.0) + np.arange(len(values)) / float(found.rate)
        else:
            raise InputError(f"{field}: {place!r} tells neither timestamps nor a rate")
        if times.shape != (len(values),):
            raise InputError(
                f"{field}: {place!r} has {len(values)} samples, but {times.size} timestamps; write "
                "it again"
            )
        known = np.isfinite(times)
        order = np.flatnonzero(known)[np.argsort(times[known], kind="stable")]
        ids = getattr(getattr(found, "rois", None), "data", None)
        names = None if ids is None else np.asarray(self.array(f"{place}/rois", ids))
        return Series(place, kind, times[order], values[order], names)


@contextmanager
def open_nwb(path: str | Path) -> Iterator[NWBContents]:
    """Yield what an NWB file, or a zarr folder of one, holds.

    Raises:
        InputError: without pynwb, and if the file is damaged, no NWB, or changes meanwhile.
    """
    try:
        import pynwb
    except ImportError as error:
        raise InputError("NWB files need pynwb; pip install 'seqvae[nwb]'") from error
    place = Path(path)
    if (place / ".zgroup").is_file() or (place / "zarr.json").is_file():
        yield from _of_zarr(place)
        return
    import h5py

    file = existing_file(place)
    with mended(file):
        if not h5py.is_hdf5(file):
            raise InputError(f"source.path: {str(file)!r} is not an NWB (HDF5) file")
    with settled(file), open_hdf5(file) as entries:
        _check_entries(file, entries)
        with mended(file), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of namespaces and of rules of style
            content = pynwb.NWBHDF5IO(file=entries.root, mode="r", load_namespaces=True).read()
        with mended(file):
            yield NWBContents(file, content, entries.stored)


def _check_entries(path: Path, entries: Any) -> None:
    """Refuse what opening the file would follow, or read, without end.

    These are links to other files, links to a group that they lie in, and more texts than the file
    has bytes; pynwb reads texts, and what stands at the root, at once.
    """
    import h5py

    def reason(name: str, link: Any) -> str | None:
        if isinstance(link, h5py.ExternalLink):
            return f"{name!r} of {str(path)!r} lies in another file, which is not opened"
        if isinstance(link, h5py.SoftLink):
            target = posixpath.normpath(posixpath.join("/", posixpath.dirname(name), link.path))
            if f"/{name}/".startswith(f"{target.rstrip('/')}/"):
                return f"{name!r} of {str(path)!r} is a link to what it lies in"
        return None

    def claim(name: str, item: Any) -> str | None:
        if not isinstance(item, h5py.Dataset) or not item.size:
            return None
        if (item.dtype.kind == "O" or "/" not in name) and item.size > most:
            return (
                f"{name!r} of {str(path)!r} claims {item.size:.3g} entries, more than it can hold"
            )
        return None

    most = max(_FEW, path.stat().st_size)
    len(entries)  # refused if links lead to more than can lie in it
    root = entries.root
    with mended(path):
        refused = root.visititems_links(reason) or root.visititems(claim)
    if refused is not None:
        raise InputError(f"source.path: {refused}; write one whole file without such entries")


def _of_zarr(folder: Path) -> Iterator[NWBContents]:
    try:
        from hdmf_zarr import NWBZarrIO
    except ImportError as error:
        raise InputError(
            f"source.path: {str(folder)!r} is a zarr folder, which needs hdmf-zarr; pip install "
            "hdmf-zarr"
        ) from error
    with mended(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = NWBZarrIO(str(folder), mode="r", load_namespaces=True)
        content = reader.read()
    try:
        with mended(folder):
            yield NWBContents(folder, content, None)
    finally:
        reader.close()


def _offered(name: str, places: dict[str, Any]) -> str:
    """Name the nearest places, or at most ten of them."""
    if not places:
        return "; it holds none"
    names = [*places] if "/" in name else [place.rpartition("/")[2] for place in places]
    offer = nearest(name, names)
    return offer if offer.startswith("; did") else nearest(name, names[:_MOST_NAMES])
