"""Recordings of several sessions as one, in which each trial lacks the others' neurons."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

from seqvae.data import sizes
from seqvae.data.recording import Recording
from seqvae.data.session_rows import StitchedActivity, packed
from seqvae.errors import InputError

MOST_WHOLE = 2_000_000
"""Numbers of activity up to which several sessions are one array, most of it missing."""
_BESIDE = ("start_times", "event_times")


def stitched(sessions: Mapping[str, Recording]) -> Recording:
    """Return several sessions as one recording, which all that knows of missing data can read.

    Its trials are those of all sessions, one session after the other; its neurons likewise, those
    of other sessions missing (NaN) in every trial. So a model has parameters of its own for the
    neurons of each session, and shares all others. Neurons and trials are named
    ``session/name``, and ``trial_sessions`` and ``neuron_sessions`` tell whose they are. A session
    alone is returned as it is.

    Conditions and true rates are kept if all sessions have them. Behaviour that a session lacks is
    missing there. Trials of unequal length are padded.

    A recording of more than ``MOST_WHOLE`` numbers is kept session by session, its counts in the
    smallest type (``seqvae.data.session_rows``). True rates are left out of one of more than
    ``sizes.LARGE``, with a warning.

    Args:
        sessions: the recording of each session by its name, two or more.

    Raises:
        InputError: naming the session that does not go with the first.
    """
    if len(sessions) == 1:
        return next(iter(sessions.values()))
    _check(sessions)
    recordings = list(sessions.values())
    num_trials, num_bins = sum(one.num_trials for one in recordings), _longest(recordings)
    numbers = num_trials * num_bins * sum(one.num_neurons for one in recordings)
    fields: dict[str, Any] = {
        "activity": (
            StitchedActivity([packed(one.activity) for one in recordings])
            if numbers > MOST_WHOLE
            else _blocks([one.read() for one in recordings], num_bins)
        ),
        "inputs": _stacked([one.inputs for one in recordings], num_bins),
        "behavior": _behavior(sessions, num_bins),
        "heldin": _heldin(recordings),
        "neuron_ids": _named(sessions, "neuron_ids"),
        "trial_ids": _named(sessions, "trial_ids"),
        "trial_sessions": np.repeat(list(sessions), [one.num_trials for one in recordings]),
        "neuron_sessions": np.repeat(list(sessions), [one.num_neurons for one in recordings]),
    }
    rates = _of_all(sessions, "rates")
    if rates is not None and numbers > sizes.LARGE:
        warnings.warn(
            f"rates: those of {len(sessions)} sessions would be {numbers:.3g} numbers, so that "
            "they are left out",
            stacklevel=4,
        )
    elif rates is not None:
        fields["rates"] = _blocks(rates, num_bins)
    if (conditions := _of_all(sessions, "condition")) is not None:
        fields["condition"] = _labels(conditions)
    for name in _BESIDE:
        values = [getattr(one, name) for one in recordings]
        if all(value is not None for value in values):
            fields[name] = np.concatenate(values)
    if all(one.segment_ids is not None for one in recordings):
        fields["segment_ids"] = _named(sessions, "segment_ids")
    if recordings[0].split is not None:
        fields["split"] = np.concatenate([np.asarray(one.split) for one in recordings])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # each session has told them
        return Recording(
            bin_width=recordings[0].bin_width,
            num_encoded_bins=recordings[0].num_encoded_bins,
            event_name=recordings[0].event_name if "event_times" in fields else None,
            **fields,
        )


def _check(sessions: Mapping[str, Recording]) -> None:
    """Refuse sessions that do not go together."""
    for name, one in sessions.items():
        if one.trial_sessions is not None:
            within = ", ".join(map(repr, dict.fromkeys(one.trial_sessions.tolist())))
            raise InputError(f"session {name!r} is several ({within}); give each of them by itself")
    (first_name, first), *others = sessions.items()
    for name, one in others:
        widths = first.bin_width, one.bin_width
        same = widths[0] == widths[1] or (
            None not in widths and math.isclose(*widths, rel_tol=1e-6)  # type: ignore[arg-type]
        )
        if not same:
            then, now = ("no time" if width is None else f"{width:g} s" for width in widths)
            raise InputError(
                f"session {name!r} has bins of {now}, and session {first_name!r} of {then}; bin "
                "all sessions alike"
            )
        if one.num_inputs != first.num_inputs:
            raise InputError(
                f"inputs: session {name!r} has {one.num_inputs}, and session {first_name!r} "
                f"{first.num_inputs}; give all sessions the same external inputs"
            )
        if (one.split is None) != (first.split is None):
            lacks = name if one.split is None else first_name
            raise InputError(
                f"split: session {lacks!r} does not say which trials validate, and another does; "
                "give the split of every session or of none"
            )
        encoded = [
            (each.num_encoded_bins, each.num_encoded_bins and each.num_time_bins)
            for each in (first, one)
        ]
        if encoded[0] != encoded[1]:
            raise InputError(
                f"forecast bins: session {name!r} has others than session {first_name!r}; give "
                "all sessions the same bins to encode and to forecast"
            )
    prints: dict[bytes, str] = {}
    for name, one in sessions.items():
        digest = hashlib.sha256(repr(one.shape).encode())
        for trial in range(one.num_trials):
            digest.update(one.read([trial]).tobytes())
        twin = prints.setdefault(digest.digest(), name)
        if twin != name:
            raise InputError(
                f"sessions {twin!r} and {name!r} hold the same activity; give each session once"
            )


def _longest(recordings: list[Recording]) -> int:
    return max(one.num_time_bins for one in recordings)


def _of_all(sessions: Mapping[str, Recording], name: str) -> list[Any] | None:
    """Return a field of every session; None, and a warning, if some lack it."""
    values = {session: getattr(one, name) for session, one in sessions.items()}
    lacking = [session for session, value in values.items() if value is None]
    if 0 < len(lacking) < len(values):
        warnings.warn(
            f"{name}: session {lacking[0]!r} has none, so that it is left out of all sessions",
            stacklevel=5,
        )
    return None if lacking else list(values.values())


def _blocks(
    values: list[Float32[np.ndarray, "_trial _time _neuron"]], num_bins: int
) -> Float32[np.ndarray, "trial time neuron"]:
    """Put activities, or rates, along the diagonal of trials and neurons."""
    shape = sum(len(one) for one in values), num_bins, sum(one.shape[2] for one in values)
    whole = np.full(shape, np.nan, dtype=np.float32)
    trial = neuron = 0
    for one in values:
        trials, bins, neurons = one.shape
        whole[trial : trial + trials, :bins, neuron : neuron + neurons] = one
        trial, neuron = trial + trials, neuron + neurons
    return whole


def _stacked(
    values: list[Float32[np.ndarray, "_trial _time channel"] | None], num_bins: int
) -> Float32[np.ndarray, "trial time channel"] | None:
    """Pad series to one length and put them one below the other; None where there are none."""
    there = [one for one in values if one is not None]
    if not there:
        return None
    return np.concatenate(
        [
            np.pad(one, ((0, 0), (0, num_bins - one.shape[1]), (0, 0)), constant_values=np.nan)
            for one in there
        ]
    )


def _behavior(
    sessions: Mapping[str, Recording], num_bins: int
) -> Float32[np.ndarray, "trial time dimension"] | None:
    """Return the behaviour of all trials, missing where a session has none."""
    there = {name: one.behavior for name, one in sessions.items() if one.behavior is not None}
    if not there:
        return None
    (first_name, first), *others = there.items()
    for name, one in others:
        if one.shape[2] != first.shape[2]:
            raise InputError(
                f"behavior: session {name!r} has {one.shape[2]} dimensions, and session "
                f"{first_name!r} {first.shape[2]}; give all sessions the same"
            )
    lacking = [name for name in sessions if name not in there]
    if lacking:
        warnings.warn(
            f"behavior: session {lacking[0]!r} has none, so that it is missing there", stacklevel=5
        )
    missing = np.float32(np.nan)
    return _stacked(
        [
            there.get(name, np.full((*one.shape[:2], first.shape[2]), missing))
            for name, one in sessions.items()
        ],
        num_bins,
    )


def _heldin(recordings: list[Recording]) -> np.ndarray | None:
    """Return which neurons are held in: of a session that does not say it all."""
    if all(one.heldin is None for one in recordings):
        return None
    starts = np.cumsum([0, *(one.num_neurons for one in recordings)])
    return np.concatenate(
        [
            start + (np.arange(one.num_neurons) if one.heldin is None else np.asarray(one.heldin))
            for start, one in zip(starts, recordings, strict=False)
        ]
    )


def _labels(values: list[np.ndarray]) -> Shaped[np.ndarray, " trial"]:
    """Join labels; as texts where they are not all numbers or all texts."""
    is_text = {value.dtype.kind == "U" for value in values}
    return np.concatenate([value.astype(str) for value in values] if len(is_text) > 1 else values)


def _named(sessions: Mapping[str, Recording], field: str) -> Shaped[np.ndarray, " label"]:
    """Return names along an axis, each after that of its session."""
    return np.array(
        [
            f"{session}/{name}"
            for session, one in sessions.items()
            for name in getattr(one, field).tolist()
        ]
    )
