"""MATLAB files of all versions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from seqvae.config.arguments import InConfig
from seqvae.data.recording import Recording
from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.holdings import opened
from seqvae.data.sources.planned import read_planned
from seqvae.errors import InputError


@dataclass(frozen=True)
class MAT(RecordingSource):
    """A ``.mat`` file: structs, struct arrays and cells, of the versions 4 to 7 and of 7.3.

    A dotted name leads into structs, and through struct arrays and cells, whose elements are
    trials or neurons: ``D.data`` holds what ``D(1).data``, ``D(2).data``, ... hold. Axes are those
    that MATLAB shows. Axes of size one do not count.

    Attributes:
        path: the file.
        keys: names of the entries by field: activity, inputs, behavior, rates, condition,
            trial_ids, neuron_ids, split, lengths, heldin, heldout, intervals and bin_width; or
            spike_times with spike_neurons and spike_trials. None: those that
            ``seqvae.data.survey`` guesses, which a warning tells.
        dims: the axes of the activity, those of cells first, outermost first: ``[neuron, time,
            trial]`` of an array, ``[trial, neuron, time]`` of a cell of arrays for each trial,
            ``[trial, neuron]`` of cells with times of spikes, ``[trial, neuron]`` of an array with
            one count a trial. None: where sizes and names tell them, which a warning says; else it
            is asked for.
        bin_width: seconds per bin.
        sample_width: seconds of a stored sample, where several make a bin: counts are added up,
            what is beside them averaged. Of times of spikes, the seconds of their unit.
        trial_bins: stored samples of a trial, where trials of one length stand one after another in
            an array (time, neuron).
    """

    path: str | Path
    keys: dict[str, str] | None = None
    dims: list[str] | None = None
    bin_width: float | None = None
    sample_width: float | None = None
    trial_bins: Annotated[int | None, InConfig(tells_default=False)] = None

    def load(self) -> Recording:
        """Read the file."""
        from seqvae.data.survey import guessed_plan

        if Path(self.path).suffix.lower() != ".mat":
            raise InputError(f"source.path: {str(self.path)!r} is no .mat file; check the path")
        with opened(self.path) as holdings:
            plan = guessed_plan(
                holdings, self.keys or {}, self.dims, self.bin_width, self.trial_bins
            )
            return read_planned(
                holdings,
                plan.keys,
                dims=plan.dims,
                bin_width=plan.bin_width if self.bin_width is None else self.bin_width,
                sample_width=self.sample_width,
                trial_bins=plan.trial_bins,
            )
