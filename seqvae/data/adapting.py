"""Other data than a model was trained on, brought to the neurons and bins that it knows."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from seqvae.data.recording import Recording
from seqvae.data.sizes import check_memory
from seqvae.errors import InputError
from seqvae.types import DataSpec


class Adapted(NamedTuple):
    """A recording as a model asks for it, its spec, and the bins of each trial."""

    recording: Recording
    spec: DataSpec
    lengths: Int[np.ndarray, " trial"]


def adapt(recording: Recording, own: DataSpec, spec: DataSpec) -> Adapted:
    """Bring a recording, whose own spec is ``own``, to the spec of a trained model.

    A file with all neurons takes the model's held-in ones; one with only the held-in neurons is
    embedded, its held-out neurons missing. For a model that forecasts, a file with only the encoded
    bins is embedded likewise.

    Raises:
        InputError: if neurons, inputs or bin width cannot be brought together.
    """
    _check(recording, spec)
    num_encoded, num_bins = own.num_encoded_bins, recording.num_time_bins
    if spec.num_forecast_bins:
        num_encoded = min(spec.num_encoded_bins, num_bins)
        num_bins = spec.num_time_bins if num_bins == spec.num_encoded_bins else num_bins
    check_memory(f"{num_bins} bins", 16.0 * recording.num_trials * num_bins * spec.num_neurons)
    joint = replace(spec, num_time_bins=num_bins, num_encoded_bins=num_encoded)
    lengths = recording.lengths
    lengths = np.where(lengths == recording.num_time_bins, num_bins, lengths)
    return Adapted(embedded(recording, joint), joint, lengths)


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
    if recording.num_neurons not in (spec.num_neurons, spec.num_heldin):
        raise InputError(
            f"activity has {recording.num_neurons} neurons, but the model was trained with "
            f"{spec.num_neurons}, {spec.num_heldin} of them held in; give the same neurons"
        )


def embedded(recording: Recording, spec: DataSpec) -> Recording:
    """Return the recording with the spec's bins and neurons; those that it lacks are missing."""
    num_trials, num_bins, num_neurons = recording.activity.shape
    whole = num_neurons == spec.num_neurons
    columns = np.arange(num_neurons) if whole else np.array(spec.heldin)

    def place(values: np.ndarray, *, by_neuron: bool) -> np.ndarray:
        channels = spec.num_neurons if by_neuron else values.shape[2]
        placed = np.full((num_trials, spec.num_time_bins, channels), np.nan, dtype=np.float32)
        placed[:, :num_bins, columns if by_neuron else slice(None)] = values
        return placed

    inputs, behavior, rates = recording.inputs, recording.behavior, recording.rates
    return replace(
        recording,
        activity=place(recording.activity, by_neuron=True),
        inputs=None if inputs is None else place(inputs, by_neuron=False),
        behavior=None if behavior is None else place(behavior, by_neuron=False),
        rates=None if rates is None else place(rates, by_neuron=True),
        neuron_ids=recording.neuron_ids if whole else np.arange(spec.num_neurons),
        heldin=np.array(spec.heldin),
        num_encoded_bins=spec.num_encoded_bins,
        bin_width=spec.bin_width or recording.bin_width,
    )
