"""What a fit is given and does not read is told, once."""

from __future__ import annotations

import inspect
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import seqvae.models
from seqvae import (
    EM,
    FLDS,
    PCA,
    VAE,
    ClosedForm,
    FactorAnalysis,
    GradientLearner,
    LinearDynamics,
    NeuralData,
    NonlinearDynamics,
    SwitchingEM,
    SwitchingLinearDynamics,
    crossvalidate,
    fit,
    infer,
)
from seqvae.data import CoordinatedDropout
from seqvae.data.sources import Arrays
from seqvae.models import Model
from seqvae.objectives import Objective
from tiny import LORENZ, SVAE, in_memory, tiny_learner

SIZES = {
    "SequentialVAE": SVAE,
    "VAE": partial(VAE, latent_dim=2, factor_dim=4),
    "FLDS": partial(FLDS, latent_dim=2, decoder_dims=(4,)),
    "LinearDynamics": partial(LinearDynamics, latent_dim=2),
    "NonlinearDynamics": partial(NonlinearDynamics, latent_dim=2, decoder_dims=(4,)),
    "SwitchingLinearDynamics": partial(SwitchingLinearDynamics, latent_dim=2),
    "FactorAnalysis": partial(FactorAnalysis, latent_dim=2, smoothing=0.02),
    "PCA": partial(PCA, latent_dim=2, smoothing=0.02),
}
LEARNERS = {
    "LinearDynamics": EM(max_iterations=3, progress=False),
    "SwitchingLinearDynamics": SwitchingEM(max_iterations=2, num_starts=1, progress=False),
    "FactorAnalysis": ClosedForm(),
    "PCA": ClosedForm(),
}
MODELS = [
    name
    for name, cls in vars(seqvae.models).items()
    if inspect.isclass(cls) and issubclass(cls, Model) and not inspect.isabstract(cls)
    if cls is not seqvae.models.Mixture  # which is not learned
]


def driven(inputs: np.ndarray) -> NeuralData:
    """Counts that follow an external input."""
    generator = np.random.default_rng(0)
    counts = generator.poisson(np.exp(inputs @ generator.normal(size=(1, 5)))).astype(float)
    return NeuralData(Arrays(counts, bin_width=0.02, inputs=inputs), batch_size=8)


@pytest.mark.parametrize("name", MODELS)
def test_external_inputs_change_the_rates_or_are_told_not_to(name, monkeypatch):
    inputs = np.random.default_rng(1).normal(size=(16, 10, 1))
    learner = LEARNERS.get(name, tiny_learner(2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = fit(driven(inputs), SIZES[name], learner, in_memory=True)
    words = [str(one.message) for one in caught if "external inputs" in str(one.message)]
    data = run.data()
    rates = infer(run, data, num_samples=3).rates.values
    other = NeuralData(Arrays(data.recording.activity, 0.02, inputs=1 - inputs))
    changed = bool(np.abs(infer(run, other, num_samples=3).rates.values - rates).max() > 0)
    assert changed == run.model().reads_inputs
    expected = (
        f"{name} does not read the 1 external inputs of the data; FLDS, LinearDynamics, "
        "NonlinearDynamics, SequentialVAE, SwitchingLinearDynamics do"
    )
    assert words == ([] if changed else [expected])


def test_a_cross_validation_tells_of_unread_inputs_once_a_model():
    data = driven(np.random.default_rng(1).normal(size=(8, 6, 1)))
    models = {"lds": LinearDynamics, "pca": partial(PCA, smoothing=0.0)}
    learners = {"lds": EM(max_iterations=1, progress=False)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        crossvalidate(
            data, models, learners, dims=[1], trial_folds=2, neuron_folds=2, num_samples=2,
            progress=False, out_dir="cv",
        )  # fmt: skip
    words = [str(one.message) for one in caught if "external inputs" in str(one.message)]
    assert len(words) == 1
    assert words[0].startswith("PCA does not read")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("settings", "model", "learner", "words"),
    [
        ({"coordinated_dropout": CoordinatedDropout(0.3)}, "PCA", ClosedForm(),
         "ClosedForm does not read data.coordinated_dropout"),
        ({"speckled_fraction": 0.2}, "LinearDynamics", LEARNERS["LinearDynamics"],
         "EM does not read data.speckled_fraction"),
        ({"speckled_fraction": 0.2, "val_fraction": 0.0}, "VAE", tiny_learner(1),
         "speckled_fraction hides entries of validation trials, which are none"),
        ({}, "VAE", tiny_learner(1), "VAE has no recurrent weights"),
    ],
)  # fmt: skip
def test_settings_that_nothing_reads_are_told(settings, model, learner, words):
    recording = LORENZ.load()
    if settings.get("val_fraction") == 0:
        recording = replace(recording, split=None)
    factory = SIZES[model]
    if "recurrent" in words:
        factory = partial(factory, objective=Objective(recurrent_l2=1.0))
    with pytest.warns(UserWarning, match=words):
        fit(in_memory(recording, **settings), factory, learner, in_memory=True)


def test_a_gradient_learner_reads_every_setting_of_the_data():
    assert GradientLearner.reads >= {"coordinated_dropout", "speckled_fraction"}
    data = in_memory(coordinated_dropout=CoordinatedDropout(0.3), speckled_fraction=0.2)
    fit(data, SVAE, tiny_learner(1), in_memory=True)  # in silence: a warning would be an error
