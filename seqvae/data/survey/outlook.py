"""What a file looks like, and a source that reads it so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.dims import described
from seqvae.data.sources.hdf5 import HDF5
from seqvae.data.sources.holdings import Holdings, opened
from seqvae.data.sources.layout import is_own
from seqvae.data.sources.mat import MAT
from seqvae.data.sources.npy import Npy
from seqvae.data.sources.npz import Npz
from seqvae.data.sources.nwb import NWB
from seqvae.data.sources.nwb_file import open_nwb
from seqvae.data.survey.candidates import Candidate, candidates
from seqvae.data.survey.guess import NO_WIDTH, USUAL_WIDTH, Plan, guess
from seqvae.data.survey.nwb import nwb_plan, nwb_tree, with_plan
from seqvae.errors import InputError

_USUAL = ("trial", "time", "neuron")

_SHOWN_ENTRIES = 40


@dataclass(frozen=True, eq=False)
class Outlook:
    """What a file looks like.

    Attributes:
        tree: each entry with its shape and type, a line each.
        plan: what is taken for what, and why.
        source: reads the file so; None as long as there is a question, or nothing to read.
    """

    tree: list[str]
    plan: Plan
    source: RecordingSource | None

    @property
    def entries(self) -> list[str]:
        """The first lines of the tree, and how many more there are."""
        more = len(self.tree) - _SHOWN_ENTRIES
        return [*self.tree[:_SHOWN_ENTRIES], *([f"... and {more} more"] if more > 0 else [])]

    @property
    def guesses(self) -> list[str]:
        """What is taken for what without having been told, and why, a line each."""
        plan = self.plan
        values = {"dims": plan.dims, "bin_width": plan.bin_width, "trial_bins": plan.trial_bins}
        values |= plan.keys
        return [f"{part}: {values[part]!r}, as {why}" for part, why in self.plan.why.items()]

    def ready(self, source: RecordingSource) -> RecordingSource:
        """Return a source that needs no guess: the one that was looked at, where nothing is new.

        Raises:
            InputError: with the one question that is left, and what the file holds.
        """
        if self.plan.question:
            raise InputError(f"{self.plan.question}. The file holds {'; '.join(self.entries)}")
        return source if self.source is None or not self.plan.why else self.source


def outlook(source: RecordingSource) -> Outlook | None:
    """Look at the file of a source, piece by piece; None for a source without one that is known.

    What the source says of the file (keys, dims, bin_width) is taken as it is.
    """
    if isinstance(source, NWB):
        with open_nwb(source.path) as file:
            plan = nwb_plan(file, source)
            settled = None if plan.question else with_plan(source, plan)
            return Outlook(nwb_tree(file), plan, settled)
    if not isinstance(source, HDF5 | Npz | Npy | MAT):
        return None
    with opened(source.path) as holdings:
        entries = candidates(holdings)
        tree = [_line(name, item) for name, item in entries.items()]
        if _is_own(source, holdings):
            return Outlook(tree, Plan(), source)
        keys = {"activity": ""} if isinstance(source, Npy) else getattr(source, "keys", None) or {}
        plan = guess(holdings, keys, source.dims, source.bin_width, source.trial_bins)
        activity = entries.get(plan.keys.get("activity", "?"))
        are_times = "spike_times" in plan.keys or (activity is not None and activity.are_times)
        says_width = {source.bin_width, plan.bin_width} != {None} or "bin_width" in plan.keys
        if are_times and not says_width:
            why = {**plan.why, "bin_width": NO_WIDTH}
            plan = replace(plan, bin_width=USUAL_WIDTH, why=why)
        chosen = None if plan.question else _source(source, holdings, plan)
        return Outlook(tree, plan, chosen)


def _is_own(source: RecordingSource, holdings: Holdings) -> bool:
    """Whether nothing need be guessed, as the file is in a layout of ``HDF5`` and ``Npz``."""
    if not isinstance(source, HDF5 | Npz) or holdings.is_matlab or source.dims is not None:
        return False
    names = {*(source.keys or {}).values()}
    return any("{split}" in name for name in names) or is_own({*holdings.entries} - names)


def _line(name: str, item: Candidate) -> str:
    kind = "text" if item.is_text else str(item.block.leaves[0][1].dtype)
    cells = f", {len(item.block.leaves)} cells" if item.block.num_cell_axes else ""
    return f"{name or '(the array)'}  {described(item.sizes)}  {kind}{cells}"


def _source(source: Any, holdings: Holdings, plan: Plan) -> RecordingSource | None:
    """Return a source of the same file that needs no guess."""
    if not {"activity", "spike_times"} & set(plan.keys):
        return None
    width = source.bin_width if source.bin_width is not None else plan.bin_width
    width = None if "bin_width" in plan.keys else width
    dims = None if plan.dims is None else list(plan.dims)
    source = replace(source, trial_bins=plan.trial_bins)
    if isinstance(source, Npy):
        return replace(source, dims=dims, bin_width=width)
    if isinstance(source, MAT):
        return replace(source, keys=plan.keys, dims=dims, bin_width=width)
    is_usual = plan.dims in (None, _USUAL)
    keys = {part: name for part, name in plan.keys.items() if name}
    return replace(source, keys=keys or None, dims=None if is_usual else dims, bin_width=width)
