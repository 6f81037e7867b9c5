"""A fit that takes a second: little data, a little model, a short training."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer

from seqvae import GradientLearner, NeuralData, SequentialVAE
from seqvae.data import Recording
from seqvae.data.sources import Arrays, Lorenz

LORENZ = Lorenz(num_trials=24, num_val=8, num_time_bins=10, num_neurons=6, num_heldout=2)

SVAE = partial(
    SequentialVAE,
    factor_dim=3,
    generator_dim=5,
    initial_condition_dim=4,
    inferred_input_dim=1,
    controller_dim=4,
    controller_encoder_dim=4,
    validation_samples=2,
)


def tiny_data(source: Any = LORENZ, **settings: Any) -> NeuralData:
    """16 trials to learn from (2 steps an epoch), 8 to validate; 6 neurons, 2 held out; 10 bins."""
    return NeuralData(source, **{"batch_size": 8, **settings})


def in_memory(recording: Recording | None = None, **settings: Any) -> NeuralData:
    """The same trials from memory."""
    return tiny_data(Arrays(recording if recording is not None else LORENZ.load()), **settings)


def silent_heldout(recording: Recording) -> Recording:
    """The recording, its held-out neurons without a spike in validation trials."""
    activity = recording.activity.copy()
    heldout = np.setdiff1d(np.arange(recording.num_neurons), recording.heldin)
    activity[np.ix_(recording.split == "val", np.ones(recording.num_time_bins, bool), heldout)] = 0
    return replace(recording, activity=activity)


def tiny_learner(max_epochs: int = 2, *, trainer: dict[str, Any] | None = None, **settings: Any):
    """A learner on the CPU without a progress bar."""
    make = partial(Trainer, accelerator="cpu", max_epochs=max_epochs, **(trainer or {}))
    return GradientLearner(**{"trainer": make, "progress": False, **settings})


def weights(path: Any) -> dict[str, Any]:
    """What a file of tensors and plain values holds."""
    return torch.load(path, weights_only=True)


def first_inequality(one: Any, other: Any, key: str = "") -> str | None:
    """The key of the first leaf in which two trees of tensors and values differ, bit for bit."""
    if isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            return f"{key}: {list(one)} or {list(other)}"
        pairs = [(one[name], other[name], f"{key}.{name}") for name in one]
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        if len(one) != len(other):
            return f"{key}: {len(one)} or {len(other)} items"
        pairs = [(a, b, f"{key}[{i}]") for i, (a, b) in enumerate(zip(one, other, strict=True))]
    elif isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return None if torch.equal(one, other) else key
    else:
        return None if one == other else f"{key}: {one!r} or {other!r}"
    return next(filter(None, (first_inequality(*pair) for pair in pairs)), None)
