"""Recordings that are already in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from seqvae.data.recording import Recording
from seqvae.data.sources.base import RecordingSource


@dataclass(frozen=True, eq=False)
class Arrays(RecordingSource):
    """A recording or its arrays; the fields are those of ``Recording``.

    ``activity`` is a ``Recording``, one array (trial, time, neuron), or a list with one
    (time, neuron) array per trial; in a list the trials may differ in length, and ``inputs``,
    ``behavior`` and ``rates`` are lists likewise. Fields given beside a ``Recording`` replace its
    own.
    """

    activity: Recording | np.ndarray | Sequence[np.ndarray]
    bin_width: float | None = None
    inputs: np.ndarray | Sequence[np.ndarray] | None = None
    behavior: np.ndarray | Sequence[np.ndarray] | None = None
    condition: np.ndarray | None = None
    rates: np.ndarray | Sequence[np.ndarray] | None = None
    neuron_ids: np.ndarray | None = None
    trial_ids: np.ndarray | None = None
    split: np.ndarray | None = None
    heldin: np.ndarray | None = None
    num_encoded_bins: int | None = None
    image_shape: tuple[int, int] | None = None

    def load(self) -> Recording:
        """Validate the arrays."""
        fields_given = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "activity"}
        fields_given = {name: value for name, value in fields_given.items() if value is not None}
        if isinstance(self.activity, Recording):
            return replace(self.activity, **fields_given) if fields_given else self.activity
        if isinstance(self.activity, np.ndarray):
            return Recording(self.activity, **fields_given)
        return Recording.from_trials(self.activity, **fields_given)
