"""The units of an NWB file: their spikes, when they were observed, and which are held out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, Int, Shaped

from seqvae.data.binning import observed_bins, warn_of_doubled_spikes
from seqvae.data.events import SpikeRows, Unseen, counted
from seqvae.data.sources.nwb_file import NWBContents
from seqvae.data.sources.nwb_table import Table
from seqvae.data.sources.nwb_trials import Trials
from seqvae.data.transforms.query import chosen_by
from seqvae.errors import InputError

_HAIR = 1e-6  # of a bin
_OUTLYING = 100  # times as long as usual
_MANY = 10_000_000  # bins


@dataclass(frozen=True, eq=False)
class Units:
    """Units, in the order of the file.

    Attributes:
        ids: their names.
        spike_times: of each, in seconds.
        intervals: first and last times at which each was observed, where the file tells.
        heldin: indices of those that inference may see, where the file tells.
    """

    ids: Shaped[np.ndarray, " neuron"]
    spike_times: list[Float[np.ndarray, " _"]]
    intervals: list[Float[np.ndarray, "_ 2"]] | None
    heldin: Int[np.ndarray, " chosen"] | None

    default_width: ClassVar[None] = None

    @property
    def num_channels(self) -> int:
        """How many units there are."""
        return len(self.ids)

    @property
    def spikes(self) -> Float[np.ndarray, " spike"]:
        """The times of the spikes of all units."""
        times = np.concatenate(self.spike_times)
        return times[np.isfinite(times)]

    def recorded(self, spans: Sequence[tuple[float, float]]) -> tuple[float, float]:
        """Return when the recording began and ended, as far as spikes and intervals tell."""
        spikes = self.spikes
        lasts = [last for _, last in spans]
        return min(0.0, float(spikes.min())), max([float(spikes.max()), *lasts])

    def long_trial(self, epochs: tuple[float, float] | None, bin_width: float) -> Trials:
        """Return one trial, as long as the recording.

        It is as long as ``obs_intervals``, else the epochs, tell; else it begins with the session
        (or the first spike, if that was before), and ends with the bin of the last.

        Raises:
            InputError: if few spikes lie far from all others.
        """
        spikes, observed = self.spikes, epochs
        if self.intervals is not None:
            times = np.concatenate(self.intervals)
            observed = float(times.min()), float(times.max())
        if observed is None:
            first = math.floor(min(0.0, spikes.min()) / bin_width) * bin_width
            number = math.floor((spikes.max() - first) / bin_width + _HAIR) + 1.0
        else:
            first, last = observed
            number = float(math.floor((last - first) / bin_width + _HAIR))
        usual = float(np.ptp(np.quantile(spikes, [0.01, 0.99]))) + bin_width
        if number > max(_MANY, _OUTLYING * usual / bin_width):
            raise InputError(
                f"source.path: the recording would last {number * bin_width:.3g} s, from "
                f"{first:.3g} s on, but nearly all spikes lie within {usual:.3g} s; times must be "
                "in seconds from the start of the session"
            )
        if number < 1:
            raise InputError(f"source.path: the recording is shorter than a bin of {bin_width:g} s")
        return Trials(np.array([first]), np.array([int(number)]))

    def binned(self, trials: Trials, bin_width: float, recorded: tuple[float, float]) -> Any:
        """Return the counts in each bin, NaN where a unit was not observed throughout it.

        Those of many bins are counted when they are asked for; past the end of a trial all is NaN.

        Args:
            trials: the bins.
            bin_width: seconds.
            recorded: when the recording began and ended, for units of which no interval tells.
        """
        warn_of_doubled_spikes(self.spike_times, self.ids)
        starts, num_bins = trials.starts, trials.num_bins
        first, last = recorded
        bins = math.floor((last - starts.max()) / bin_width + _HAIR) + 1  # that of the last spike
        whole = np.array([[first, max(last, starts.max() + bins * bin_width)]])
        alike: dict[bytes, list[int]] = {}
        intervals = self.intervals or [whole] * self.num_channels
        for unit, own in enumerate(intervals):
            alike.setdefault(own.tobytes(), []).append(unit)
        unseen = [
            Unseen(np.array(members), intervals[members[0]])
            for members in alike.values()
            if not observed_bins(
                intervals[members[0]], starts, bin_width=bin_width, num_bins=num_bins
            ).all()
        ]
        rows = SpikeRows(
            [self.spike_times], starts, bin_width=bin_width, num_bins=num_bins, unseen=unseen
        )
        return counted(rows, trials.lengths)


def read_units(
    file: NWBContents, *, query: str | None, heldout: str | None, is_default: bool
) -> Units:
    """Read the units of a file.

    Args:
        file: an open one.
        query: condition on their columns; None: all.
        heldout: column that is true for those held out; None: none is.
        is_default: whether nobody asked for that column, so that it may be lacking.

    Raises:
        InputError: if there are none, or none is left.
    """
    table = file.units
    if table is None:
        there = [place for place, kind in file.series.items() if kind == "RoiResponseSeries"]
        cure = f"give series={there[0]!r}" if there else "check which file this is"
        raise InputError(f"source.path: {str(file.path)!r} holds no units with spikes; {cure}")
    chosen = np.arange(len(table))
    if query is not None:
        flat = [name for name in table.names if table.is_flat(name) and name in query]
        columns = {name: table.column(name, field="units_query") for name in flat}
        columns["id"] = table.ids
        chosen = np.flatnonzero(chosen_by(query, columns, field="units_query"))
        if not len(chosen):
            raise InputError(f"units_query leaves none of the {len(table)} units; ask for less")
    times = [np.atleast_1d(times).astype(np.float64) for times in table.ragged("spike_times")]
    intervals = None
    if "obs_intervals" in table:
        intervals = [_intervals(own) for own in table.ragged("obs_intervals")]
        intervals = [intervals[unit] for unit in chosen]
        if not any(map(len, intervals)):
            intervals = None
    heldin = None
    if heldout is not None and not (is_default and heldout not in table):
        heldin = _heldin(table, heldout, chosen)
    units = Units(table.ids[chosen], [times[unit] for unit in chosen], intervals, heldin)
    if not len(units.spikes):
        raise InputError(
            f"source.path: none of the {len(chosen)} units of {str(file.path)!r} has a spike; "
            "check which file this is"
        )
    return units


def _intervals(values: np.ndarray) -> Float[np.ndarray, "_ 2"]:
    pairs = np.asarray(values, dtype=np.float64)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InputError("source.path: obs_intervals of the units are no pairs (start, stop)")
    return pairs[np.isfinite(pairs).all(axis=1)]


def _heldin(
    table: Table, name: str, chosen: Int[np.ndarray, " chosen"]
) -> Int[np.ndarray, " heldin"] | None:
    values = table.column(name, field="heldout")[chosen]
    if values.dtype.kind == "U" or not np.isin(values, (0, 1)).all():
        raise InputError(f"heldout: column {name!r} of the units must hold true or false")
    heldin = np.flatnonzero(values == 0)
    if not len(heldin):
        raise InputError(
            f"heldout: column {name!r} holds out all {len(chosen)} units; name another"
        )
    return None if len(heldin) == len(chosen) else heldin
