"""The checks that a recording passes at the door: each refusal is one sentence."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Shaped

from seqvae.errors import InputError, nearest

SPLITS = ("train", "val", "test")
NEW = "new"
"""The split of trials that a model has neither learned from nor been chosen by."""


def check_neurons(name: str, neurons: Any, num_neurons: int) -> Int[np.ndarray, " chosen"]:
    """Return sorted indices of neurons; refuse none, repeated or out-of-range ones."""
    index = np.asarray(neurons)
    if index.ndim != 1 or index.size == 0 or index.dtype.kind not in "iu":
        raise InputError(f"{name} must be a list of indices of neurons, got {neurons!r}")
    index = np.sort(index.astype(np.int64))
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


def first_index(wrong: np.ndarray) -> list[int]:
    """Return the index of the first True."""
    return [int(i) for i in np.unravel_index(int(np.argmax(wrong)), wrong.shape)]


def as_series(name: str, value: Any) -> Float32[np.ndarray, "trial time channel"] | None:
    """Return a copy in float32; refuse what is no finite (or NaN) three-axis array."""
    if value is None:
        return None
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise ValueError
    except ValueError:
        raise InputError(
            f"{name} must hold real numbers in an array (trial, time, channel); "
            "for trials of unequal length use Recording.from_trials"
        ) from None
    if array.ndim != 3:
        raise InputError(f"{name} must be (trial, time, channel), got shape {array.shape}")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32, order="C")
    infinite = np.isinf(array)
    if infinite.any():
        raise InputError(
            f"{name}{first_index(infinite)} is infinite (or above 3e38); mark missing data by NaN"
        )
    return array


def check_activity(activity: Float32[np.ndarray, "trial time neuron"] | None) -> None:
    """Refuse no trials, trials without any observed entry, and silence throughout."""
    if activity is None or 0 in activity.shape:
        shape = "none" if activity is None else activity.shape
        raise InputError(
            f"activity (trial, time, neuron) has shape {shape}; "
            "give at least one trial, one time bin and one neuron"
        )
    observed = ~np.isnan(activity)
    empty = ~observed.any(axis=(1, 2))
    if empty.any():
        raise InputError(
            f"activity[{int(np.argmax(empty))}] is missing (NaN) throughout; leave that trial out"
        )
    if not np.nan_to_num(activity).any():
        raise InputError(
            f"activity is 0 in all {len(activity)} trials, the recording is silent; "
            "check which array is read"
        )


def check_series(
    name: str,
    value: Float32[np.ndarray, "trials times channel"] | None,
    activity: Float32[np.ndarray, "trial time neuron"],
) -> None:
    """Refuse a series whose axes disagree with the activity, or with impossible values."""
    if value is None:
        return
    expected = activity.shape if name == "rates" else activity.shape[:2]
    if value.shape[: len(expected)] != expected:
        raise InputError(
            f"{name} has shape {value.shape}, but activity has {activity.shape}; "
            f"both must agree in {'every axis' if name == 'rates' else 'trials and time bins'}"
        )
    if name == "inputs":
        inside = np.arange(activity.shape[1]) < trial_lengths(activity)[:, None]
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
    observed = ~np.isnan(activity).all(axis=2)
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
    array = np.array(value)
    try:
        if array.dtype.kind == "S":
            array = np.char.decode(array, "utf-8")
        if array.dtype.kind == "U":
            np.char.encode(array, "utf-8")
    except ValueError as error:
        raise InputError(f"{name} holds text that is not UTF-8; write it again") from error
    if array.shape != (count,) or array.dtype.kind not in "biufU":
        axis = "neuron" if name == "neuron_ids" else "trial"
        raise InputError(
            f"{name} has shape {array.shape}; it must hold one number or text for each of the "
            f"{count} {axis}s"
        )
    return array


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
    height, width = (int(side) for side in np.ravel(value)) if np.size(value) == 2 else (0, 0)
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
    if not 1 <= value <= num_time_bins or value != int(value):
        raise InputError(f"num_encoded_bins must be from 1 to {num_time_bins}, got {value:g}")
    return int(value)


def constant_neurons(
    activity: Float32[np.ndarray, "trial time neuron"],
) -> Int[np.ndarray, " constant"]:
    """Return which neurons have one value throughout, in two entries or more."""
    least, largest = (pick.reduce(activity, axis=(0, 1)) for pick in (np.fmin, np.fmax))
    neurons = np.flatnonzero(least == largest)
    return neurons[np.isfinite(activity[..., neurons]).sum((0, 1)) > 1]


def _are_counts(trial: Float32[np.ndarray, "time neuron"]) -> bool:
    return bool((((trial >= 0) & (trial == np.floor(trial))) | np.isnan(trial)).all())


def names_of(neurons: Sequence[int] | np.ndarray, neuron_ids: np.ndarray) -> str:
    """Return the ids of some neurons in words, the first ten of them."""
    more = f" and {len(neurons) - 10} more" if len(neurons) > 10 else ""
    return ", ".join(str(neuron_ids[neuron]) for neuron in neurons[:10]) + more


def warn_of_odd_neurons(
    activity: Float32[np.ndarray, "trial time neuron"], neuron_ids: np.ndarray
) -> None:
    """Warn of neurons that are silent, or constant, and of the first pair of identical ones."""
    constant = constant_neurons(activity)
    silent = constant[~np.nan_to_num(activity[..., constant]).any((0, 1))]
    if len(constant) and not all(map(_are_counts, activity)):
        warnings.warn(
            f"{len(constant)} of {activity.shape[2]} channels never change: "
            f"{names_of(constant, neuron_ids)}; a Gaussian observation neither learns nor scores "
            "them",
            stacklevel=4,
        )
    elif len(silent):
        warnings.warn(
            f"{len(silent)} of {activity.shape[2]} neurons are silent, the first is neuron "
            f"{silent[0]}",
            stacklevel=4,
        )
    seen: dict[bytes, int] = {}
    active = np.setdiff1d(np.flatnonzero(~np.isnan(activity).all(axis=(0, 1))), constant)
    for neuron in active:
        key = hashlib.sha256(activity[:, :, neuron].tobytes()).digest()
        twin = seen.setdefault(key, int(neuron))
        if twin != neuron:
            warnings.warn(
                f"neurons {twin} and {neuron} are identical in every bin; a duplicated neuron "
                "leaks what is held out",
                stacklevel=4,
            )
            return


def pad_trials(
    name: str, trials: Sequence[np.ndarray], lengths: list[int]
) -> Float32[np.ndarray, "trial time channel"]:
    """Stack (time_i, channel) arrays, padded with NaN to the longest."""
    arrays = [np.asarray(trial) for trial in trials]
    if not arrays:
        raise InputError(f"{name} holds zero trials; give at least one")
    if len(arrays) != len(lengths):
        raise InputError(f"{name} has {len(arrays)} trials, but activity has {len(lengths)}")
    for index, (array, length) in enumerate(zip(arrays, lengths, strict=True)):
        channels = arrays[0].shape[-1] if arrays[0].ndim == 2 else "channel"
        if array.ndim != 2 or array.shape != (length, channels):
            raise InputError(
                f"{name}[{index}] has shape {array.shape}, expected ({length}, {channels})"
            )
    padded = np.full((len(arrays), max(lengths), arrays[0].shape[1]), np.nan, dtype=np.float32)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded
