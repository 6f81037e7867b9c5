"""Poisson dynamics that switch between two rotations are found again from their spikes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from seqvae.analysis.posterior import deterministic
from seqvae.data import NeuralData
from seqvae.data.sources import SimulatedLinearDynamics
from seqvae.learning import EM, SwitchingEM
from seqvae.models import LinearDynamics, Model, SwitchingLinearDynamics
from seqvae.models.scores import Scores
from seqvae.types import Batch, DataSpec

SOURCE = SimulatedLinearDynamics(
    num_states=2, num_trials=80, num_val=0, num_test=20, num_neurons=50, num_heldout=0,
    predictor_std=1.5, drive_std=0.14, stay=0.985,
)  # fmt: skip
PAIRS: list[tuple[Callable[[DataSpec], Any], Any]] = [
    (partial(LinearDynamics, latent_dim=2), EM(max_iterations=60, progress=False)),
    (partial(SwitchingLinearDynamics, latent_dim=2, num_states=2), SwitchingEM(progress=False)),
]
NUM_SETS = 1


def co_smoothing(model: Model, make: Callable[[DataSpec], Model], test: Batch) -> float:
    """Bits per spike of each quarter of the neurons, predicted from the others, averaged."""
    num_neurons, found = model.spec.num_neurons, []
    for fold in range(4):
        heldin = [n for n in range(num_neurons) if n % 4 != fold]
        part = make(replace(model.spec, heldin=tuple(heldin)))
        part.load_state_dict(model.state_dict())
        seen = replace(
            test,
            observed=test.observed[..., heldin],
            observed_mask=test.observed_mask[..., heldin],
        )
        scores = Scores(part.spec, model.null_counts, counts=True)
        with deterministic(part, 0):
            scores.update(part(seen, 30), seen)
        found.append(scores.compute()["co_bps"])
    return sum(found) / 4


@pytest.mark.slow
def test_simulated_switching_dynamics_are_recovered():
    accuracies, gains = [], []
    for seed in range(NUM_SETS):
        source = replace(SOURCE, seed=seed)
        truth, data = source.simulate(), NeuralData(source)
        train, test = data.batch(data.trials("train")), data.batch(data.trials("test"))
        scores = []
        for factory, learner in PAIRS:
            model = factory(data.spec)
            model.initialize(data)
            *_, last = learner.iterations(model, train.to(torch.float64))
            model.take(learner.finished(last, train))
            scores.append(co_smoothing(model, factory, test))
        gains.append(scores[1] - scores[0])

        with deterministic(model, 0):
            found = model(test).latents["states"].posterior.probabilities.argmax(-1).numpy()
        same = (found == truth.states[data.trials("test")]).mean()
        accuracies.append(max(same, 1 - same))
        angles = np.sort(torch.linalg.eigvals(model.transition).angle().abs().amax(-1).numpy())
        print(
            f"set {seed}: state accuracy {accuracies[-1]:.4f}, angles {angles.round(4)}, "
            f"co-smoothing {scores[0]:.4f} without and {scores[1]:.4f} with switching, gain "
            f"{gains[-1]:.4f} bits per spike, {last.iteration} iterations"
        )
        np.testing.assert_allclose(angles, [0.10, 0.35], atol=0.03)
    assert np.mean(accuracies) >= 0.93
    assert np.mean(gains) >= 0.006
