"""Times and intervals in seconds, from whatever holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from seqvae.data.containers import plain_numbers
from seqvae.errors import InputError

_PAIRS = (("start", "end"), ("start_time", "stop_time"), ("start", "stop"))


def as_seconds(name: str, value: Any) -> Float[np.ndarray, " spike"]:
    """Return times as they are, or in seconds where they have units; NaN is no spike."""
    if hasattr(value, "rescale") and hasattr(value, "units"):
        value = np.asarray(value.rescale("s").magnitude)
    elif hasattr(value, "time_support") and hasattr(value, "index"):  # pynapple, in seconds
        value = np.asarray(value.index)
    times = plain_numbers(name, value).astype(np.float64)
    if times.ndim > 1 and max(times.shape) != times.size:
        raise InputError(
            f"{name} has shape {times.shape}; give the times of a unit's spikes as one row"
        )
    times = times.reshape(-1)
    if np.isinf(times).any():
        raise InputError(f"{name} is infinite at {int(np.argmax(np.isinf(times)))}; leave it out")
    return times[~np.isnan(times)]


def as_intervals(value: Any) -> Float[np.ndarray, "interval 2"]:
    """Return begin and end of intervals, in seconds.

    Args:
        value: a pair, a list of pairs, a table with columns start and end (or start_time and
            stop_time), a pynapple ``IntervalSet`` or a Neo ``Epoch``.

    Raises:
        InputError: for what is no such thing, or an end that is not after its begin.
    """
    if hasattr(value, "durations") and hasattr(value, "times"):
        begins = as_seconds("intervals", value.times)
        spans = np.stack([begins, begins + as_seconds("intervals", value.durations)], axis=1)
    else:
        spans = np.zeros((0, 2))
        for pair in _PAIRS:
            if all(_has(value, name) for name in pair):
                columns = [plain_numbers("intervals", np.asarray(_get(value, n))) for n in pair]
                spans = np.stack(columns, axis=1).astype(np.float64)
                break
        else:
            spans = np.atleast_2d(plain_numbers("intervals", value)).astype(np.float64)
    if spans.ndim != 2 or spans.shape[1] != 2 or len(spans) == 0:
        raise InputError(
            f"intervals has shape {spans.shape}; give begin and end, in seconds, of each trial"
        )
    wrong = ~(np.isfinite(spans).all(axis=1) & (spans[:, 1] > spans[:, 0]))
    if wrong.any():
        index = int(np.argmax(wrong))
        raise InputError(
            f"intervals[{index}] is from {spans[index, 0]:g} to {spans[index, 1]:g} s; its end "
            "must come after its begin"
        )
    return spans


def _has(value: Any, name: str) -> bool:
    if hasattr(value, "columns"):
        return name in value.columns
    return name in value if isinstance(value, Mapping) else _is_array(getattr(value, name, None))


def _is_array(value: Any) -> bool:
    return getattr(value, "ndim", None) == 1


def _get(value: Any, name: str) -> Any:
    if hasattr(value, "columns") or isinstance(value, Mapping):
        return value[name]
    return getattr(value, name)
