"""Real-valued data: the unit of a channel, its offset, and channels that are dead change no fit."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Distribution

from seqvae import (
    EM,
    FLDS,
    PCA,
    VAE,
    FactorAnalysis,
    InputError,
    LinearDynamics,
    NeuralData,
    SwitchingEM,
    SwitchingLinearDynamics,
    crossvalidate,
    evaluate,
    fit,
    infer,
)
from seqvae.baselines.mean_rate import MeanRate, training_moments
from seqvae.compute import noise
from seqvae.data.sources import Arrays
from seqvae.data.validation import constant_neurons
from seqvae.distributions.kinds import Real
from seqvae.distributions.kinds.real import LEAST_SPREAD
from seqvae.models import LatentVariableModel, Model
from seqvae.observations import Gaussian, ZeroInflatedGamma
from seqvae.storage.weights import load_weights
from seqvae.types import Batch, Moments
from tiny import SVAE, tiny_learner

MODELS: dict[str, tuple[Any, Any]] = {
    "LinearDynamics": (partial(LinearDynamics, latent_dim=2), EM(max_iterations=4, progress=False)),
    "SwitchingLinearDynamics": (
        partial(SwitchingLinearDynamics, latent_dim=2),
        SwitchingEM(max_iterations=3, linear_iterations=3, num_starts=1, progress=False),
    ),
    "FactorAnalysis": (partial(FactorAnalysis, latent_dim=2, smoothing=0.03), None),
    "PCA": (partial(PCA, latent_dim=2, smoothing=0.03), None),
    "VAE": (partial(VAE, latent_dim=2, factor_dim=4), tiny_learner(3)),
    "SequentialVAE": (SVAE, tiny_learner(3)),
    "FLDS": (partial(FLDS, latent_dim=2, decoder_dims=(4,)), tiny_learner(3)),
}
DEAD = 2


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setattr("seqvae.learning.observers.figures.draw_figures", lambda *_: {})
    monkeypatch.chdir(tmp_path)


def signals(*, num_trials: int = 20) -> np.ndarray:
    """Seven channels of two slow oscillations and noise, each with its own size and offset."""
    generator = np.random.default_rng(0)
    time = np.arange(12) / 4 + generator.uniform(0, 2 * np.pi, size=(num_trials, 1))
    latents = np.stack([np.sin(time), np.cos(time)], axis=-1)
    angle = generator.uniform(0, 2 * np.pi, size=7)
    values = latents @ np.stack([np.sin(angle), np.cos(angle)])
    values += 0.2 * generator.normal(size=values.shape)
    return values * generator.uniform(0.5, 2.0, size=7) + generator.normal(size=7)


def with_dead(value: float) -> np.ndarray:
    values = signals()
    values[..., DEAD] = value
    return values


def data_of(values: np.ndarray, **settings: Any) -> NeuralData:
    ids = np.array([f"emg{n}" for n in range(values.shape[-1])])
    source = Arrays(values, bin_width=0.02, neuron_ids=ids)
    return NeuralData(source, **{"heldout": [0], "batch_size": 8, **settings})


def fitted(name: str, values: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """The means of all trials, and the scores."""
    factory, learner = MODELS[name]
    data = data_of(values)
    run = fit(data, partial(factory, observation=Gaussian), learner, in_memory=True, seed=1)
    means = infer(run, data, num_samples=3)["mean"].values
    return means, evaluate(run, data, num_samples=3)


def answered(model: Model, batch: Batch) -> Distribution:
    """What a model says of a batch, by the same noise each time."""
    with torch.no_grad(), noise.keyed(5):
        return model.eval()(batch, 3).emission


@pytest.mark.parametrize("name", MODELS)
def test_a_fit_is_the_same_in_every_unit(name):
    means, scores = fitted(name, signals())
    num_entries = signals()[0].size
    for unit in (1e-6, 1e6):
        other_means, other = fitted(name, signals() * unit)
        np.testing.assert_allclose(other_means / unit, means, rtol=0, atol=2e-3)
        rows = [(other, scores), *((other["baselines"][row], scores["baselines"][row])
                                   for row in ("mean_rate", "smoothing_glm"))]  # fmt: skip
        for theirs, ours in rows:
            for score in ("log_likelihood", "heldout_log_likelihood"):
                assert theirs[score] + math.log(unit) == pytest.approx(ours[score], abs=1e-3)
        moved = other["elbo"] + num_entries * math.log(unit)
        assert moved == pytest.approx(scores["elbo"], rel=1e-3, abs=0.1)


@pytest.mark.filterwarnings("ignore:1 of 7 channels never change")
@pytest.mark.parametrize("name", MODELS)
def test_the_value_of_a_dead_channel_changes_nothing(name):
    means, scores = fitted(name, with_dead(0.0))
    for value in (0.1, 5.0):
        other_means, other = fitted(name, with_dead(value))
        others = np.arange(7) != DEAD
        np.testing.assert_allclose(other_means[..., others], means[..., others], rtol=0, atol=1e-5)
        np.testing.assert_allclose(other_means[..., DEAD], value, rtol=1e-6)
        for score in ("log_likelihood", "elbo"):
            assert other[score] == pytest.approx(scores[score], abs=1e-4)
        for row in ("mean_rate", "smoothing_glm"):
            assert other["baselines"][row] == pytest.approx(scores["baselines"][row], abs=1e-6)


@pytest.mark.filterwarnings("ignore:1 of 7 channels never change")
@pytest.mark.parametrize("name", ["LinearDynamics", "SwitchingLinearDynamics", "FactorAnalysis"])
def test_a_fit_with_a_dead_channel_is_the_fit_without_it(name):
    means, scores = fitted(name, with_dead(5.0))
    fewer, without = fitted(name, np.delete(signals(), DEAD, axis=2))
    np.testing.assert_allclose(np.delete(means, DEAD, axis=2), fewer, rtol=0, atol=1e-4)
    assert scores["log_likelihood"] == pytest.approx(without["log_likelihood"], abs=1e-4)
    assert scores["elbo"] == pytest.approx(without["elbo"], abs=1e-2)


@pytest.mark.parametrize("name", ["LinearDynamics", "PCA", "VAE", "FLDS"])
def test_an_offset_of_many_deviations_changes_nothing(name):
    means, scores = fitted(name, signals())
    offset = 1e4
    other_means, other = fitted(name, signals() + offset)
    np.testing.assert_allclose(other_means - offset, means, rtol=0, atol=0.02)
    assert other["log_likelihood"] == pytest.approx(scores["log_likelihood"], abs=5e-3)
    for row in ("mean_rate", "smoothing_glm"):
        theirs, ours = other["baselines"][row], scores["baselines"][row]
        assert theirs == pytest.approx(ours, abs=5e-3)


@pytest.mark.filterwarnings("ignore:.*the largest of the grid", "ignore:.*channels never change")
@pytest.mark.parametrize("scheme", ["fold_in", "speckled", "gabriel"])
def test_the_dimension_that_is_chosen_is_the_same_in_every_unit_and_with_a_dead_channel(scheme):
    models = {"fa": partial(FactorAnalysis, smoothing=0.03, observation=Gaussian)}
    recordings = {"1": signals(), "1e-6": 1e-6 * signals(), "1e6": 1e6 * signals()}
    recordings["dead"] = with_dead(0.1)
    gains, chosen = {}, {}
    for name, values in recordings.items():
        found = crossvalidate(
            data_of(values, heldout=None),
            None if scheme == "gabriel" else models,
            dims=[1, 2],
            scheme=scheme,
            trial_folds=2,
            neuron_folds=2,
            num_samples=5,
            out_dir=name,
            progress=False,
        )
        (summary,) = found.summary["models"].values()
        gains[name] = np.array(summary["mean"]) - summary["mean"][0]
        chosen[name] = summary["chosen_dim"]
    assert set(chosen.values()) == {2}
    for name in ("1e-6", "1e6"):
        np.testing.assert_allclose(gains[name], gains["1"], atol=0.02)


def test_channels_that_do_not_vary_are_known_by_rounding():
    """The mean of 0.1 is not exactly 0.1, so its variance is not exactly 0."""
    values = np.stack([np.full((9, 11), 0.1), np.full((9, 11), 5.0), np.zeros((9, 11))], axis=-1)
    values = np.concatenate([values, 1e6 + np.random.default_rng(0).normal(size=(9, 11, 1))], -1)

    data = NeuralData(Arrays(values, bin_width=0.02), val_fraction=0.2)
    with pytest.warns(UserWarning, match="3 of 4 channels never change: 0, 1, 2"):
        data.setup()
    kind = Real()
    for moments in (training_moments(data.recording.read()), data.train_moments):
        assert kind.is_known(moments).tolist() == [False, False, False, True]
        np.testing.assert_allclose(kind.unit(moments), np.full(4, float(moments.std[3])))
    assert constant_neurons(data.recording.read()).tolist() == [0, 1, 2]


def test_model_and_baselines_have_one_floor_in_units_of_the_channel():
    mean, std = torch.tensor([3.0, -2.0, 5.0]), torch.tensor([1e-4, 10.0, 0.0])
    moments = Moments(mean, std, torch.ones(3))
    around = MeanRate(Real(), moments).around(mean, torch.zeros(3))
    unit = torch.tensor([1e-4, 10.0, math.sqrt((1e-8 + 100) / 2)])
    floor = torch.tensor([LEAST_SPREAD, LEAST_SPREAD, 1.0])
    torch.testing.assert_close(around.stddev, floor * unit)
    observation = Gaussian(2, 3)
    observation.initialize(moments)
    torch.nn.init.constant_(observation.log_std, -50.0)
    emission = observation(torch.zeros(2))
    torch.testing.assert_close(emission.stddev, floor * unit)
    torch.testing.assert_close(emission.log_prob(mean), around.log_prob(mean))


def test_densities_are_those_of_torch_in_the_units_of_the_data():
    observation = Gaussian(2, 3).double()
    moments = (torch.tensor([1.0, -2.0, 7.0]), torch.tensor([0.5, 3.0, 1e-3]), torch.ones(3))
    observation.initialize(Moments(*moments))
    factors = torch.randn(4, 5, 2, dtype=torch.float64)
    emission = observation(factors)
    plain = torch.distributions.Normal(emission.mean, emission.stddev)
    x = plain.sample()
    torch.testing.assert_close(emission.log_prob(x), plain.log_prob(x))
    torch.testing.assert_close(emission.variance, emission.stddev.square())
    assert emission.rsample().shape == x.shape


def test_a_dead_channel_that_moves_in_new_data_is_neither_seen_nor_scored():
    data = data_of(with_dead(1.5))
    with pytest.warns(UserWarning, match="1 of 7 channels never change: emg2; a Gaussian"):
        data.setup()
    factory, learner = MODELS["VAE"]
    run = fit(data, partial(factory, observation=Gaussian), learner, in_memory=True)
    moving = with_dead(1.5)
    moving[..., DEAD] += 100 * np.random.default_rng(1).normal(size=moving.shape[:2])
    model = run.model()
    batches = [each.batch(each.trials("val")) for each in (data, data_of(moving))]
    one, two = (answered(model, batch).mean for batch in batches)
    torch.testing.assert_close(one, two)
    scored = model.scored(batches[1])
    assert not scored.weight[..., DEAD].any()
    assert scored.weight.sum() == batches[1].weight.sum() * 6 / 7


def test_a_channel_that_is_dead_in_training_alone_is_named():
    values, data = signals(), data_of(signals())
    values[data.trials("train"), :, DEAD] = 0.3
    model = LinearDynamics(data.spec, observation=Gaussian)
    with pytest.warns(UserWarning, match="1 of 7 channels do not vary in the training trials: emg"):
        model.initialize(data_of(values))


def without_units(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights as a version without units wrote them."""
    later = ("origin", "unit", "varies")
    return {name: weight for name, weight in weights.items() if not name.endswith(later)}


def test_weights_of_before_units_answer_in_the_units_of_the_data(tmp_path):
    data = data_of(signals())
    old = VAE(data.spec, latent_dim=2, factor_dim=4, observation=Gaussian).eval()
    old.null_counts.copy_(data.train_mean)
    old.observed_mean.copy_(data.train_mean[1:])
    old.observed_scale.fill_(1.7)
    expected = answered(old, data.batch([0, 3]))
    path = tmp_path / "weights.pt"
    content = {"format": "seqvae weights 1", "step": 3, "score": 0.0}
    torch.save(content | {"state_dict": without_units(old.state_dict())}, path)

    model = VAE(data.spec, latent_dim=2, factor_dim=4, observation=Gaussian).eval()
    model.initialize(data)
    load_weights(path, model)
    emission = answered(model, data.batch([0, 3]))
    assert torch.equal(emission.mean, expected.mean)
    assert torch.equal(emission.stddev, expected.stddev)
    plain = torch.distributions.Normal(expected.mean, expected.stddev)
    target = data.batch([0, 3]).target
    assert torch.equal(emission.log_prob(target), plain.log_prob(target))

    torn = without_units(old.state_dict()) | {"observation.unit": old.observation.unit}
    torch.save(content | {"state_dict": torn}, path)
    with pytest.raises(InputError, match=r"has no weight 'observation\.origin'"):
        load_weights(path, model)


def test_a_readout_of_before_units_begins_a_fit_in_units_where_it_was():
    data = data_of(signals())
    old, new = (VAE(data.spec, latent_dim=2, factor_dim=4, observation=Gaussian) for _ in range(2))
    new.initialize(data)
    with torch.no_grad():
        old.observation.log_std.copy_(torch.linspace(-1, 0, 7))
    assert new.begin_from(old) == []
    factors = torch.randn(3, 4)
    torch.testing.assert_close(new.observation(factors).mean, old.observation(factors).mean)
    torch.testing.assert_close(new.observation(factors).stddev, old.observation(factors).stddev)


def test_a_fit_begun_on_the_same_data_in_another_unit_predicts_the_same():
    factory = partial(MODELS["VAE"][0], observation=Gaussian)
    data, other = data_of(signals()), data_of(1e3 * signals())
    fitted_model = fit(data, factory, tiny_learner(2), in_memory=True).model()
    model = factory(other.spec)
    model.initialize(other)
    model.begin_from(fitted_model)
    one, two = answered(fitted_model, data.batch(0)), answered(model, other.batch(0))
    torch.testing.assert_close(1e3 * one.mean, two.mean, rtol=1e-4, atol=1e-2)


def test_encoders_see_nonnegative_data_alike_in_every_unit():
    values = np.random.default_rng(0).gamma(1.0, size=(12, 6, 4))
    seen = []
    for unit in (1.0, 1e-9):
        data = NeuralData(Arrays(unit * values, bin_width=0.02), val_fraction=0.25)
        model: LatentVariableModel = VAE(data.spec, observation=ZeroInflatedGamma)
        model.initialize(data)
        seen.append(model.standardized(data.batch([0, 1])))
    torch.testing.assert_close(*seen, rtol=1e-5, atol=1e-6)
