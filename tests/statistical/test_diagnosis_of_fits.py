"""Failed fits are told apart by their failure, healthy ones of several seeds are left alone.

The data are simulated: 70 trials to learn from, 30 to validate, 40 bins of 10 ms, 20 neurons.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from pytorch_lightning import Trainer
from torch.optim import AdamW

from seqvae import EM, FLDS, VAE, GradientLearner, LinearDynamics, NeuralData, SequentialVAE, fit
from seqvae.data.sources import Arrays, Lorenz
from seqvae.objectives import Objective
from seqvae.verbs.advice import advice

pytestmark = pytest.mark.slow

FAST = Objective(beta_steps=60)
MODELS = {
    "VAE": partial(VAE, latent_dim=3, objective=FAST),
    "SequentialVAE": partial(
        SequentialVAE,
        factor_dim=4,
        generator_dim=24,
        initial_condition_dim=8,
        inferred_input_dim=1,
        controller_dim=12,
        controller_encoder_dim=12,
        objective=FAST,
    ),
    "FLDS": partial(FLDS, latent_dim=3, objective=FAST),
    "LinearDynamics": partial(LinearDynamics, latent_dim=3),
}
EPOCHS = {"VAE": 60, "SequentialVAE": 240, "FLDS": 40}


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})


def lorenz(seed, *, num_train=70):
    return Lorenz(
        num_trials=num_train + 30,
        num_val=30,
        num_time_bins=40,
        num_neurons=20,
        num_heldout=4,
        seed=seed,
    )


def adamw(lr, weight_decay=0.1):
    return partial(AdamW, lr=lr, weight_decay=weight_decay)


def learner(epochs):
    trainer = partial(Trainer, accelerator="cpu", max_epochs=epochs, check_val_every_n_epoch=2)
    return GradientLearner(trainer, progress=False)


def names(data, model, how, folder, seed=0):
    """The findings of a fit."""
    run = fit(data, model, how, run_dir=str(folder), seed=seed)
    return [finding.name for finding in advice(run, run.model(), run.data())]


@pytest.mark.parametrize("name", MODELS)
def test_healthy_fits_have_no_finding(name, tmp_path):
    for seed in range(1 if name == "SequentialVAE" else 2):  # it takes half a minute each
        how = learner(EPOCHS[name]) if name in EPOCHS else EM(progress=False)
        data = NeuralData(lorenz(seed), batch_size=24)
        assert names(data, MODELS[name], how, tmp_path / str(seed), seed) == []


def overdispersed(seed, shape=1.0):
    """Counts of variance m + m^2 / shape."""
    recording, generator = lorenz(seed, num_train=120).load(), np.random.default_rng(seed)
    mean = recording.rates * recording.bin_width
    counts = generator.poisson(mean * generator.gamma(shape, 1 / shape, mean.shape))
    return Arrays(replace(recording, activity=counts.astype(np.float32)))


@pytest.mark.parametrize(
    ("name", "source", "change", "epochs", "expected"),
    [
        (
            "VAE",
            lorenz,
            {"objective": Objective(beta=100.0, beta_steps=0)},
            40,
            "posterior_collapse",
        ),
        (
            "VAE",
            partial(lorenz, num_train=8),
            {"latent_dim": 8, "dropout": 0.0, "optimizer": adamw(4e-3, 0.0)},
            400,
            "overfitting",
        ),
        ("SequentialVAE", lorenz, {"optimizer": adamw(0.3)}, 15, "learning_rate_too_high"),
        ("VAE", overdispersed, {}, 40, "overdispersed_counts"),
    ],
    ids=["collapsed", "overfitted", "too fast", "wrong likelihood"],
)
def test_failures_are_named(name, source, change, epochs, expected, tmp_path):
    data = NeuralData(source(0), batch_size=24)
    model = partial(MODELS[name], **change)
    assert names(data, model, learner(epochs), tmp_path / "a") == [expected]


def test_learning_rate_beyond_all_numbers_ends_with_its_name(tmp_path):
    from seqvae import InputError

    data = NeuralData(lorenz(0), batch_size=24)
    model = partial(MODELS["VAE"], optimizer=adamw(3.0))
    with pytest.raises(InputError, match=r"training diverged: .* lower model\.optimizer\.lr"):
        names(data, model, learner(5), tmp_path / "a")
