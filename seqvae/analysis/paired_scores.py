"""The scores of one row of the table of ``evaluate``, paired with other rows over trials."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqvae.analysis.per_neuron import NeuronScores
from seqvae.data import NeuralData
from seqvae.models import Model
from seqvae.models.scores import Scores
from seqvae.scores.benchmark import BenchmarkBits, PSTHMatch, benchmark_kernel
from seqvae.scores.floors import LEAST_COUNT
from seqvae.scores.gain import PairedGain, paired_gain
from seqvae.scores.metrics import R2
from seqvae.types import Batch


class PairedScores:
    """The scores of one row of the table, and what it takes to pair rows over trials."""

    def __init__(self, model: Model, data: NeuralData) -> None:
        self.counts = model.observation.kind.counts_events
        self.scores = Scores(data.spec, model.null_counts, counts=self.counts)
        self.spec = data.spec
        self.rates = data.recording.rates
        self.scale = 1.0 if data.spec.bin_width is None else 1.0 / data.spec.bin_width
        self.neurons = NeuronScores(data.spec, model.null_counts, counts=self.counts)
        self.r2 = R2(data.spec.num_neurons)
        self.benchmark = _Benchmark(data) if self.counts else None
        self._unseen: list[tuple[Tensor, Tensor]] = []

    def add_mean(
        self,
        mean: Float[Tensor, "batch time neuron"],
        log_prob: Float[Tensor, "batch time neuron"],
        batch: Batch,
    ) -> None:
        """Compare rates with the truth, where it is known, and keep the score of each trial."""
        self.neurons.update(mean, log_prob, batch)
        if self.benchmark is not None:
            self.benchmark.update(mean.cpu(), batch.to("cpu"))
        unseen = batch.weight.clone()  # held-out neurons and forecast bins
        unseen[:, : batch.observed.shape[1], list(self.spec.heldin)] = 0
        if self.counts:
            mean = mean.clamp_min(LEAST_COUNT)
            gain = unseen * (batch.target * mean.log() - mean)
            size = (unseen * batch.target).sum((1, 2)) * math.log(2)
        else:
            gain = torch.where(unseen > 0, unseen * log_prob, 0.0)
            size = unseen.sum((1, 2))
        self._unseen.append((gain.sum((1, 2)).double().cpu(), size.double().cpu()))
        if self.rates is not None:
            truth = torch.from_numpy(self.rates[batch.trial.cpu().numpy()])
            mask = batch.time_mask[..., None].cpu() & torch.isfinite(truth)
            self.r2.update(mean.cpu() * self.scale, truth.nan_to_num(), mask)

    def compute(self) -> dict[str, float]:
        """Return the scores by name."""
        scores = self.scores.compute()
        if bool(self.r2.num_bins.any()):
            scores["rates_r2"] = float(self.r2.compute())
        return scores | ({} if self.benchmark is None else self.benchmark.compute())

    def gain_over(self, other: PairedScores) -> PairedGain | None:
        """Return what is gained over another row on what inference did not see."""
        gains, size = (torch.cat(part) for part in zip(*self._unseen, strict=True))
        other_gains, _ = (torch.cat(part) for part in zip(*other._unseen, strict=True))
        return paired_gain(gains - other_gains, size)


class _Benchmark:
    """The scores of the Neural Latents Benchmark that are of counts, as far as the data allow."""

    def __init__(self, data: NeuralData) -> None:
        spec, self._heldout = data.spec, list(data.spec.heldout)
        self._bits = {"nlb_co_bps": BenchmarkBits(len(self._heldout))} if self._heldout else {}
        if spec.num_forecast_bins:
            self._bits["nlb_fp_bps"] = BenchmarkBits(spec.num_neurons)
        self._condition = condition_indices(data)
        self._psth: PSTHMatch | None = None
        if self._condition is not None and spec.bin_width is not None and spec.num_encoded_bins > 1:
            self._psth = PSTHMatch(
                benchmark_kernel(spec.num_encoded_bins, spec.bin_width),
                num_conditions=int(self._condition.max()) + 1,
                num_neurons=spec.num_neurons,
            )

    def update(self, mean: Float[Tensor, "batch time neuron"], batch: Batch) -> None:
        """Add a batch that is known by its mean."""
        num_encoded = batch.observed.shape[1]
        parts = (mean, batch.target, batch.weight)
        if "nlb_co_bps" in self._bits:
            self._bits["nlb_co_bps"].update(
                *(part[:, :num_encoded, self._heldout] for part in parts)
            )
        if "nlb_fp_bps" in self._bits:
            self._bits["nlb_fp_bps"].update(*(part[:, num_encoded:] for part in parts))
        if self._psth is not None:
            assert self._condition is not None
            condition = torch.from_numpy(self._condition[batch.trial.numpy()])
            seen = (part[:, :num_encoded] for part in parts)
            self._psth.update(*seen, condition=condition)

    def compute(self) -> dict[str, float]:
        """Return the scores by name."""
        metrics = self._bits | ({} if self._psth is None else {"nlb_psth_r2": self._psth})
        return {name: float(metric.compute()) for name, metric in metrics.items()}


def condition_indices(data: NeuralData) -> Int[np.ndarray, " trial"] | None:
    """Return which of the conditions each trial is of; None if these do not come again.

    Labels that differ from trial to trial, such as an interval in milliseconds, and those of the
    windows of one long trial name no condition.
    """
    condition = data.recording.condition
    if condition is None or data.start is not None:
        return None
    labels, indices = np.unique(condition, return_inverse=True)
    return indices if 2 * len(labels) <= len(condition) else None
