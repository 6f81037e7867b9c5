"""The ceilings that repeats of a condition set, beside the scores of a model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.analysis.paired_scores import condition_indices
from seqvae.data import NeuralData
from seqvae.models import Model
from seqvae.scores.ceiling import ModelSums, Repeats
from seqvae.types import Batch


class Ceilings:
    """Gathers what a model explains of what the condition of a trial could.

    Regions are those of ``Scores``: ``co_bps``, ``fp_bps``, ``bits_per_spike`` for counts; and the
    share of variance of what inference did not see (``variance_explained``), or, where nothing is
    held out, of all.

    Args:
        model: says what is scored, and the null rates.
        data: with conditions.
        split: the scored trials.
    """

    def __init__(self, model: Model, data: NeuralData, split: str) -> None:
        condition = condition_indices(data)
        self.sums: dict[str, ModelSums] = {}
        if condition is None:
            return
        self.condition, spec = torch.from_numpy(condition), data.spec
        shape = (spec.num_time_bins, spec.num_neurons)
        repeats = Repeats(int(condition.max()) + 1, shape)
        for batch in data.batches(split):
            batch = model.scored(batch.to(model.null_counts.device)).to("cpu")
            repeats.update(batch.target, batch.weight, self.condition[batch.trial])
        if not bool(repeats.come_again.any()):
            return
        encoded = torch.zeros(shape, dtype=torch.bool)
        encoded[: spec.num_encoded_bins] = True
        is_heldout = torch.ones(spec.num_neurons, dtype=torch.bool)
        is_heldout[list(spec.heldin)] = False
        unseen = ~encoded | is_heldout
        regions = {"variance_explained": unseen if bool(unseen.any()) else ~unseen}
        if model.observation.kind.counts_events:
            regions |= {"bits_per_spike": encoded & ~is_heldout, "co_bps": encoded & is_heldout,
                        "fp_bps": ~encoded}  # fmt: skip
        null = model.null_counts.detach().cpu()
        self.sums = {
            name: ModelSums(repeats, null, region)
            for name, region in regions.items()
            if bool((repeats.come_again & region).any())
        }

    def add(self, mean: Float[Tensor, "batch time neuron"], batch: Batch) -> None:
        """Add what a model expects of a batch."""
        if not self.sums:
            return
        condition = self.condition[batch.trial.cpu()]
        mean, target, weight = mean.cpu(), batch.target.cpu(), batch.weight.cpu()
        for sums in self.sums.values():
            sums.update(mean, target, weight, condition)

    def compute(self, baselines: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the fields of ``Ceiling`` by the name of the score, as far as there are repeats.

        Args:
            baselines: scores of each baseline; the condition mean is the lower estimate of bits.
        """
        found = {}
        for name, sums in self.sums.items():
            ceiling = sums.variance() if name == "variance_explained" else sums.bits()
            lower = baselines.get("condition_mean", {}).get(name)
            found[name] = ceiling._replace(lower=lower)._asdict()
        return found
