"""Whatever holds times of spikes, as arrays in seconds, and the same in bins.

The libraries of the containers (pynapple, Neo) are not imported: each is known by what it offers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from seqvae.data.binning import warn_of_doubled_spikes, warn_of_overlap
from seqvae.data.containers import article, plain_labels, plain_numbers
from seqvae.data.events import SpikeRows, counted
from seqvae.data.seconds import as_intervals, as_seconds
from seqvae.data.validation import as_neuron_ids
from seqvae.errors import InputError

_COLUMNS = ("spike_times", "neuron_ids", "trial_ids")
_WHOLE = 1e-6  # of a bin: what an interval may lack to hold a whole one

HOUR, MONTH = 3600.0, 30 * 86400.0
SELDOM = 0.05
"""Hz: units that fire so seldom over hours are rather told in another unit of time."""


@dataclass(frozen=True, eq=False)
class Spikes:
    """Times of spikes by unit, of one recording or trial by trial.

    Attributes:
        trials: for each trial the times of each unit, in seconds; one, if ``are_trials`` is not
            so: the times of a whole recording, of which intervals may be trials.
        are_trials: whether the times were given trial by trial.
        ids: names of the units, where they have any.
        trial_ids: names of the trials.
        support: begin and end of each trial, or of each stretch of the recording, where these
            are told.
    """

    trials: Sequence[Sequence[np.ndarray]]
    are_trials: bool = False
    ids: Shaped[np.ndarray, " neuron"] | None = None
    trial_ids: Shaped[np.ndarray, " trial"] | None = None
    support: Float[np.ndarray, "interval 2"] | None = None

    @classmethod
    def of(cls, times: Any, unit_ids: Any = None) -> Spikes:
        """Read the times that something holds.

        Args:
            times: a list with the times of each unit, or with such a list for each trial; a
                mapping from names of units to times (a pynapple ``TsGroup``, too); a mapping with
                the columns ``spike_times``, ``neuron_ids`` and, where times are those of trials,
                ``trial_ids``; Neo spike trains, or segments or a block of these.
            unit_ids: names of the units of a list; of a mapping, those that are taken.

        Raises:
            InputError: for what holds no times.
        """
        if hasattr(times, "segments") or hasattr(times, "spiketrains"):
            times = list(getattr(times, "segments", [times]))
        if hasattr(times, "keys") and hasattr(times, "__getitem__"):
            if "spike_times" in times and "neuron_ids" in times:
                return _of_columns(times, unit_ids)
            return _of_mapping(times, unit_ids)
        if not isinstance(times, list | tuple | np.ndarray) or len(times) == 0:
            raise InputError(
                f"times is {article(times)}; give a list with the times of each neuron, a mapping "
                "from names to times, or the columns spike_times, neuron_ids and trial_ids"
            )
        times = list(times)
        if all(hasattr(one, "spiketrains") for one in times):
            return _of_segments(times, unit_ids)
        if all(map(_is_nest, times)):
            trials = [[as_seconds(f"times[{k}][{n}]", one) for n, one in enumerate(trial)]
                      for k, trial in enumerate(times)]  # fmt: skip
            _check_equal(trials)
            return cls(trials, are_trials=True, ids=_names(unit_ids, len(trials[0])))
        units = [as_seconds(f"times[{n}]", one) for n, one in enumerate(times)]
        return cls([units], ids=_names(unit_ids, len(units)), support=_support(times))

    def binned(self, bin_width: float, intervals: Any = None) -> dict[str, Any]:
        """Count the spikes in bins; return fields of ``Recording``.

        Bins are closed on the left; what of an interval is no whole bin at its end is left out.

        Args:
            bin_width: seconds.
            intervals: begin and end of each trial, in seconds of the times. None: those that the
                container tells, else from the bin of the first spike to that of the last, or, for
                times of trials, from 0 at the latest; a warning tells which.

        Raises:
            InputError: for intervals that are none, or in which there is no spike.
        """
        spans = self._spans(bin_width, intervals)
        lengths = np.floor((spans[:, 1] - spans[:, 0]) / bin_width + _WHOLE).astype(np.int64)
        if (lengths < 1).any():
            index = int(np.argmax(lengths < 1))
            raise InputError(
                f"intervals[{index}] lasts {spans[index, 1] - spans[index, 0]:g} s, less than one "
                f"bin of {bin_width:g} s; leave it out or give a smaller bin_width"
            )
        self._look_at_unit(spans)
        ids = np.arange(len(self.trials[0])) if self.ids is None else self.ids
        for units in self.trials[:1] if not self.are_trials else ():
            warn_of_doubled_spikes(units, ids)
        num_bins = int(lengths.max())
        rows = SpikeRows(self.trials, spans[:, 0], bin_width=bin_width, num_bins=num_bins)
        if not rows.num_spikes:
            first = min((float(t.min()) for t in self._units() if t.size), default=np.nan)
            raise InputError(
                f"intervals: none of the spikes, of which the first is at {first:g} s, lies in any "
                f"of the {len(spans)} intervals, the first of which is from {spans[0, 0]:g} to "
                f"{spans[0, 1]:g} s; give both in seconds of one clock"
            )
        fields: dict[str, Any] = {
            "activity": counted(rows, lengths),
            "bin_width": bin_width,
            "neuron_ids": self.ids,
        }
        fields["trial_ids"] = self.trial_ids
        if not self.are_trials or self.support is not None:
            fields["start_times"] = spans[:, 0]
        return {name: value for name, value in fields.items() if value is not None}

    def _look_at_unit(self, spans: Float[np.ndarray, "interval 2"]) -> None:
        """Refuse times that last too long to be seconds, and warn of those that may.

        Raises:
            InputError: if they last longer than a month.
        """
        each = spans[:, 1] - spans[:, 0]
        duration = float(each.sum())
        if not self.are_trials:  # which may overlap
            duration = min(duration, float(spans[:, 1].max() - spans[:, 0].min()))
        num_units = max(1, len(self.trials[0]))
        rate = sum(map(len, self._units())) / (num_units * max(duration, 1e-300))
        words = (
            f"times: spikes over {duration:.3g} s ({duration / 86400:.2g} days), {rate:.2g} a "
            "second of each unit; times are in seconds: divide milliseconds by 1000 and samples by "
            "their rate"
        )
        if duration > MONTH:
            raise InputError(words)
        if duration > HOUR and rate < SELDOM:
            warnings.warn(words, stacklevel=4)

    def _units(self) -> list[np.ndarray]:
        return [times for units in self.trials for times in units]

    def _spans(self, bin_width: float, intervals: Any) -> np.ndarray:
        if intervals is not None:
            spans = as_intervals(intervals)
            if self.are_trials and len(spans) == 1:
                spans = np.repeat(spans, len(self.trials), axis=0)
            if not self.are_trials:
                warn_of_overlap(spans)
            if self.are_trials and len(spans) != len(self.trials):
                raise InputError(
                    f"intervals has {len(spans)} rows, but the times are those of "
                    f"{len(self.trials)} trials; give begin and end of each, or one pair for all"
                )
            return spans
        if self.support is not None:
            return self.support
        spikes = np.concatenate([np.zeros(0), *self._units()])
        spikes = spikes[np.isfinite(spikes)]
        if spikes.size == 0:
            raise InputError("times holds no spikes at all; check which entry is read")
        first, last = float(spikes.min()), float(spikes.max())
        begin = np.floor(min(first, 0.0) / bin_width) if self.are_trials else first // bin_width
        if self.are_trials:
            self._refuse_one_clock()
        span = np.array([begin, last // bin_width + 1]) * bin_width
        what = "each trial" if self.are_trials else "the recording"
        warnings.warn(
            f"intervals: none are given, so {what} is taken from {span[0]:g} to {span[1]:g} s, "
            "where its spikes lie; give begin and end if it lasts longer",
            stacklevel=4,
        )
        return np.repeat(span[None], len(self.trials), axis=0)

    def _refuse_one_clock(self) -> None:
        """Refuse trials whose times go on from trial to trial, of which each needs its begin."""
        trials = [np.concatenate([np.zeros(0), *units]) for units in self.trials]
        trials = [times for times in trials if times.size]
        if len(trials) < 3:
            return
        begins = np.array([times.min() for times in trials])
        ends = np.array([times.max() for times in trials])
        if (begins[1:] > ends[:-1]).all():
            raise InputError(
                "intervals: the times go on from trial to trial, so each trial needs begin and end "
                "on that clock; give intervals"
            )


def holds_spikes(thing: Any) -> bool:
    """Whether something is times of spikes: by neuron, in columns, or as pynapple and Neo do."""
    if hasattr(thing, "segments") or hasattr(thing, "spiketrains"):
        return True
    if hasattr(thing, "keys") and hasattr(thing, "__getitem__") and not hasattr(thing, "dtypes"):
        if "spike_times" in thing and "neuron_ids" in thing:
            return True
        values = [thing[name] for name in list(thing.keys())]
    else:
        values = list(thing) if isinstance(thing, list | tuple) else []
    if values and all(map(_is_nest, values)):
        values = [one for trial in values for one in trial]
    return len(values) > 0 and all(
        hasattr(one, "spiketrains") or hasattr(one, "t_start") or _is_row_of_times(one)
        for one in values
    )


def _is_row_of_times(value: Any) -> bool:
    if hasattr(value, "time_support") and hasattr(value, "index"):
        return getattr(value, "ndim", 1) == 1 and not hasattr(value, "columns")
    return isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iuf"


def _is_nest(value: Any) -> bool:
    """Whether it lists units, not times."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return False
    if not isinstance(value, list | tuple | np.ndarray) or len(value) == 0:
        return False
    return all(isinstance(one, list | tuple) or getattr(one, "ndim", 0) == 1 for one in value)


def _check_equal(trials: Sequence[Sequence[np.ndarray]]) -> None:
    for index, units in enumerate(trials):
        if len(units) != len(trials[0]):
            raise InputError(
                f"trial {index} has {len(units)} neurons, but trial 0 has {len(trials[0])}; give "
                "the same neurons in every trial, an empty list where one has no spike"
            )


def _names(unit_ids: Any, count: int) -> np.ndarray | None:
    return None if unit_ids is None else as_neuron_ids(unit_ids, count)


def _of_mapping(times: Any, unit_ids: Any) -> Spikes:
    names = list(times.keys()) if unit_ids is None else plain_labels("unit_ids", unit_ids).tolist()
    there = set(times.keys())
    for name in names:
        if name not in there:
            raise InputError(
                f"unit_ids names {name!r}, which is none of the {len(there)} units in times"
            )
    if not names:
        raise InputError("times holds no units; give at least one")
    units = [as_seconds(f"times[{name!r}]", times[name]) for name in names]
    support = getattr(times, "time_support", None)
    spans = as_intervals(support) if support is not None else _support([times[n] for n in names])
    return Spikes([units], ids=as_neuron_ids(names, len(names)), support=spans)


def _support(units: Sequence[Any]) -> np.ndarray | None:
    """Return the begin and end that Neo's spike trains tell, all together."""
    if not all(hasattr(unit, "t_start") and hasattr(unit, "t_stop") for unit in units):
        return None
    begins = [float(unit.t_start.rescale("s").magnitude) for unit in units]
    ends = [float(unit.t_stop.rescale("s").magnitude) for unit in units]
    return np.array([[min(begins), max(ends)]])


def _of_segments(segments: Sequence[Any], unit_ids: Any) -> Spikes:
    trains = [list(segment.spiketrains) for segment in segments]
    if not trains[0]:
        raise InputError("times holds a segment without spike trains; give segments that have some")
    _check_equal(trains)
    spans = [_support(units) for units in trains]
    trials = [[as_seconds(f"segment {k}, train {n}", one) for n, one in enumerate(units)]
              for k, units in enumerate(trains)]  # fmt: skip
    told = [span for span in spans if span is not None]
    support = np.concatenate(told) if len(told) == len(trains) else None
    ids = _names(unit_ids, len(trials[0]))
    return Spikes(trials, are_trials=True, ids=ids, support=support)


def _of_columns(columns: Mapping[str, Any], unit_ids: Any) -> Spikes:
    """Read flat columns: the time, the unit and perhaps the trial of each spike."""
    times = plain_numbers("spike_times", columns["spike_times"]).astype(np.float64).reshape(-1)
    labels = {name: plain_labels(name, columns[name]).reshape(-1) for name in _COLUMNS[1:]
              if name in columns}  # fmt: skip
    for name, values in labels.items():
        if len(values) != len(times):
            raise InputError(
                f"{name} has {len(values)} entries, but spike_times has {len(times)}; give one for "
                "each spike"
            )
    wanted = np.unique(labels["neuron_ids"]) if unit_ids is None else plain_labels(
        "unit_ids", unit_ids)  # fmt: skip
    ids = as_neuron_ids(wanted, len(wanted))
    if len(ids) == 0:
        raise InputError("spike_times holds no spikes at all; check which entry is read")
    trial_ids = np.unique(labels["trial_ids"]) if "trial_ids" in labels else None
    spiked = ~np.isnan(times)
    rows = times[spiked], labels["neuron_ids"][spiked]
    if trial_ids is None:
        return Spikes([_by_label(*rows, ids)], ids=ids)
    trials = _by_label(np.arange(len(times))[spiked], labels["trial_ids"][spiked], trial_ids)
    return Spikes(
        [_by_label(times[index], labels["neuron_ids"][index], ids) for index in trials],
        are_trials=True,
        ids=ids,
        trial_ids=trial_ids,
    )


def _by_label(values: np.ndarray, labels: np.ndarray, wanted: np.ndarray) -> list[np.ndarray]:
    """Return the values under each label."""
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    first, beyond = (np.searchsorted(ordered, wanted, side=side) for side in ("left", "right"))
    return [values[order[a:b]] for a, b in zip(first, beyond, strict=True)]
