from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from seqvae.analysis.evaluation import evaluate_model
from seqvae.baselines.mean_rate import training_moments
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays
from seqvae.distributions import ZeroInflatedGammaLogScale
from seqvae.distributions.kinds import Nonnegative
from seqvae.models import VAE
from seqvae.observations import ZeroInflatedGamma
from seqvae.types import Moments

CASES = [(0.2, 0.7, 3.0, 0.0), (0.9, 2.5, 0.01, 0.0), (0.5, 4.0, 20.0, 7.0), (0.05, 1.0, 1.0, 0.1)]


def made(share, shape, scale, threshold=0.0):
    parts = (np.log(share / (1 - share)), np.log(shape), np.log(scale))
    parts = [torch.as_tensor(part, dtype=torch.float64) for part in parts]
    return ZeroInflatedGammaLogScale(*parts, threshold=threshold)


def events(num_trials=40, *, seed=0, threshold=0.0):
    """Zeros and events of eight neurons whose share and size follow one slow drive."""
    rng = np.random.default_rng(seed)
    drive = np.sin(rng.uniform(0, 6, (num_trials, 1)) + np.arange(20) / 4)[..., None]
    loading = np.random.default_rng(9).normal(size=8)
    share = 1 / (1 + np.exp(0.5 - 1.5 * drive * loading))
    sizes = threshold + rng.gamma(1.7, np.exp(0.7 * drive * loading) * np.arange(1, 9))
    return np.where(rng.uniform(size=sizes.shape) < share, sizes, 0.0)


@pytest.mark.parametrize(("share", "shape", "scale", "threshold"), CASES)
def test_density_and_point_mass_are_one_together(share, shape, scale, threshold):
    distribution = made(share, shape, scale, threshold)

    def density(x):
        return float(distribution.log_prob(torch.tensor(x, dtype=torch.float64)).exp())

    cuts = threshold + scale * shape * np.array([0.0, 0.1, 1.0, 5.0, 60.0])
    total = sum(integrate.quad(density, *ends)[0] for ends in pairwise(cuts))
    assert total == pytest.approx(share, rel=1e-6)
    assert density(0.0) == pytest.approx(1 - share)
    if threshold:
        assert density(threshold / 2) == density(threshold) == 0.0


@pytest.mark.parametrize(("share", "shape", "scale", "threshold"), CASES)
def test_density_of_an_event_is_scipys(share, shape, scale, threshold):
    x = threshold + scale * np.array([1e-3, 0.1, 1.0, 4.0, 30.0])
    expected = np.log(share) + stats.gamma.logpdf(x, shape, loc=threshold, scale=scale)
    found = made(share, shape, scale, threshold).log_prob(torch.from_numpy(x))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(("share", "shape", "scale", "threshold"), CASES)
def test_mean_and_variance_are_those_of_samples(share, shape, scale, threshold):
    torch.manual_seed(0)
    distribution = made(share, shape, scale, threshold)
    sample = distribution.sample((100_000,))
    assert ((sample == 0) | (sample > threshold)).all()
    size = threshold + shape * scale
    mean, square = share * size, share * (shape * scale**2 + size**2)
    assert float(distribution.mean) == pytest.approx(mean)
    assert float(distribution.variance) == pytest.approx(square - mean**2)
    error = 5 * float(sample.std()) / len(sample) ** 0.5
    assert float(sample.mean()) == pytest.approx(mean, abs=error)
    assert float(sample.var()) == pytest.approx(square - mean**2, rel=0.1)


@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_moments_make_a_distribution_that_has_them(threshold):
    values = events(threshold=threshold)
    moments = training_moments(values)
    found = ZeroInflatedGammaLogScale.of_moments(moments, threshold=threshold)
    torch.testing.assert_close(found.mean, moments.mean)
    torch.testing.assert_close(found.stddev, moments.std)
    torch.testing.assert_close(found.logits.sigmoid(), moments.nonzero)
    sizes = np.where(values > 0, values, np.nan)
    shape = (np.nanmean(sizes, (0, 1)) - threshold) ** 2 / np.nanvar(sizes, (0, 1))
    np.testing.assert_allclose(found.log_shape.exp(), shape)


def test_mean_rate_of_extreme_neurons_is_finite():
    """Silent, always active, constant, and with one event only."""
    values = events()
    values[..., 0], values[..., 1], values[..., 2] = 0.0, values[..., 1] + 1e-3, 2.0
    values[..., 3] = 0.0
    values[5, 5, 3] = 4.0
    moments = training_moments(values)
    null = Nonnegative().around(
        Nonnegative().clamp(moments.mean), moments, spread=moments.std
    )  # fmt: skip
    for value in (0.0, 1e-3, 50.0):
        assert null.log_prob(torch.full((8,), value).double()).isfinite().all()
    torch.testing.assert_close(null.mean[1:], moments.mean[1:])


def test_another_mean_is_kept_whether_events_are_rare_or_always():
    mean = torch.tensor([0.01, 1.0, 3.0, 200.0], dtype=torch.float64)
    for share in (1e-3, 0.4, 1.0):
        ones = torch.ones(4, dtype=torch.float64)
        moments = Moments(2 * ones, 3 * ones / share**0.5, share * ones)
        found = Nonnegative().around(mean, moments, spread=moments.std)
        torch.testing.assert_close(found.mean, mean)
        null = ZeroInflatedGammaLogScale.of_moments(moments)
        torch.testing.assert_close(found.log_shape, null.log_shape)
        odds = (found.logits - null.logits).exp()
        torch.testing.assert_close(odds, mean / 2, rtol=1e-5, atol=0.0)


def evaluated(values, *, threshold=0.0):
    data = NeuralData(Arrays(values, 0.1), val_fraction=0.25, heldout=[1, 5], forecast_bins=4)
    data.setup()
    torch.manual_seed(0)
    model = VAE(data.spec, latent_dim=2, observation=lambda factors, neurons: ZeroInflatedGamma(
        factors, neurons, threshold=threshold))  # fmt: skip
    model.initialize(data)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    batch = data.batch(data.trials("train"))
    for step in range(40):
        torch.manual_seed(step)
        output = model(batch)
        loss = -output.emission.log_prob(batch.target).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return evaluate_model(model, data, split="val", num_samples=4, seed=0), data


def test_a_model_of_events_is_scored_beside_baselines_of_its_own_measure():
    values = events().astype(np.float32)
    scores, data = evaluated(values)
    train, val = (values[data.trials(word)] for word in ("train", "val"))
    expected = []
    for neuron in range(8):
        own = train[..., neuron].astype(float)
        share, sizes = (own > 0).mean(), own[own > 0]
        shape = sizes.mean() ** 2 / sizes.var()
        truth = val[..., neuron].astype(float)
        density = np.log(share) + stats.gamma.logpdf(
            np.where(truth > 0, truth, 1.0), shape, scale=sizes.mean() / shape
        )
        expected.append(np.where(truth > 0, density, np.log(1 - share)).mean())
    baselines = scores["baselines"]
    assert baselines["mean_rate"]["log_likelihood"] == pytest.approx(np.mean(expected), rel=1e-5)
    assert baselines["mean_rate"].keys() == {"log_likelihood", "heldout_log_likelihood"}
    assert scores["log_likelihood"] > baselines["mean_rate"]["log_likelihood"]
    assert baselines["smoothing_glm"]["log_likelihood"] > baselines["mean_rate"]["log_likelihood"]
    assert not {"bits_per_spike", "co_bps", "fp_bps"} & scores.keys()


def test_the_unit_of_the_data_changes_no_gain_over_a_baseline():
    values = events().astype(np.float32)
    for factor in (1000.0, 1e-3):
        (scores, _), (scaled, _) = evaluated(values), evaluated(np.float32(factor) * values)
        for baseline in ("mean_rate", "smoothing_glm"):
            for name in ("log_likelihood", "heldout_log_likelihood"):
                gain = scores[name] - scores["baselines"][baseline][name]
                other = scaled[name] - scaled["baselines"][baseline][name]
                assert other == pytest.approx(gain, abs=1e-3)


def test_events_beyond_a_threshold_are_learned():
    scores, _ = evaluated(events(threshold=0.5), threshold=0.5)
    assert scores["log_likelihood"] > scores["baselines"]["mean_rate"]["log_likelihood"]
    assert np.isfinite(scores["elbo"])
