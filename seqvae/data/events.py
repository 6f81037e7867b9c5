"""Counts of spikes that are kept as their times, and counted in the bins that are asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from seqvae.data import sizes
from seqvae.data.binning import HAIR, observed_bins
from seqvae.data.lazy import LazyActivity
from seqvae.errors import InputError

_AT_ONCE = 4_000_000  # numbers
_MOST = 2e10  # numbers that are gone through once
_EXACT = 2**24  # counts up to here are whole in single precision


class Events(NamedTuple):
    """The spikes of all units in the order of time.

    Attributes:
        times: of the spikes, in seconds.
        units: the unit of each.
    """

    times: Float[np.ndarray, " event"]
    units: Int[np.ndarray, " event"]

    @classmethod
    def of(cls, spike_times: Sequence[Float[np.ndarray, " _"]]) -> Events:
        """Merge the times of each unit, in any order; NaN and infinite ones are no spikes."""
        times = np.concatenate([np.asarray(one, dtype=np.float64) for one in spike_times])
        kind = np.int16 if len(spike_times) < 2**15 else np.int32
        units = np.repeat(
            np.arange(len(spike_times), dtype=kind), [len(one) for one in spike_times]
        )
        if not np.isfinite(times).all():
            there = np.isfinite(times)
            times, units = times[there], units[there]
        order = np.argsort(times)
        return cls(times[order], units[order])


class Unseen(NamedTuple):
    """Units that were observed at some times only.

    Attributes:
        units: indices.
        intervals: first and last time of each stretch in which they were, in seconds.
    """

    units: Int[np.ndarray, " unit"]
    intervals: Float[np.ndarray, "interval 2"]


class SpikeRows:
    """Counts (trial, time, neuron) of spikes in bins that are closed on their left.

    x_ktn = #{spikes of n in [start_k + t * bin_width, start_k + (t + 1) * bin_width)}

    Trials may overlap, and spikes need no order. A spike counts as often as it stands there; NaN
    and infinite times, with which ragged lists are padded, are no spikes. What was not observed
    throughout a bin is NaN there.

    Args:
        spike_times: of each unit, in seconds: of one recording, or of each trial.
        starts: of the first bin of each trial, in seconds.
        bin_width: seconds.
        num_bins: of each trial.
        unseen: units that were not observed throughout.

    Raises:
        InputError: for more bins than anybody goes through.
    """

    def __init__(
        self,
        spike_times: Sequence[Sequence[Float[np.ndarray, " _"]]],
        starts: Float[np.ndarray, " trial"],
        *,
        bin_width: float,
        num_bins: int,
        unseen: Sequence[Unseen] = (),
    ) -> None:
        self.shape = (len(starts), num_bins, len(spike_times[0]))
        self.dtype = np.dtype(np.float32 if unseen else np.uint32)
        sizes.check_extent(f"binning {len(starts)} trials of {num_bins} bins", *self.shape,
                           most=_MOST)  # fmt: skip
        self._events = [Events.of(units) for units in spike_times]
        self._starts, self._width, self._unseen = starts, bin_width, unseen
        begins = starts - HAIR * bin_width
        edges = np.stack([begins, begins + num_bins * bin_width], axis=1)
        if len(self._events) == 1:
            self._inside = np.searchsorted(self._events[0].times, edges)
        else:
            self._inside = np.stack([
                np.searchsorted(events.times, row)
                for events, row in zip(self._events, edges, strict=True)
            ])  # fmt: skip

    @property
    def num_spikes(self) -> int:
        """Spikes that lie in some trial; those in two count twice."""
        return int((self._inside[:, 1] - self._inside[:, 0]).sum())

    def __getitem__(self, index: tuple[int, slice]) -> Shaped[np.ndarray, "some_time neuron"]:
        """Count the spikes in some bins of a trial."""
        trial, place = index
        first, last, _ = place.indices(self.shape[1])
        size, num_units = max(0, last - first), self.shape[2]
        events = self._events[trial if len(self._events) > 1 else 0]
        start, width = float(self._starts[trial]), self._width
        edges = start + np.array([first, last]) * width
        slack = width + 4 * np.spacing(np.abs(edges))  # rounding moves no spike further
        around = np.searchsorted(events.times, edges + slack * [-1.0, 1.0])
        low, high = np.clip(around, *self._inside[trial])
        bins = np.floor((events.times[low:high] - start) / width + HAIR).astype(np.int64)
        bins = np.clip(bins, 0, self.shape[1] - 1) - first  # rounding at either end
        here = (bins >= 0) & (bins < size)
        cells = bins[here] * num_units + events.units[low:high][here]
        counts = np.bincount(cells, minlength=size * num_units).reshape(size, num_units)
        if counts.max(initial=0) > _EXACT:
            raise InputError(
                f"a bin holds {counts.max()} spikes, more than {_EXACT}; bin_width and the times "
                "must be in seconds"
            )
        if not self._unseen:
            return counts.astype(np.uint32)
        values = counts.astype(np.float32)
        for units, intervals in self._unseen:
            seen = observed_bins(
                intervals,
                self._starts[trial : trial + 1],
                bin_width=width,
                num_bins=size,
                first=first,
            )
            values[np.ix_(~seen[0], units)] = np.nan
        return values

    def whole(self) -> Shaped[np.ndarray, "trial time neuron"]:
        """Count all; the counts are of the smallest unsigned type, with NaN in single precision.

        Raises:
            InputError: if they do not fit into the memory of this machine.
        """
        num_trials, num_bins, num_units = self.shape
        what = f"{num_trials} trials of {num_bins} bins"
        sizes.check_memory(what, float(math.prod(self.shape)) * (4 if self._unseen else 1))
        whole = np.zeros(self.shape, dtype=np.float32 if self._unseen else np.uint8)
        step = max(1, _AT_ONCE // num_units)
        for trial in range(num_trials):
            for start in range(0, num_bins, step):
                values = self[trial, slice(start, start + step)]
                if not self._unseen:
                    needed = np.min_scalar_type(values.max(initial=0))
                    whole = whole.astype(np.promote_types(whole.dtype, needed), copy=False)
                whole[trial, start : start + step] = values
        return whole


def counted(rows: SpikeRows, lengths: Int[np.ndarray, " trial"]) -> Any:
    """Return the counts; of many, they are counted when they are asked for.

    Args:
        rows: the spikes.
        lengths: bins of each trial, past which all is NaN.
    """
    if math.prod(rows.shape) > sizes.LARGE:
        stretches = [(0, length) for length in lengths.tolist()]
        return LazyActivity(rows).cut(np.arange(len(lengths)), stretches)
    counts = rows.whole()
    padding = np.arange(rows.shape[1]) >= lengths[:, None]
    if padding.any():
        counts = counts.astype(np.float32, copy=False)
        counts[padding] = np.nan
    return counts
