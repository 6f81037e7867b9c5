from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Normal

from seqvae.analysis import posterior as inference
from seqvae.analysis.posterior import (
    deterministic,
    latent_moments,
    posterior_dataset,
    trials_per_chunk,
)
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays
from seqvae.distributions import GaussianAR1, PathGaussian
from seqvae.encoders import MLP, DeltaHead, TrialGRU
from seqvae.models import VAE, SequentialVAE
from seqvae.models.latent_variable import LatentVariableModel
from seqvae.types import Latent
from toy import scramble, toy_spec


@pytest.fixture
def data() -> NeuralData:
    """12 trials of 8 bins (one of 5), 6 neurons of which 2 are held out, 2 forecast bins."""
    activity = np.random.default_rng(0).poisson(1.0, (12, 8, 6)).astype(float)
    activity[3, 5:] = np.nan
    return NeuralData(Arrays(activity, 0.02), heldout=[1, 4], forecast_bins=2)


def make_model(data: NeuralData) -> SequentialVAE:
    torch.manual_seed(0)
    model = SequentialVAE(
        data.spec, factor_dim=3, generator_dim=8, initial_condition_dim=4, controller_dim=6,
        controller_encoder_dim=6, encoder=partial(TrialGRU, hidden_dim=6),
    )  # fmt: skip
    scramble(model, size=0.1)
    model.initialize(data)
    return model


def infer_in_chunks(
    monkeypatch: pytest.MonkeyPatch,
    model: LatentVariableModel,
    data: NeuralData,
    *,
    size: int,
    num_samples: int,
):
    entries = size * num_samples * data.spec.num_time_bins * 256
    monkeypatch.setattr(inference, "MAX_ENTRIES", entries)
    assert trials_per_chunk(data.spec, num_samples) == size
    return posterior_dataset(model, data, data.trials("all"), num_samples=num_samples)


@pytest.mark.parametrize("size", [1, 5])
def test_chunks_give_the_posterior_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, data: NeuralData, size: int
):
    """The noise is bitwise the same; products over fewer trials may round in another way."""
    model = make_model(data)
    whole, cut = (
        infer_in_chunks(monkeypatch, model, data, size=size, num_samples=7) for size in (12, size)
    )
    for name in whole:
        np.testing.assert_allclose(cut[name], whole[name], rtol=2e-5, atol=2e-6, err_msg=name)


def test_the_seed_decides_the_samples(data: NeuralData):
    model = make_model(data)
    trials = data.trials("val")

    def rates(seed: int) -> np.ndarray:
        return posterior_dataset(model, data, trials, num_samples=3, seed=seed)["rates"].values

    np.testing.assert_array_equal(rates(0), rates(0))
    assert (rates(0) != rates(1)).any()


def test_heldout_counts_and_forecast_bins_do_not_reach_the_results(data: NeuralData):
    model = make_model(data)
    activity = data.recording.activity.copy()
    activity[:, 6:] += 3
    activity[:, :, [1, 4]] += 3
    other = NeuralData(Arrays(activity, 0.02), heldout=[1, 4], forecast_bins=2)
    before, after = (
        posterior_dataset(model, each, each.trials("all"), num_samples=4) for each in (data, other)
    )
    for name in ("rates", "factors", "initial_condition_mean", "inferred_inputs_mean"):
        np.testing.assert_array_equal(before[name], after[name])


def test_rates_are_hz_and_cover_every_neuron_and_bin(data: NeuralData):
    model = make_model(data)
    result = posterior_dataset(model, data, data.trials("all"), num_samples=20)
    assert result["rates"].shape == (12, 8, 6)
    with deterministic(model, 0):
        mean = model(data.batch(data.trials("all")), 20).emission.mean.mean(0)
    expected = np.where(np.isnan(result["rates"]), np.nan, mean.numpy() / 0.02)
    np.testing.assert_allclose(result["rates"], expected, rtol=1e-5)


def test_padding_is_nan(data: NeuralData):
    result = posterior_dataset(make_model(data), data, data.trials("all"), num_samples=2)
    for name in ("rates", "factors", "inferred_inputs_mean"):
        padded = np.isnan(result[name].values).all(-1)
        assert padded[3].tolist() == [False] * 5 + [True] * 3
        assert padded.sum() == 3
    assert np.isfinite(result["elbo"]).all()


def test_a_latent_that_ends_with_the_encoded_bins_is_filled_with_nan(data: NeuralData):
    torch.manual_seed(0)
    model = VAE(data.spec, latent_dim=3)
    model.initialize(data)
    result = posterior_dataset(model, data, data.trials("all"), num_samples=2)
    latent = result["latent_mean"].values
    assert latent.shape == (12, 8, 3)
    assert np.isnan(latent[0, 6:]).all()
    assert np.isfinite(latent[0, :6]).all()


def test_an_autoencoder_reports_no_elbo(data: NeuralData):
    model = VAE(data.spec, latent_dim=3, encoder=partial(MLP, head=DeltaHead))
    model.initialize(data)
    result = posterior_dataset(model, data, data.trials("val"), num_samples=2)
    assert "elbo" not in result
    assert np.nanmax(result["latent_sd"]) == 0


def test_deterministic_leaves_randomness_modes_and_gradients_as_they_were():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Dropout(0.5))
    model[1].eval()
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    with deterministic(model, 0):
        torch.randn(10)
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.randn(3), expected)
    assert [module.training for module in model] == [True, False, True]
    assert model.training
    assert torch.is_grad_enabled()


def test_deterministic_cleans_up_after_an_error():
    model = nn.Dropout(0.5)
    torch.manual_seed(5)
    state = torch.random.get_rng_state()

    def fail() -> None:
        with deterministic(model, 0):
            torch.randn(3)
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training


def test_moments_of_a_gaussian_are_exact():
    posterior = Normal(torch.randn(4, 3), torch.rand(4, 3) + 0.1)
    moments = latent_moments(Latent(posterior, posterior, posterior.sample((2,))))
    assert torch.equal(moments.mean, posterior.mean)
    torch.testing.assert_close(moments.sd, posterior.stddev)


def test_moments_along_a_path_obey_the_law_of_total_variance():
    """u_t | u_{t-1} ~ N(1 + c u_{t-1}, s^2) has mean and variance by recursion."""
    torch.manual_seed(0)
    feedback, std, num_samples = 0.8, 0.5, 40_000
    previous = torch.zeros(num_samples, 1, 1, dtype=torch.float64)
    means, path, mean, variance = [], [], [0.0], [0.0]
    for _ in range(6):
        means.append(1 + feedback * previous)
        previous = means[-1] + std * torch.randn_like(previous)
        path.append(previous)
        mean.append(1 + feedback * mean[-1])
        variance.append(feedback**2 * variance[-1] + std**2)
    conditional = torch.stack(means, dim=2)
    posterior = PathGaussian(conditional, torch.full_like(conditional, std))
    prior = GaussianAR1(torch.tensor([-0.1]), torch.tensor([1.0]), 6)
    moments = latent_moments(Latent(posterior, prior, torch.stack(path, dim=2)))
    expected = torch.tensor(mean[1:], dtype=torch.float64)
    torch.testing.assert_close(moments.mean[0, :, 0], expected, rtol=0.01, atol=0)
    expected = torch.tensor(variance[1:], dtype=torch.float64).sqrt()
    torch.testing.assert_close(moments.sd[0, :, 0], expected, rtol=0.01, atol=0)


@pytest.mark.parametrize("num_samples", [1, 50, 10**9])
@pytest.mark.parametrize("num_neurons", [3, 5000])
def test_chunks_are_bounded(num_samples: int, num_neurons: int):
    spec = replace(toy_spec(num_time_bins=140), num_neurons=num_neurons)
    size = trials_per_chunk(spec, num_samples)
    per_trial = num_samples * 140 * max(num_neurons, 256)
    assert size >= 1
    assert size == 1 or size * per_trial <= inference.MAX_ENTRIES
    assert (size + 1) * per_trial > inference.MAX_ENTRIES
