"""Recordings that are already in memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from seqvae.data.containers import ArrayLike, article, is_list, plain_numbers
from seqvae.data.padding import without_padding
from seqvae.data.recording import Recording
from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.dims import Block, check_dims, laid
from seqvae.data.sources.holdings import opened
from seqvae.data.sources.leaves import Leaf
from seqvae.errors import InputError


@dataclass(frozen=True, eq=False)
class Arrays(RecordingSource):
    """A recording or its arrays; the fields are those of ``Recording``.

    ``activity`` is a ``Recording``; one array (trial, time, neuron); one (time, neuron) of a long
    recording (a table, a sparse matrix, a memory map, too); the path of an ``.npy`` file of such an
    array; or a list with one (time, neuron) array per trial. In a list the trials may differ in
    length, and ``inputs``, ``behavior`` and ``rates`` are lists likewise. Fields given beside a
    ``Recording`` replace its own. ``lengths`` are the bins of each trial, where an array is padded:
    whatever stands in later bins is padding. ``dims`` are the axes of an array of another order,
    such as ``("neuron", "time")``; what is not named has one entry.
    """

    activity: ArrayLike
    bin_width: float | None = None
    inputs: ArrayLike = None
    behavior: ArrayLike = None
    condition: ArrayLike = None
    rates: ArrayLike = None
    neuron_ids: ArrayLike = None
    trial_ids: ArrayLike = None
    split: ArrayLike = None
    heldin: ArrayLike = None
    num_encoded_bins: int | None = None
    image_shape: tuple[int, int] | None = None
    lengths: ArrayLike = None
    dims: Sequence[str] | None = None
    start_times: ArrayLike = None
    event_times: ArrayLike = None
    event_name: str | None = None
    segment_ids: ArrayLike = None
    session_id: str | None = None
    trial_sessions: ArrayLike = None
    neuron_sessions: ArrayLike = None

    @property
    def in_memory(self) -> bool:
        """True: a config cannot tell of arrays."""
        return True

    def load(self) -> Recording:
        """Validate the arrays."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        lengths, dims = given.pop("lengths"), given.pop("dims")
        given = {name: value for name, value in given.items() if value is not None}
        if isinstance(self.activity, Recording):
            del given["activity"]
            if lengths is not None or dims is not None:
                word = "dims" if lengths is None else "lengths"
                raise InputError(f"{word} stand beside an array; a Recording has its own")
            return replace(self.activity, **given) if given else self.activity
        given["activity"] = _laid(given["activity"], dims, self.bin_width)
        return Recording(**(given if lengths is None else without_padding(given, lengths)))


def _laid(activity: Any, dims: Sequence[str] | None, bin_width: float | None) -> Any:
    """Return the activity as (trial, time, neuron), or as a list of trials."""
    if isinstance(activity, str | os.PathLike):
        path = os.fspath(activity)
        with opened(path) as holdings:
            if "" not in holdings.entries:
                raise InputError(f"activity: {path!r} holds several arrays; give from_path(path)")
            leaf = holdings.find("")
            assert isinstance(leaf, Leaf)
            activity = leaf.read()
    if dims is not None:
        block = Block.of(Leaf.of(plain_numbers("activity", activity)), drops_ones=False)
        return laid(block, check_dims(dims, block, "activity"), "activity")
    if is_list(activity) or hasattr(activity, "dims") or getattr(activity, "ndim", 0) != 2:
        return activity
    return [over_time(activity, bin_width)]


def over_time(thing: Any, bin_width: float | None) -> Any:
    """Return an array of two axes that are time and neuron, or refuse it.

    The columns of a table whose index is times are neurons. Of anything else the first axis is
    time if it is more than twice as long as the second and ``bin_width`` says that there is time; a
    warning tells so.

    Raises:
        InputError: with the cure, where nothing tells the axes.
    """
    rows, columns = (int(size) for size in thing.shape)
    if hasattr(thing, "columns"):
        times = np.asarray(thing.index)
        if bin_width is not None or times.dtype.kind in "fmM":
            return thing
    elif bin_width is not None and rows > 2 * columns:
        warnings.warn(
            f"{article(thing)} of shape {(rows, columns)} is taken for (time, neuron), as its "
            "first axis is the longer one; give dims in Arrays if it is another",
            stacklevel=4,
        )
        return thing
    raise InputError(
        f"{article(thing)} of shape {(rows, columns)} may be (time, neuron) or (trial, "
        "neuron); give [counts] for one recording over time, counts[:, None] as an array "
        "for trials of one bin, or Arrays(counts, bin_width, dims=('neuron', 'time'))"
    )
