"""Recordings that are already in memory."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from seqvae.data.containers import ArrayLike
from seqvae.data.padding import without_padding
from seqvae.data.recording import Recording
from seqvae.data.sources.base import RecordingSource
from seqvae.errors import InputError


@dataclass(frozen=True, eq=False)
class Arrays(RecordingSource):
    """A recording or its arrays; the fields are those of ``Recording``.

    ``activity`` is a ``Recording``, one array (trial, time, neuron), or a list with one
    (time, neuron) array per trial; in a list the trials may differ in length, and ``inputs``,
    ``behavior`` and ``rates`` are lists likewise. Fields given beside a ``Recording`` replace its
    own. ``lengths`` are the bins of each trial, where an array is padded: whatever stands in later
    bins is padding.
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
    start_times: ArrayLike = None
    event_times: ArrayLike = None
    event_name: str | None = None
    segment_ids: ArrayLike = None
    session_id: str | None = None

    def load(self) -> Recording:
        """Validate the arrays."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        lengths = given.pop("lengths")
        given = {name: value for name, value in given.items() if value is not None}
        if isinstance(self.activity, Recording):
            del given["activity"]
            if lengths is not None:
                raise InputError("lengths stand beside an array; a Recording has its own")
            return replace(self.activity, **given) if given else self.activity
        return Recording(**(given if lengths is None else without_padding(given, lengths)))
