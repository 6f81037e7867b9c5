"""The vocabulary: the values that travel between the stages of the library, on one screen.

Axes: ``sample trial(batch) time neuron latent factor input``. The sample axis leads and is always
there. Entries that are missing, padded, held out or hidden by dropout are all told by two masks:
``observed_mask`` (what inference may see) and ``weight`` (what the likelihood scores).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.distributions import Distribution


@dataclass(frozen=True)
class DataSpec:
    """Facts about the data that a model must know to be built.

    Attributes:
        heldin: indices (into neuron) of the neurons that inference may see.
        num_neurons: all neurons, held-in and held-out.
        num_inputs: external inputs per time bin, 0 if there are none.
        num_time_bins: bins of the longest trial, forecast bins included.
        num_encoded_bins: bins that inference may see; the rest is forecast.
        bin_width: seconds per bin; None for data without time (images).
    """

    heldin: tuple[int, ...]
    num_neurons: int
    num_inputs: int
    num_time_bins: int
    num_encoded_bins: int
    bin_width: float | None

    @property
    def num_heldin(self) -> int:
        """Number of neurons that inference may see."""
        return len(self.heldin)

    @property
    def heldout(self) -> tuple[int, ...]:
        """Indices of the neurons that only the likelihood scores."""
        seen = set(self.heldin)
        return tuple(n for n in range(self.num_neurons) if n not in seen)

    @property
    def num_forecast_bins(self) -> int:
        """Bins at the end of each trial that inference never sees."""
        return self.num_time_bins - self.num_encoded_bins

    def heldin_among(self, neurons: Sequence[int]) -> np.ndarray:
        """Return the places of some neurons, of those that are held in, among the held-in ones."""
        places = self._places[np.asarray(neurons, dtype=np.int64)]
        return places[places >= 0]

    def among(self, neurons: Sequence[int]) -> DataSpec:
        """Return the facts of some of the neurons, in this order."""
        places = self._places[np.asarray(neurons, dtype=np.int64)]
        heldin = tuple(np.flatnonzero(places >= 0).tolist())
        return replace(self, heldin=heldin, num_neurons=len(neurons))

    @cached_property
    def _places(self) -> np.ndarray:
        """The place of each neuron among those held in; -1: it is not."""
        places = np.full(self.num_neurons, -1)
        places[list(self.heldin)] = np.arange(self.num_heldin)
        return places


class Moments(NamedTuple):
    """What each neuron is on its own, over the observed training entries, in data units per bin.

    Attributes:
        mean: of all entries.
        std: standard deviation of all entries.
        nonzero: share of the entries that are not zero.
    """

    mean: Float[Tensor, " neuron"]
    std: Float[Tensor, " neuron"]
    nonzero: Float[Tensor, " neuron"]


@dataclass
class Batch:
    """Some trials, padded to one length. Treat it as a value (Lightning cannot cast frozen ones).

    Attributes:
        observed: all that inference may see; missing entries are 0.
        observed_mask: True where ``observed`` holds a real, shown value.
        target: what the likelihood scores, for all neurons and bins; missing entries are 0.
        weight: 0 = not scored, 1 = scored, 1 / P(scored) under dropout.
        inputs: external inputs; the last axis has size 0 if there are none.
        lengths: bins of each trial, padding excluded, forecast bins included.
        trial: index of each trial in its recording.
        neurons: indices of the neurons that it holds, those that were recorded in its trials; None:
            all.
    """

    observed: Float[Tensor, "batch encoded_time heldin"]
    observed_mask: Bool[Tensor, "batch encoded_time heldin"]
    target: Float[Tensor, "batch time neuron"]
    weight: Float[Tensor, "batch time neuron"]
    inputs: Float[Tensor, "batch time input"]
    lengths: Int[Tensor, " batch"]
    trial: Int[Tensor, " batch"]
    neurons: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return self.target.shape[0]

    def to(self, *args: object, **kwargs: object) -> Batch:
        """Move every tensor to a device; a dtype applies to the real-valued ones only."""
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*args, **kwargs)  # type: ignore[call-overload]

        def move(tensor: Tensor) -> Tensor:
            kind = dtype if tensor.is_floating_point() else None
            return tensor.to(device=device, dtype=kind, non_blocking=non_blocking)

        return self._map(move)

    def __getitem__(self, index: Tensor | slice | list[int]) -> Batch:
        """Select trials."""
        if isinstance(index, Tensor) and index.dtype == torch.int64:
            rows = torch.where(index < 0, index + len(self), index).to(self.trial.device)
            return self._map(lambda tensor: tensor.index_select(0, rows))  # twice as fast as [rows]
        return self._map(lambda tensor: tensor[index])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            values[name] = change(value) if isinstance(value, Tensor) else value
        return Batch(**values)

    @property
    def time_mask(self) -> Bool[Tensor, "batch time"]:
        """True at the bins that belong to the trial, False at padding."""
        steps = torch.arange(self.target.shape[1], device=self.lengths.device)
        return steps < self.lengths[:, None]


class Latent(NamedTuple):
    """A latent variable: posterior, prior and the very sample the decoder consumed.

    ``mask`` (batch, time) is True at the steps whose KL counts; None: all steps (or no time axis).
    """

    posterior: Distribution
    prior: Distribution
    sample: Float[Tensor, "sample batch ..."]
    mask: Bool[Tensor, "batch time"] | None = None


@dataclass(frozen=True)
class Output:
    """What every model answers: latents, factors and the unreduced distribution of the data.

    ``emission`` has batch shape (sample, batch, time, neuron) and an empty event shape.
    """

    latents: dict[str, Latent]
    factors: Float[Tensor, "sample batch time factor"]
    emission: Distribution


class Expectations(NamedTuple):
    """What a posterior q expects of each bin, known in closed form where others take samples.

    Attributes:
        factors: E_q[f].
        factors_sd: its standard deviation under q.
        mean: E_q[E[x | f]], in data units.
        mean_sd: standard deviation of E[x | f] under q.
        log_prob: E_q[log p(x | f)] of each entry of the batch's target, in nats.
        log_predictive: log E_q[p(x | f)] of each entry; None: known by samples only.
        members: the same of each member of a mixture of models, by name; None of any other.
    """

    factors: Float[Tensor, "batch time factor"]
    factors_sd: Float[Tensor, "batch time factor"]
    mean: Float[Tensor, "batch time neuron"]
    mean_sd: Float[Tensor, "batch time neuron"]
    log_prob: Float[Tensor, "batch time neuron"]
    log_predictive: Float[Tensor, "batch time neuron"] | None = None
    members: Mapping[str, Expectations] | None = None
