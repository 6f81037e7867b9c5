"""Scores of a model on validation trials, for learners that need no batches."""

from __future__ import annotations

from seqvae.analysis.posterior import deterministic, trials_per_chunk
from seqvae.data import NeuralData
from seqvae.models import Model
from seqvae.models.scores import Scores

VALIDATION_SAMPLES = 10


def validation_scores(model: Model, data: NeuralData) -> dict[str, float]:
    """Return ``val/<score>`` of a model on the validation trials; nothing if there are none."""
    if "val" not in data.split:
        return {}
    counts = model.observation.kind.counts_events
    scores = Scores(data.spec, model.null_counts, counts=counts)
    with deterministic(model, model.seed):
        for batch in data.batches("val", trials_per_chunk(data.spec, VALIDATION_SAMPLES)):
            batch = model.scored(batch.to(model.null_counts.device))
            output = model(batch, VALIDATION_SAMPLES)
            scores.update(output, batch, model.expectations(output, batch))
    return {f"val/{name}": value for name, value in scores.compute().items()}
