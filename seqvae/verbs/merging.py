"""The windows of a recording whose rates are to be merged, and its axis of time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from seqvae.analysis.merging import Axis, axis_of
from seqvae.data import NeuralData
from seqvae.data.chopping import Chopped
from seqvae.data.validation import NEW
from seqvae.errors import InputError
from seqvae.verbs.opening import Opened


class Whole(NamedTuple):
    """A recording as overlapping windows.

    Attributes:
        data: the windows, as the model asks for them.
        chopped: where they lie.
        axis: the time of the whole recording.
        split: of each of its bins; "gap" where there is none.
    """

    data: NeuralData
    chopped: Chopped
    axis: Axis
    split: Shaped[np.ndarray, " bin"]


def whole_of(opened: Opened, *, split: str, overlap: float) -> Whole:
    """Chop the recording that a run is asked about into windows of the length it knows.

    Raises:
        InputError: for what cannot be merged.
    """
    run, data, model, is_new = opened
    spec = run.spec
    if split != "all":
        raise InputError(
            f"merged: all bins are inferred, and their split is told beside them; leave split "
            f"{split!r} out"
        )
    if spec.num_forecast_bins:
        raise InputError(
            f"merged: the run forecasts the last {spec.num_forecast_bins} bins of each trial; fit "
            "one without forecast_bins"
        )
    if model.keeps_trials:
        raise InputError(
            f"merged: {type(model).__name__} keeps a posterior of its own for each trial it has "
            "seen, not for windows; fit one with an encoder"
        )
    windows, chopped = data.chopped(spec.num_time_bins, overlap=overlap)
    windows = windows.adapted(spec, run.neuron_names())
    axis = axis_of(chopped.num_bins, chopped.start_times, spec.bin_width)
    words = np.full(axis.num_bins, "gap", dtype="U5")
    if is_new:
        words[:] = NEW
    else:
        lengths = data.recording.lengths
        first = axis.first if data.start is None else axis.first[0] + data.start
        for place, length, word in zip(first, lengths, data.split, strict=True):
            words[place : place + length] = word
    return Whole(windows, chopped, axis, words)
