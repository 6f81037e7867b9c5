"""What there is to learn from."""

from __future__ import annotations

import torch

from seqvae.data.neural_data import NeuralData
from seqvae.errors import InputError


def require_every_neuron(data: NeuralData) -> None:
    """Refuse data in which a neuron has no value to learn from.

    Raises:
        InputError: naming the first such neuron.
    """
    scored = torch.zeros(data.spec.num_neurons, dtype=torch.bool)
    for batch in data.batches("train"):
        scored |= (batch.weight > 0).any(dim=0).any(dim=0)
    if not bool(scored.all()):
        neuron = int((~scored).nonzero()[0])
        raise InputError(
            f"activity: neuron {neuron} has no value in the training trials; leave it out"
        )
