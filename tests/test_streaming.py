"""A stream is the filter of the model: exact where the model is, blind to the future, and told."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from linear import random_dynamics
from seqvae import EM, FactorAnalysis, InputError, LinearDynamics, NeuralData, Run, fit, infer
from seqvae.data.sources import SimulatedLinearDynamics
from seqvae.observations import Gaussian, Poisson
from seqvae.state_space import (
    GaussianEmission,
    LinearFilter,
    LinearStateSpace,
    PoissonEmission,
    exact,
    laplace,
)


def gaussian_space(num_neurons: int, num_inputs: int = 0) -> LinearStateSpace:
    generator = torch.Generator().manual_seed(1)
    loadings = torch.randn(num_neurons, 3, generator=generator, dtype=torch.float64)
    ones = torch.ones(num_neurons, dtype=torch.float64)
    emission = GaussianEmission(loadings, 0.3 * ones, 0.7 * ones, 0.0 * ones)
    return LinearStateSpace(random_dynamics(3, num_inputs=num_inputs), emission)


def test_the_filter_is_the_smoother_of_what_there_is_so_far():
    dynamics, emission = space = gaussian_space(8, num_inputs=2)
    generator = torch.Generator().manual_seed(2)
    target = torch.randn(1, 12, 8, generator=generator, dtype=torch.float64)
    inputs = torch.randn(1, 12, 2, generator=generator, dtype=torch.float64)
    seen = torch.rand(1, 12, 8, generator=generator) < 0.7
    seen[:, 5] = False  # nothing at all
    filtering = LinearFilter(space, [0, 1, 2, 4, 7])
    heldin = emission.select([0, 1, 2, 4, 7])
    for now in range(12):
        row = torch.where(seen[0, now], target[0, now], torch.nan)[[0, 1, 2, 4, 7]]
        answer = filtering.step(row, inputs[0, now])
        until = slice(None, now + 1)
        part = [values[:, until][..., [0, 1, 2, 4, 7]] for values in (target, seen.double())]
        smoothed = exact(dynamics.chain(inputs[:, until]), heldin, target=part[0], weight=part[1])
        torch.testing.assert_close(answer.latents, smoothed.mean[0, -1])
        sd = smoothed.covariance[0, -1].diagonal().sqrt()
        torch.testing.assert_close(answer.latents_sd, sd)
        torch.testing.assert_close(answer.mean, emission.predictor(smoothed.mean)[0, -1])


def test_the_first_bin_of_counts_is_that_of_laplaces_method():
    dynamics, readout = gaussian_space(10)
    emission = PoissonEmission(readout.loadings, readout.bias)
    counts = torch.tensor([[[0.0, 3, 1, 0, 9, 2, 0, 0, 40, 1]]], dtype=torch.float64)
    answer = LinearFilter(LinearStateSpace(dynamics, emission), list(range(10))).step(
        counts[0, 0], torch.zeros(0, dtype=torch.float64)
    )
    prior = dynamics.chain(torch.zeros(1, 1, 0, dtype=torch.float64))
    mode = laplace(prior, emission, target=counts, weight=torch.ones_like(counts))
    torch.testing.assert_close(answer.latents, mode.mean[0, 0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        answer.latents_sd, mode.covariance[0, 0].diagonal().sqrt(), rtol=1e-3, atol=1e-6
    )


@pytest.fixture(scope="module")
def counted() -> tuple[Run, np.ndarray]:
    recording = SimulatedLinearDynamics(
        latent_dim=2, num_neurons=20, num_trials=20, num_val=4, num_time_bins=60
    ).load()
    data = NeuralData(recording, heldout=[3, 8])
    model = partial(LinearDynamics, latent_dim=2)
    return fit(data, model, EM(max_iterations=5), in_memory=True), recording.read([0])[0]


def streamed(run: Run, counts: np.ndarray) -> np.ndarray:
    stream = run.stream()
    return np.stack([stream.step(row) for row in counts])


def test_rates_do_not_change_by_a_bit_when_the_future_does(counted):
    run, counts = counted
    other = counts.copy()
    other[40:] = other[40:] * 3 + 1
    other[:, [3, 8]] = 99  # what is held out is not looked at
    rates, again = streamed(run, counts), streamed(run, other)
    assert (rates[:40] == again[:40]).all()
    assert not (rates[40:] == again[40:]).all()


def test_streamed_rates_are_near_the_smoothed_ones(counted):
    run, counts = counted
    smoothed = infer(run)["rates"].values[0]
    rates = streamed(run, counts)
    assert rates.shape == smoothed.shape
    assert np.corrcoef(rates[-1], smoothed[-1])[0, 1] > 0.999  # there is no later bin
    assert np.corrcoef(rates[5:].ravel(), smoothed[5:].ravel())[0, 1] > 0.8


def test_a_stream_tells_its_latency_and_starts_anew(counted, capsys):
    run, counts = counted
    with run.stream() as stream:
        first = stream.step(counts[0])
        stream.step(counts[1][[n for n in range(20) if n not in (3, 8)]])
        assert stream.latency["bins"] == 2
        assert 0 < stream.latency["median"] <= stream.latency["longest"]
        assert stream.factors.shape == stream.factors_sd.shape == (2,)
        assert (stream.rates_sd > 0).all()
    assert "stream: 2 bins, latency median" in capsys.readouterr().out
    stream.restart()
    assert str(stream) == "stream: no bin yet"
    assert (stream.step(counts[0]) == first).all()


def test_a_bin_that_is_none_is_refused_and_a_missing_one_predicted(counted):
    run, _ = counted
    stream = run.stream()
    with pytest.raises(InputError, match="a bin of 7 neurons, but the model has 20"):
        stream.step(np.zeros(7))
    with pytest.raises(InputError, match=r"values\[0\] is infinite"):
        stream.step(np.full(20, np.inf))
    with pytest.raises(InputError, match="inputs: give 0 numbers"):
        stream.step(np.zeros(20), [1.0])
    assert np.isfinite(stream.step(np.full(20, np.nan))).all()


def test_a_model_that_looks_ahead_is_refused(toy_recording):
    recording = replace(toy_recording, inputs=None)
    run = fit(recording, partial(FactorAnalysis, latent_dim=1, smoothing=0.02), in_memory=True)
    with pytest.raises(InputError, match=r"FactorAnalysis is not causal.*LinearDynamics"):
        run.stream()


def test_a_channel_that_is_not_scored_says_nothing():
    values = np.random.default_rng(0).normal(size=(12, 20, 4))
    values[..., 2] = 7.0
    model = partial(LinearDynamics, latent_dim=1, observation=Gaussian)
    data = NeuralData(values, bin_width=0.02)
    with pytest.warns(UserWarning, match="never change"):
        data.setup()
    run = fit(data, model, EM(max_iterations=2), in_memory=True)
    other = values[0].copy()
    other[:, 2] = 1000.0
    assert (streamed(run, values[0]) == streamed(run, other)).all()


def test_rates_of_counts_are_in_hertz():
    emission = PoissonEmission(torch.zeros(2, 3).double(), torch.full((2,), 0.2).double().log())
    space = LinearStateSpace(random_dynamics(3), emission)
    answer = LinearFilter(space, [0, 1]).step(torch.zeros(2).double(), torch.zeros(0).double())
    torch.testing.assert_close(answer.mean, torch.full((2,), 0.2).double())
    assert Poisson.kind.counts_events
