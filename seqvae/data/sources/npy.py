"""One array in NumPy's own format, mapped into memory."""

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
class Npy(RecordingSource):
    """The activity alone, in an ``.npy`` file (read without pickle).

    Attributes:
        path: the file.
        bin_width: seconds per bin.
        dims: the axes of the array in their order, of trial, time and neuron; None: those that
            ``seqvae.data.survey`` guesses, which a warning tells.
        trial_bins: bins of a trial, where trials of one length stand one after another in an array
            (time, neuron).
    """

    path: str | Path
    bin_width: float | None = None
    dims: list[str] | None = None
    trial_bins: Annotated[int | None, InConfig(tells_default=False)] = None

    def load(self) -> Recording:
        """Read the file."""
        from seqvae.data.survey import guessed_plan

        if Path(self.path).suffix.lower() != ".npy":
            raise InputError(f"source.path: {str(self.path)!r} is no .npy file; check the path")
        with opened(self.path) as holdings:
            known = {"activity": ""}
            plan = guessed_plan(holdings, known, self.dims, self.bin_width, self.trial_bins)
            return read_planned(
                holdings,
                plan.keys,
                dims=plan.dims,
                bin_width=self.bin_width,
                trial_bins=plan.trial_bins,
            )
