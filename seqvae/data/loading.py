"""A recording as tensors, in memory or read when asked for, and what a DataLoader needs of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from seqvae.data.lazy import LazyActivity
from seqvae.data.recording import Recording
from seqvae.types import Batch, DataSpec


@runtime_checkable
class Trials(Protocol):
    """Trials to index by a tensor of their numbers: one batch, or what makes it when asked."""

    def __getitem__(self, index: Tensor) -> Batch:
        """Return some trials as a batch."""


def resident(recording: Recording, spec: DataSpec, lengths: Int[np.ndarray, " trial"]) -> Trials:
    """Return all trials to index: as tensors in memory, or read when asked for."""
    if isinstance(recording.activity, LazyActivity):
        return OnDemand(recording, spec, lengths)
    everyone = np.arange(recording.num_trials)
    return _batch(recording.activity, recording.inputs, everyone, spec, lengths)


def taken(
    trials: Trials, index: Int[Tensor, " chosen"], neurons: tuple[int, ...] | None, spec: DataSpec
) -> Batch:
    """Return some trials as a batch, of some neurons alone; None: of all."""
    if neurons is None:
        return trials[index]
    if isinstance(trials, OnDemand):
        return trials.read(index, neurons)
    batch, places = trials[index], torch.from_numpy(spec.heldin_among(neurons))
    columns = torch.tensor(neurons, dtype=torch.int64)
    return replace(
        batch,
        observed=batch.observed.index_select(2, places),
        observed_mask=batch.observed_mask.index_select(2, places),
        target=batch.target.index_select(2, columns),
        weight=batch.weight.index_select(2, columns),
        neurons=neurons,
    )


class OnDemand:
    """Trials of a recording whose activity is read when it is asked for."""

    def __init__(
        self, recording: Recording, spec: DataSpec, lengths: Int[np.ndarray, " trial"]
    ) -> None:
        self._recording, self._spec, self._lengths = recording, spec, lengths

    def __getitem__(self, index: Tensor) -> Batch:
        """Read some trials as a batch."""
        return self.read(index)

    def read(self, index: Tensor, neurons: tuple[int, ...] | None = None) -> Batch:
        """Read some trials as a batch, of some neurons alone; None: of all."""
        recording, spec = self._recording, self._spec
        chosen = np.arange(recording.num_trials)[index.cpu().numpy()]
        inputs = None if recording.inputs is None else recording.inputs[chosen]
        activity = recording.read(chosen, None if neurons is None else np.array(neurons, dtype=int))
        spec = spec if neurons is None else spec.among(neurons)
        batch = _batch(activity, inputs, chosen, spec, self._lengths[chosen])
        return replace(batch, neurons=neurons)


def _batch(
    activity: Float[np.ndarray, "trial time neuron"],
    inputs: Float[np.ndarray, "trial time input"] | None,
    trials: Int[np.ndarray, " trial"],
    spec: DataSpec,
    lengths: Int[np.ndarray, " trial"],
) -> Batch:
    """Return trials as one batch of tensors."""
    observed = torch.from_numpy(~np.isnan(activity))
    target = torch.from_numpy(np.nan_to_num(activity))
    if inputs is None:
        inputs = np.empty((*activity.shape[:2], 0), dtype=np.float32)
    return Batch(
        observed=_encoded(target, spec),
        observed_mask=_encoded(observed, spec),
        target=target,
        weight=observed.float(),
        inputs=torch.from_numpy(np.nan_to_num(inputs)),
        lengths=torch.from_numpy(lengths),
        trial=torch.from_numpy(trials),
    )


def _encoded(
    values: Float[Tensor, "trial time neuron"] | Bool[Tensor, "trial time neuron"], spec: DataSpec
) -> Tensor:
    if spec.num_heldin == spec.num_neurons and spec.num_forecast_bins == 0:
        return values
    return values[:, : spec.num_encoded_bins][:, :, list(spec.heldin)].contiguous()
