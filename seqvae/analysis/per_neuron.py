"""The score of each neuron on its own."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.data import NeuralData
from seqvae.scores.metrics import poisson_gain
from seqvae.types import Batch, DataSpec


class NeuronScores:
    """Sums over the bins that inference encoded, for each neuron, in float64.

    They are those of which the scores of all are made: over the held-in neurons the bits by the
    spikes are ``bits_per_spike``, over the held-out ones ``co_bps``.

    Args:
        spec: facts of the data.
        null_counts: mean count of each neuron over the training trials.
        counts: whether the data are counts.

    Attributes:
        gained: bits gained over the null model, for counts, else the log-likelihood in nats.
        size: spikes, for counts, else entries; what is not scored does not count.
    """

    def __init__(
        self, spec: DataSpec, null_counts: Float[Tensor, " neuron"], *, counts: bool
    ) -> None:
        # the slices that ``Scores`` takes, whose sums over bins are then the same to the last bit
        self._groups = [list(spec.heldin), list(spec.heldout)] if spec.heldout else [slice(None)]
        self._null_counts = null_counts.detach()
        self.counts = counts
        self._unit = math.log(2) if counts else 1.0
        self.gained = torch.zeros(spec.num_neurons, dtype=torch.float64)
        self.size = torch.zeros_like(self.gained)

    def update(
        self,
        mean: Float[Tensor, "batch time neuron"],
        log_prob: Float[Tensor, "batch time neuron"],
        batch: Batch,
    ) -> None:
        """Add a batch that is known by its mean and its log-density."""
        num_encoded = batch.observed.shape[1]
        for neurons in self._groups:
            expected, values, target, weight = (
                part[:, :num_encoded][..., neurons]
                for part in (mean, log_prob, batch.target, batch.weight)
            )
            if self.counts:
                values, one = poisson_gain(expected, target, self._null_counts[neurons]), target
            else:
                one = torch.ones_like(weight)
            self.gained[neurons] += _sums(values, weight) / self._unit
            self.size[neurons] += _sums(one, weight)

    @property
    def scores(self) -> Float[Tensor, " neuron"]:
        """Bits per spike, or nats per entry; NaN for a neuron without any."""
        return self.gained / self.size.where(self.size > 0, torch.nan)


def neuron_rows(
    data: NeuralData, scores: NeuronScores, others: dict[str, NeuronScores]
) -> list[dict[str, Any]]:
    """Tell of each neuron its ``id``, ``group`` and scores in the bins that inference encoded.

    Of counts ``spikes``, the ``bits`` gained over the mean rate, and ``bits_per_spike``; of other
    data ``entries`` and their ``log_likelihood`` in nats per entry. Under ``baselines`` the same
    score of each other row, but of the mean rate for counts, which gains 0 by definition.
    """
    size, score = ("spikes", "bits_per_spike") if scores.counts else ("entries", "log_likelihood")
    columns: dict[str, list[Any]] = {size: scores.size.tolist()}
    columns |= {"bits": scores.gained.tolist()} if scores.counts else {}
    columns[score] = scores.scores.tolist()
    others = {name: one for name, one in others.items() if not (one.counts and name == "mean_rate")}
    baselines = {name: one.scores.tolist() for name, one in others.items()}
    heldout = set(data.spec.heldout)
    return [
        {"id": name, "group": "heldout" if n in heldout else "heldin"}
        | {column: values[n] for column, values in columns.items()}
        | {"baselines": {label: values[n] for label, values in baselines.items()}}
        for n, name in enumerate(np.asarray(data.recording.neuron_ids).tolist())
    ]


def _sums(
    values: Float[Tensor, "batch time neuron"], weight: Float[Tensor, "batch time neuron"]
) -> Float[Tensor, " neuron"]:
    weighted = values.where(weight > 0, 0.0) * weight
    by_trial = weighted.sum(dim=1, dtype=torch.promote_types(weighted.dtype, torch.float32))
    return by_trial.sum(dim=0, dtype=torch.float64).cpu()
