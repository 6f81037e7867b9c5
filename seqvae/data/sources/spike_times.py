"""Times of spikes, counted in bins."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Annotated

from seqvae.config.arguments import InConfig
from seqvae.data.containers import ArrayLike
from seqvae.data.recording import Recording
from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.holdings import opened
from seqvae.data.sources.planned import SPIKES, block_of
from seqvae.data.spikes import Spikes
from seqvae.data.validation import as_bin_width
from seqvae.errors import InputError


@dataclass(frozen=True)
class SpikeTimes(RecordingSource):
    """Times of spikes by neuron, in seconds, counted in bins that are closed on their left.

    x_ktn = #{spikes of n in [start_k + t * bin_width, start_k + (t + 1) * bin_width)}

    Spikes need no order; one that stands twice is counted twice, which a warning tells. Those
    outside all intervals are left out; so is what of an interval is no whole bin at its end.

    Attributes:
        times: a list with the times of each neuron, or with such a list for each trial, whose times
            are its own; a mapping from names to times, as is a pynapple ``TsGroup``; Neo spike
            trains, segments or a block (their units are respected, a segment is a trial); flat
            columns, one entry for each spike, in a mapping, an .npz or an HDF5 file:
            ``spike_times``, ``neuron_ids`` and, where the times are those of trials,
            ``trial_ids``.
        bin_width: seconds per bin.
        intervals: begin and end of each trial in seconds: a pair, pairs, a table with start and
            end, a pynapple ``IntervalSet`` or a Neo ``Epoch``. None: those that the container
            tells, else where the spikes lie, which a warning tells.
        unit_ids: names of the neurons of a list; of a mapping or columns those that are taken, of
            which some may have no spike.
    """

    times: Annotated[ArrayLike, InConfig(str)]
    bin_width: float
    intervals: Annotated[ArrayLike, InConfig(list[list[float]] | list[float] | None)] = None
    unit_ids: Annotated[ArrayLike, InConfig(list[int] | list[str] | None)] = None

    def load(self) -> Recording:
        """Count the spikes."""
        num_bins = 2  # so that milliseconds are refused, too
        bin_width = as_bin_width(self.bin_width, num_bins)
        if bin_width is None:
            raise InputError("bin_width is required: give the seconds per bin")
        if not isinstance(self.times, str | os.PathLike):
            return Recording(**Spikes.of(self.times, self.unit_ids).binned(
                bin_width, self.intervals))  # fmt: skip
        with opened(self.times) as holdings:
            columns = {name: block_of(holdings, name).vector() for name in SPIKES.values()
                       if name in holdings.entries or name != "trial_ids"}  # fmt: skip
        return Recording(**Spikes.of(columns, self.unit_ids).binned(bin_width, self.intervals))
