"""The checks that a recording passes at the door: each refusal is one sentence."""

from __future__ import annotations

import math
import numbers
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int, Shaped

from seqvae.data.containers import indices, plain_labels, plain_numbers
from seqvae.errors import InputError, nearest

SPLITS = ("train", "val", "test")
NEW = "new"
"""The split of trials that a model has neither learned from nor been chosen by."""
OTHER = "other"
"""The split of trials of other sessions, where one is asked for."""
_EXACT = 2**24  # whole numbers up to here are whole in float32
_TINY = float(np.finfo(np.float32).tiny)


def check_neurons(name: str, neurons: Any, num_neurons: int) -> Int[np.ndarray, " chosen"]:
    """Return sorted indices of neurons; refuse none, repeated or out-of-range ones."""
    index = np.sort(indices(name, neurons))
    outside = (index < 0) | (index >= num_neurons)
    if outside.any():
        raise InputError(
            f"{name} names neuron {index[outside][0]}, but the {num_neurons} neurons are "
            f"0 to {num_neurons - 1}"
        )
    repeated = index[1:][index[1:] == index[:-1]]
    if repeated.size:
        raise InputError(f"{name} names neuron {repeated[0]} twice; name each neuron once")
    return index


def as_heldout(value: Any) -> float | list[int] | None:
    """Return the fraction of neurons that is held out, or their indices."""
    if isinstance(value, np.ndarray | torch.Tensor) and value.ndim == 0:
        value = value.item()
    if value is None or (isinstance(value, list | tuple) and not value):
        return None if value is None else []
    if isinstance(value, bool | str) or not (np.ndim(value) or hasattr(value, "__len__")):
        check_number("heldout", value, "a fraction from 0 to below 1 or a list of indices")
        return value if isinstance(value, int) else float(value)
    return [int(neuron) for neuron in indices("heldout", value)]


def check_number(name: str, value: Any, what: str = "a number") -> None:
    """Refuse a setting that is no finite number."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    if not is_number or not math.isfinite(value):
        raise InputError(f"{name} must be {what}, got {value!r}")


def check_whole(name: str, value: Any, *, least: int | None = None) -> None:
    """Refuse a setting that is no whole number, or too small."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise InputError(f"{name} must be a whole number, got {value!r}")
    if least is not None and value < least:
        raise InputError(f"{name} must be at least {least}, got {value}")


def first_index(wrong: np.ndarray) -> list[int]:
    """Return the index of the first True."""
    return [int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape)]


def as_series(name: str, value: Any) -> Float32[np.ndarray, "trial time channel"] | None:
    """Return a copy in float32; refuse what is no finite (or NaN) three-axis array.

    Real values are rounded to float32; whole numbers are kept exactly or refused.
    """
    if value is None:
        return None
    array = plain_numbers(name, value)
    if array.ndim != 3:
        raise InputError(f"{name} must be (trial, time, channel), got shape {array.shape}")
    single = np.empty(array.shape, dtype=np.float32)
    parts = [slice(i, i + 1) for i in range(len(array))]
    with np.errstate(over="ignore"):
        for part in parts:  # trial by trial, so that memory is bounded
            single[part] = array[part]
            infinite = np.isinf(single[part])
            if infinite.any():
                raise InputError(
                    f"{name}{_index_in(part, infinite)} is infinite (or above 3e38); mark missing "
                    "data by NaN"
                )
    _check_exact(name, array, single, parts)
    return single


def _check_exact(name: str, array: np.ndarray, single: np.ndarray, parts: list[slice]) -> None:
    """Refuse whole numbers that float32 would round, and real ones so small that it has none."""
    if array.dtype.itemsize <= 2 or array.dtype == np.float32:
        return
    peaks = [float(np.nanmax(np.abs(single[p]), initial=0.0)) for p in parts]
    peak = max(peaks, default=0.0)
    if peak < _TINY and array.dtype.kind == "f" and np.nan_to_num(array).any():
        raise InputError(
            f"{name} holds nothing above {_TINY:.0e}, too small for float32; give it in other units"
        )
    if peak < _EXACT or not all(_is_whole(array[p]) for p in parts):
        return
    for part in parts:
        rounded = (single[part].astype(array.dtype) != array[part]) & ~np.isnan(single[part])
        if rounded.any():
            index = _index_in(part, rounded)
            raise InputError(
                f"{name}{index} is {array[tuple(index)]:.0f}, which float32 does not hold exactly; "
                f"whole numbers may go up to {_EXACT}"
            )


def _is_whole(part: np.ndarray) -> bool:
    return part.dtype.kind in "biu" or bool((np.isnan(part) | (part == np.floor(part))).all())


def _index_in(part: slice, wrong: np.ndarray) -> list[int]:
    first, *rest = first_index(wrong)
    return [part.start + first, *rest]


def check_activity(activity: Float32[np.ndarray, "trial time neuron"] | None) -> None:
    """Refuse no trials, trials without any observed entry, and silence throughout."""
    if activity is None or 0 in activity.shape:
        shape = "none" if activity is None else activity.shape
        raise InputError(
            f"activity (trial, time, neuron) has shape {shape}; "
            "give at least one trial, one time bin and one neuron"
        )
    empty = np.array([bool(np.isnan(trial).all()) for trial in activity])
    if empty.any():
        raise InputError(
            f"activity[{int(np.argmax(empty))}] is missing (NaN) throughout; leave that trial out"
        )
    if not any(np.nan_to_num(trial).any() for trial in activity):
        raise InputError(
            f"activity is 0 in all {len(activity)} trials, the recording is silent; "
            "check which array is read"
        )


def check_series(
    name: str,
    value: Float32[np.ndarray, "trials times channel"],
    shape: tuple[int, int, int],
    lengths: Int[np.ndarray, " trial"],
) -> None:
    """Refuse a series whose axes disagree with the activity, or with impossible values.

    Args:
        name: of the series.
        value: the series.
        shape: of the activity.
        lengths: bins of each trial.
    """
    expected = shape if name == "rates" else shape[:2]
    if value.shape[: len(expected)] != expected:
        raise InputError(
            f"{name} has shape {value.shape}, but activity has {shape}; "
            f"both must agree in {'every axis' if name == 'rates' else 'trials and time bins'}"
        )
    if name == "inputs":
        inside = np.arange(shape[1]) < lengths[:, None]
        missing = np.isnan(value) & inside[:, :, None]
        if missing.any():
            raise InputError(
                f"inputs{first_index(missing)} is NaN; external inputs must be known in every bin"
            )
    if name == "rates" and (value < 0).any():
        raise InputError(f"rates{first_index(value < 0)} is negative; rates are in Hz")


def trial_lengths(
    activity: Float32[np.ndarray, "trial time neuron"],
) -> Int[np.ndarray, " trial"]:
    """Return the bins of each trial up to the last one in which anything was observed."""
    observed = np.array([~np.isnan(trial).all(axis=1) for trial in activity])
    return activity.shape[1] - np.argmax(observed[:, ::-1], axis=1)


def as_bin_width(value: Any, num_time_bins: int) -> float | None:
    """Return seconds per bin; refuse milliseconds."""
    if value is None:
        return None
    try:
        width = float(value)
    except (TypeError, ValueError):
        raise InputError(f"bin_width must be a number of seconds, got {value!r}") from None
    if not (math.isfinite(width) and width > 0):
        raise InputError(f"bin_width must be a positive number of seconds, got {width:g}")
    if width >= 5:
        raise InputError(
            f"bin_width must be in seconds, got {width:g}; did you mean {width / 1000:g}?"
        )
    if width >= 1 and num_time_bins > 1:
        warnings.warn(
            f"bin_width is {width:g} s; if you meant {width:g} ms, write {width / 1000:g}",
            stacklevel=4,
        )
    return width


def as_labels(name: str, value: Any, count: int) -> Shaped[np.ndarray, " label"] | None:
    """Return a copy of one number or text per trial or neuron."""
    if value is None:
        return None
    array = plain_labels(name, value)
    if array.size == count and max(array.shape, default=0) == count:
        array = array.reshape(count)  # a row or a column
    if array.shape != (count,):
        axis = "neuron" if name.startswith("neuron") else "trial"
        raise InputError(
            f"{name} has shape {array.shape}; it must hold one number or text for each of the "
            f"{count} {axis}s"
        )
    return array


def as_neuron_ids(value: Any, num_neurons: int) -> Shaped[np.ndarray, " neuron"]:
    """Return the names of the neurons; refuse one that two neurons have."""
    ids = as_labels("neuron_ids", value, num_neurons)
    assert ids is not None
    _, first = np.unique(ids, return_index=True)
    if len(first) < len(ids):
        second = int(np.setdiff1d(np.arange(len(ids)), first)[0])
        raise InputError(
            f"neuron_ids[{second}] is {str(ids[second])!r}, which neuron "
            f"{int(np.argmax(ids == ids[second]))} is called, too; give each a name of its own"
        )
    return ids


def as_split(value: Any, num_trials: int) -> Shaped[np.ndarray, " trial"] | None:
    """Return the split of each trial; refuse other words than train, val and test."""
    array = as_labels("split", value, num_trials)
    if array is None:
        return None
    wrong = ~np.isin(array, SPLITS)
    if wrong.any():
        index = int(np.argmax(wrong))
        word = str(array[index])
        raise InputError(f"split[{index}] is {word!r}{nearest(word, SPLITS)}")
    return array.astype("U5")


def as_image_shape(value: Any, num_neurons: int) -> tuple[int, int] | None:
    """Return (height, width) whose product is the number of pixels."""
    if value is None:
        return None
    sides = plain_labels("image_shape", value).ravel()
    is_pair = sides.size == 2 and sides.dtype.kind in "iu"
    height, width = (int(side) for side in sides) if is_pair else (0, 0)
    if height < 1 or width < 1 or height * width != num_neurons:
        raise InputError(
            f"image_shape must be (height, width) with height x width = {num_neurons} pixels, "
            f"got {value}"
        )
    return height, width


def as_encoded_bins(value: Any, num_time_bins: int) -> int | None:
    """Return the number of bins that inference may see."""
    if value is None:
        return None
    is_number = np.ndim(value) == 0 and isinstance(value, numbers.Real | np.ndarray)
    if not is_number or not 1 <= value <= num_time_bins or value != int(value):
        raise InputError(f"num_encoded_bins must be from 1 to {num_time_bins}, got {value!r}")
    return int(value)


def constant_neurons(
    activity: Float32[np.ndarray, "trial time neuron"],
) -> Int[np.ndarray, " constant"]:
    """Return which neurons have one value throughout, in two entries or more."""
    least, largest = (pick.reduce(activity, axis=(0, 1)) for pick in (np.fmin, np.fmax))
    neurons = np.flatnonzero(least == largest)
    return neurons[np.isfinite(activity[..., neurons]).sum((0, 1)) > 1]


def are_counts(trial: Float32[np.ndarray, "time neuron"]) -> bool:
    """Whether all that is there are whole numbers from 0 on."""
    return bool((((trial >= 0) & (trial == np.floor(trial))) | np.isnan(trial)).all())


def names_of(neurons: Sequence[int] | np.ndarray, neuron_ids: np.ndarray) -> str:
    """Return the ids of some neurons in words, the first ten of them."""
    more = f" and {len(neurons) - 10} more" if len(neurons) > 10 else ""
    return ", ".join(str(neuron_ids[neuron]) for neuron in neurons[:10]) + more


def pad_trials(
    trials: Sequence[np.ndarray],
) -> Float32[np.ndarray, "trial times channel"]:
    """Stack trials, padded with NaN to the longest."""
    longest = max(map(len, trials))
    padded = np.full((len(trials), longest, trials[0].shape[1]), np.nan, dtype=np.float32)
    for row, trial in zip(padded, trials, strict=True):
        row[: len(trial)] = trial
    return padded
