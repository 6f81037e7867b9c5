"""Other data than a model was trained on, brought to the neurons and bins that it knows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Shaped

from seqvae.data.lazy import LazyActivity
from seqvae.data.neurons import neuron_columns
from seqvae.data.recording import Recording
from seqvae.data.sizes import check_memory
from seqvae.data.validation import trial_lengths
from seqvae.errors import InputError
from seqvae.types import DataSpec


class Adapted(NamedTuple):
    """A recording as a model asks for it, its spec, and the bins of each trial."""

    recording: Recording
    spec: DataSpec
    lengths: Int[np.ndarray, " trial"]


def adapt(
    recording: Recording,
    own: DataSpec,
    spec: DataSpec,
    names: Shaped[np.ndarray, " neuron"] | None = None,
) -> Adapted:
    """Bring a recording, whose own spec is ``own``, to the spec of a trained model.

    Neurons are found by their names where recording and model have some, else by position; see
    ``seqvae.data.neurons``. Neurons that the recording lacks, which were held out, are missing. So
    are forecast bins, for a model that forecasts, of a recording with only the encoded ones.
    External inputs have no names: their number must agree, and they are taken by position.

    Args:
        recording: the data.
        own: their spec.
        spec: of the model.
        names: of the neurons of the model, if they have some.

    Raises:
        InputError: if neurons, inputs or bin width cannot be brought together.
    """
    _check(recording, spec)
    columns = neuron_columns(recording.num_neurons, recording.neuron_names, spec, names)
    num_encoded, num_bins = own.num_encoded_bins, recording.num_time_bins
    if spec.num_forecast_bins:
        num_encoded = min(spec.num_encoded_bins, num_bins)
        num_bins = spec.num_time_bins if num_bins == spec.num_encoded_bins else num_bins
    if not isinstance(recording.activity, LazyActivity):
        check_memory(f"{num_bins} bins", 16.0 * recording.num_trials * num_bins * spec.num_neurons)
    joint = replace(spec, num_time_bins=num_bins, num_encoded_bins=num_encoded)
    is_whole = np.array_equal(columns, np.arange(recording.num_neurons))
    if names is None and is_whole:
        names = recording.neuron_ids
    activity = recording.activity
    if is_whole:
        lengths = recording.lengths
    elif isinstance(activity, LazyActivity):
        lengths = activity.neurons(columns).lengths
    else:
        lengths = trial_lengths(_chosen(activity, columns))
    lengths = np.where(lengths == recording.num_time_bins, num_bins, lengths)
    return Adapted(_placed(recording, joint, columns, names), joint, lengths)


def _check(recording: Recording, spec: DataSpec) -> None:
    width = recording.bin_width
    if width and spec.bin_width and not math.isclose(width, spec.bin_width, rel_tol=1e-6):
        raise InputError(
            f"bin_width is {width:g} s, but the model was trained with {spec.bin_width:g} s; "
            "bin the data alike"
        )
    if recording.num_inputs != spec.num_inputs:
        raise InputError(
            f"inputs: the data have {recording.num_inputs}, but the model was trained with "
            f"{spec.num_inputs}; give the same external inputs"
        )


def _placed(
    recording: Recording,
    spec: DataSpec,
    columns: Int[np.ndarray, " neuron"],
    names: Shaped[np.ndarray, " neuron"] | None,
) -> Recording:
    """Return the recording with the spec's bins and neurons; those that it lacks are missing."""

    def place(values: np.ndarray) -> np.ndarray:
        size = (recording.num_trials, spec.num_time_bins, values.shape[2])
        placed = np.full(size, np.nan, dtype=np.float32)
        placed[:, : recording.num_time_bins] = values
        return placed

    inputs, behavior, rates = recording.inputs, recording.behavior, recording.rates
    activity = recording.activity
    if isinstance(activity, LazyActivity):
        activity = activity.neurons(columns).padded(spec.num_time_bins)
    else:
        activity = place(_chosen(activity, columns))
    return replace(
        recording,
        activity=activity,
        inputs=None if inputs is None else place(inputs),
        behavior=None if behavior is None else place(behavior),
        rates=None if rates is None else place(_chosen(rates, columns)),
        neuron_ids=names,
        neuron_sessions=_labelled(recording.neuron_sessions, columns),
        heldin=np.array(spec.heldin),
        num_encoded_bins=spec.num_encoded_bins,
        bin_width=spec.bin_width or recording.bin_width,
        image_shape=recording.image_shape if len(columns) == recording.num_neurons else None,
    )


def _labelled(
    labels: Shaped[np.ndarray, " data_neuron"] | None, columns: Int[np.ndarray, " neuron"]
) -> Shaped[np.ndarray, " neuron"] | None:
    """Return the sessions of a model's neurons, none of those without a column."""
    return None if labels is None else np.where(columns >= 0, labels[columns], "")


def _chosen(
    values: Float32[np.ndarray, "trial time data_neuron"], columns: Int[np.ndarray, " neuron"]
) -> Float32[np.ndarray, "trial time neuron"]:
    """Return the series of a model's neurons; those without a column are missing."""
    if np.array_equal(columns, np.arange(values.shape[2])):
        return values
    return np.where(columns >= 0, values[..., columns], np.float32(np.nan))
