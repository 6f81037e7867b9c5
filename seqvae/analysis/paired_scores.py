"""The scores of one row of the table of ``evaluate``, paired with other rows over trials."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.analysis.per_neuron import NeuronScores
from seqvae.data import NeuralData
from seqvae.models import Model
from seqvae.models.scores import Scores
from seqvae.scores.floors import LEAST_COUNT
from seqvae.scores.gain import PairedGain, paired_gain
from seqvae.scores.metrics import R2
from seqvae.types import Batch


class PairedScores:
    """The scores of one row of the table, and what it takes to pair rows over trials."""

    def __init__(self, model: Model, data: NeuralData) -> None:
        session = model.session()
        self.counts = session.observation.kind.counts_events
        self.scores = Scores(data.spec, session.null_counts, counts=self.counts)
        self.spec = data.spec
        self.rates = data.recording.rates
        self.scale = 1.0 if data.spec.bin_width is None else 1.0 / data.spec.bin_width
        self.neurons = NeuronScores(data.spec, session.null_counts, counts=self.counts)
        self.r2 = R2(data.spec.num_neurons)
        self._unseen: list[tuple[Tensor, Tensor]] = []

    def add_mean(
        self,
        mean: Float[Tensor, "batch time neuron"],
        log_prob: Float[Tensor, "batch time neuron"],
        batch: Batch,
    ) -> None:
        """Compare rates with the truth, where it is known, and keep the score of each trial."""
        self.neurons.update(mean, log_prob, batch)
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
        return scores

    def gain_over(self, other: PairedScores) -> PairedGain | None:
        """Return what is gained over another row on what inference did not see."""
        gains, size = (torch.cat(part) for part in zip(*self._unseen, strict=True))
        other_gains, _ = (torch.cat(part) for part in zip(*other._unseen, strict=True))
        return paired_gain(gains - other_gains, size)
