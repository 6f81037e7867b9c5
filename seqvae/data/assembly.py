"""The arguments of a recording, in whatever containers, as arrays in one order of trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Shaped

from seqvae.data.axes import Series, along, labels_in_order, places_of, series, stand_in
from seqvae.data.lazy import as_lazy
from seqvae.data.neurons import Positions
from seqvae.data.validation import as_labels
from seqvae.errors import InputError

SERIES = ("inputs", "behavior", "rates")
_LABELS = ("condition", "split", "start_times", "event_times", "segment_ids", "trial_sessions")


def assembled(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a recording as plain arrays, those of trials in the order of activity.

    Names that the activity has along its axes become ``neuron_ids`` and ``trial_ids``, and its
    times ``bin_width``, where these are not given; ``rates`` follow the names of the neurons, and
    everything that names its trials follows those.

    Args:
        fields: of ``Recording``, by name.

    Raises:
        InputError: in one sentence, for a container that holds something else, and for names that
            contradict each other.
    """
    values = dict(fields)
    lazy = as_lazy(fields["activity"])
    activity = series("activity", fields["activity"]) if lazy is None else stand_in(lazy.shape)
    width = fields["bin_width"]
    spacing = activity.bin_width("activity", is_told=width is not None)
    values["bin_width"] = spacing if width is None else width
    columns = None if activity.is_counted else activity.channels
    num_trials, _, num_neurons = activity.values.shape
    names = {
        "trial": _names("trial_ids", fields["trial_ids"], activity.trials, num_trials),
        "neuron": _names("neuron_ids", fields["neuron_ids"], columns, num_neurons),
    }
    ids: dict[str, np.ndarray] = {}
    for axis, count in (("trial", num_trials), ("neuron", num_neurons)):
        labels = names[axis]
        ids[axis] = np.arange(count) if labels is None else labels
    values |= {
        "activity": activity.values if lazy is None else lazy,
        "trial_ids": ids["trial"],
        "neuron_ids": names["neuron"],
    }
    for name in SERIES:
        if fields[name] is not None:
            beside = series(name, fields[name], activity.lengths)
            _check_times(name, beside, activity)
            for axis, labels in (("trial", beside.trials), ("neuron", beside.channels)):
                if labels is not None and (axis == "trial" or name == "rates"):
                    order = places_of(
                        name,
                        axis,
                        labels,
                        ids[axis],
                        are_given=names[axis] is not None,
                        is_counted=axis == "neuron" and beside.is_counted,
                    )
                    if order is not None:
                        beside = replace(beside, values=beside.values[along(axis, order)])
            values[name] = beside.values
    for name in _LABELS:
        if fields[name] is not None:
            values[name] = labels_in_order(
                name, fields[name], ids["trial"], are_given=names["trial"] is not None
            )
    return values


def _names(
    name: str, labels: Any, own: np.ndarray | None, count: int
) -> Shaped[np.ndarray, " label"] | None:
    """Return the names that are given or that the activity has; refuse two that differ."""
    if labels is None or isinstance(labels, Positions):
        return own
    plain = as_labels(name, labels, count)
    assert plain is not None
    if own is not None and not np.array_equal(plain, own):
        raise InputError(
            f"{name} are others than the names that the activity has itself; give one of the two"
        )
    return plain


def _check_times(name: str, beside: Series, activity: Series) -> None:
    beside.bin_width(name, is_told=True)
    if len(beside.clocks) == len(activity.clocks):
        for own, clock in zip(beside.clocks, activity.clocks, strict=True):
            own.check_same(name, clock)
