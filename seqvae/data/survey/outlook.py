"""What a file looks like, and a source that reads it so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.dims import described
from seqvae.data.sources.hdf5 import HDF5
from seqvae.data.sources.holdings import Holdings, opened
from seqvae.data.sources.mat import MAT
from seqvae.data.sources.npy import Npy
from seqvae.data.sources.npz import Npz
from seqvae.data.survey.candidates import Candidate, candidates
from seqvae.data.survey.facts import Facts, facts_of
from seqvae.data.survey.guess import Plan, guess

_USUAL = ("trial", "time", "neuron")


@dataclass(frozen=True, eq=False)
class Outlook:
    """What a file looks like.

    Attributes:
        tree: each entry with its shape and type, a line each.
        plan: what is taken for what, and why.
        source: reads the file so; None as long as there is a question.
        facts: what the values of the activity are like, where it is an array or cells of arrays.
        num_numbers: of the activity.
    """

    tree: list[str]
    plan: Plan
    source: RecordingSource | None
    facts: Facts | None
    num_numbers: int


def outlook(source: RecordingSource) -> Outlook | None:
    """Look at the file of a source, piece by piece; None for a source without one that is known.

    What the source says of the file (keys, dims, bin_width) is taken as it is.
    """
    if not isinstance(source, HDF5 | Npz | Npy | MAT):
        return None
    with opened(source.path) as holdings:
        entries = candidates(holdings)
        tree = [_line(name, item) for name, item in entries.items()]
        keys = {"activity": ""} if isinstance(source, Npy) else getattr(source, "keys", None) or {}
        plan = guess(holdings, keys, source.dims, source.bin_width)
        chosen = None if plan.question else _source(source, holdings, plan)
        activity = entries.get(plan.keys.get("activity", "?"))
        facts = None if activity is None or activity.are_times else facts_of(activity.block, None)
        return Outlook(tree, plan, chosen, facts, 0 if facts is None else facts.num_entries)


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
    if isinstance(source, Npy):
        return replace(source, dims=dims, bin_width=width)
    if isinstance(source, MAT):
        return replace(source, keys=plan.keys, dims=dims, bin_width=width)
    is_usual = plan.dims in (None, _USUAL)
    keys = {part: name for part, name in plan.keys.items() if name}
    return replace(source, keys=keys or None, dims=None if is_usual else dims, bin_width=width)
