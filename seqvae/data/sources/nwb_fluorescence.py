"""Fluorescence in an NWB file: a series of regions of interest in place of units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Shaped

from seqvae.data.sampling import sampled
from seqvae.data.sizes import check_memory
from seqvae.data.sources.nwb_file import Series
from seqvae.data.sources.nwb_trials import Trials
from seqvae.errors import InputError

_BYTES = 9  # of an entry, as it is read and held
_LONGEST = 1e8  # bins of one long trial


@dataclass(frozen=True, eq=False)
class Fluorescence:
    """A series whose channels are the neurons.

    Attributes:
        series: the samples.
        ids: names of the neurons.
        default_width: seconds from sample to sample.
    """

    series: Series
    ids: Shaped[np.ndarray, " neuron"] | None
    default_width: float

    heldin: ClassVar[None] = None

    @classmethod
    def of(cls, series: Series) -> Fluorescence:
        """Take a series for activity.

        Raises:
            InputError: for fewer than two samples in time.
        """
        steps = np.diff(series.times)
        usual = float(np.median(steps)) if len(steps) else 0.0
        if not usual > 0:
            raise InputError(f"series: {series.place!r} has no samples that follow in time")
        num_channels = series.values.shape[1]
        ids = None if series.ids is None or len(series.ids) != num_channels else series.ids
        return cls(series, ids, float(f"{usual:.9g}"))

    @property
    def num_channels(self) -> int:
        """How many neurons there are."""
        return self.series.values.shape[1]

    def recorded(self, spans: Sequence[tuple[float, float]]) -> tuple[float, float]:
        """Return the times of the first and the last sample."""
        return float(self.series.times[0]), float(self.series.times[-1])

    def long_trial(self, epochs: tuple[float, float] | None, bin_width: float) -> Trials:
        """Return one trial, which begins half a step before the first sample."""
        first, last = self.recorded([])
        step = self.default_width
        number = np.floor((last - first + step) / bin_width + 1e-6)
        if number < 1 or number > min(_LONGEST, 1000.0 * len(self.series.times)):
            raise InputError(
                f"series: {self.series.place!r} lasts {last - first:.3g} s, but has only "
                f"{len(self.series.times)} samples; check its timestamps and bin_width"
            )
        return Trials(np.array([first - step / 2]), np.array([int(number)]))

    def binned(
        self, trials: Trials, bin_width: float, recorded: tuple[float, float]
    ) -> Float32[np.ndarray, "trial time neuron"]:
        """Return the mean of the samples in each bin."""
        series, num_trials, num_bins = self.series, len(trials.starts), trials.num_bins
        check_memory(
            f"activity of {num_trials} trials of {num_bins} bins",
            float(num_trials) * num_bins * self.num_channels * _BYTES,
        )
        return sampled(
            series.times,
            series.values,
            trials.starts,
            bin_width=bin_width,
            num_bins=num_bins,
        )
