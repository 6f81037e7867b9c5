"""NWB files: spike times of units, or fluorescence, as trials around an event or one long trial."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from seqvae.data.lazy import LazyActivity
from seqvae.data.recording import Recording
from seqvae.data.sampling import sampled
from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.nwb_file import NWBContents, Series, open_nwb
from seqvae.data.sources.nwb_fluorescence import Fluorescence
from seqvae.data.sources.nwb_table import Table
from seqvae.data.sources.nwb_trials import Trials, read_trials, span
from seqvae.data.sources.nwb_units import Units, read_units
from seqvae.data.validation import as_bin_width, check_number
from seqvae.errors import InputError, nearest


@dataclass(frozen=True)
class NWB(RecordingSource):
    """A file of Neurodata Without Borders (HDF5, or a zarr folder), read by pynwb.

    Spikes are counted in bins closed on the left, ``[start, start + bin_width)``; those on an edge
    belong to the bin that begins there. Units need no order of their spikes; what stands twice
    counts twice, and is told. Bins that do not lie wholly within a unit's ``obs_intervals`` are
    missing; without these, bins before the session or after the last time in the file. Trials
    without the event, or in which nothing was recorded, are left out, and told.

    Attributes:
        path: the file, or the folder of zarr.
        bin_width: seconds per bin; None: for ``series``, as it was sampled.
        align_to: column of the trials with the event, in seconds. None: each trial whole, from
            start_time to stop_time.
        window: seconds from the event to the first and past the last bin.
        trials: table of trials: trials, epochs or another table of intervals. None, or a file
            without trials: one long trial.
        units_query: condition on columns of the units, such as "quality == 'good'".
        heldout: column that is true for neurons that inference never sees; None: none are.
        split: column with train, val or test (or validation and the like; none: left out); None:
            the file says none.
        condition: column of the trials, or several, whose texts are joined.
        behavior: names of series, or their places by name, such as {hand_vel: behavior/hand_vel};
            of each the mean in every bin, side by side.
        behavior_lag: seconds from activity to the behaviour beside it.
        series: fluorescence in place of spikes: name of a RoiResponseSeries, of which the mean is
            taken in every bin.
    """

    path: str | Path
    bin_width: float | None = None
    align_to: str | None = "move_onset_time"
    window: tuple[float, float] = (-0.25, 0.45)
    trials: str | None = "trials"
    units_query: str | None = None
    heldout: str | None = "heldout"
    split: str | None = "split"
    condition: str | list[str] | None = None
    behavior: list[str] | dict[str, str] | None = None
    behavior_lag: float = 0.0
    series: str | None = None

    def load(self) -> Recording:
        """Read the file."""
        self._check()
        with open_nwb(self.path) as file:
            source = self._source(file)
            behavior = [file.find_series(name, field="behavior") for name in self._behavior]
            width = self.bin_width or source.default_width
            assert width is not None  # units ask for it
            tables = {name: file.intervals(name) for name in file.interval_tables}
            spans = {name: span(table) for name, table in tables.items()}
            table = self._table(tables)
            trials = None if table is None else self._trials(table, width)
            session_id = file.session_id
        if trials is None:
            trials = source.long_trial(spans.get("epochs"), width)
        recorded = source.recorded([each for each in spans.values() if each is not None])
        activity = source.binned(trials, width, recorded)
        trials, activity = _observed(trials, activity)
        event = trials.event_time
        return Recording(
            activity,
            width,
            behavior=self._beside(behavior, trials, width),
            condition=trials.condition,
            neuron_ids=source.ids,
            trial_ids=trials.ids,
            split=trials.split,
            heldin=source.heldin,
            start_times=trials.starts,
            event_times=None if event is None else np.full(len(trials.starts), event),
            event_name=None if event is None else self.align_to,
            session_id=session_id,
        )

    @property
    def _behavior(self) -> list[str]:
        named = self.behavior or []
        return list(named.values() if isinstance(named, dict) else named)

    def _check(self) -> None:
        """Refuse settings that cannot be, before the file is opened."""
        as_bin_width(self.bin_width, 1)
        if self.bin_width is None and self.series is None:
            raise InputError("bin_width: spike times have none; give seconds per bin, such as 0.02")
        window: Any = self.window
        if not isinstance(window, list | tuple) or len(window) != 2:
            raise InputError(f"window must be [start, stop] in seconds, got {window!r}")
        for edge in window:
            check_number("window", edge, "two numbers of seconds")
        if not window[0] < window[1]:
            raise InputError(f"window must begin before it ends, got {list(window)}")
        check_number("behavior_lag", self.behavior_lag, "a number of seconds")

    def _source(self, file: NWBContents) -> Units | Fluorescence:
        if self.series is not None:
            return Fluorescence.of(file.find_series(self.series, field="series"))
        is_default = self.heldout == NWB.heldout
        return read_units(file, query=self.units_query, heldout=self.heldout, is_default=is_default)

    def _table(self, tables: Mapping[str, Table]) -> Table | None:
        """Return the table of trials; None for one long trial."""
        if self.trials is None or (self.trials == NWB.trials and self.trials not in tables):
            return None
        if self.trials not in tables:
            raise InputError(
                f"trials: the file has no table {self.trials!r}{nearest(self.trials, tables)}"
            )
        return tables[self.trials]

    def _trials(self, table: Table, width: float) -> Trials:
        split = self.split
        if split == NWB.split and split not in table:
            split = None
        return read_trials(
            table,
            align_to=self.align_to,
            window=self.window,
            bin_width=width,
            split=split,
            condition=self.condition,
        )

    def _beside(
        self, behavior: Sequence[Series], trials: Trials, width: float
    ) -> Float32[np.ndarray, "trial time dimension"] | None:
        """Return the behaviour of ``behavior_lag`` later beside each bin."""
        if not behavior:
            return None
        starts = trials.starts + self.behavior_lag
        parts = [
            sampled(series.times, series.values, starts, bin_width=width, num_bins=trials.num_bins)
            for series in behavior
        ]
        joined = np.concatenate(parts, axis=2)
        joined[trials.padding] = np.nan
        if np.isnan(joined).all():
            raise InputError(
                f"behavior: {behavior[0].place!r} has no value in any trial; check its timestamps"
            )
        return joined


def _observed(trials: Trials, activity: Any) -> tuple[Trials, Any]:
    """Return the trials in which anything was observed; bins past the end of a trial are NaN."""
    padding = trials.padding
    if isinstance(activity, LazyActivity):
        if activity.is_whole:
            return trials, activity
        missing = ~activity.seen() & ~padding
    elif activity.dtype.kind != "f":
        return trials, activity
    else:
        activity[padding] = np.nan
        missing = np.isnan(activity).all(axis=2) & ~padding
    there = ~(missing | padding).all(axis=1)
    if not there.any():
        raise InputError(
            f"nothing was recorded in any of the {len(there)} trials; check align_to, window and "
            "obs_intervals (all in seconds from the start of the session)"
        )
    if not there.all():
        warnings.warn(
            f"{(~there).sum()} of {len(there)} trials lie where nothing was recorded; they are "
            "left out",
            stacklevel=4,
        )
    if missing[there].any():
        warnings.warn(
            f"{missing[there].any(axis=1).sum()} of {there.sum()} trials reach beyond what was "
            "recorded; their bins there are missing",
            stacklevel=4,
        )
    return trials.those(there), activity[there]
