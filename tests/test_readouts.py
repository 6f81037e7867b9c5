from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from linear import random_model, simulate
from seqvae.baselines.smoothing_glm import SmoothingGLM
from seqvae.distributions.kinds import Counts
from seqvae.encoders import InformationMLP
from seqvae.models import FLDS, PCA, FactorAnalysis, LinearDynamics
from toy import toy_batch, toy_spec


def test_before_learning_the_path_has_unit_variance_in_every_bin():
    prior = LinearDynamics(toy_spec(), latent_dim=3).sample(1).latents["latents"].prior
    assert_close(prior.variance, torch.ones(1, 8, 3).double(), rtol=0, atol=1e-9)


def test_a_trial_that_shows_nothing_is_read_out_as_one_at_the_mean():
    generator = np.random.default_rng(0)
    drive = np.repeat(generator.normal(size=(24, 4, 1)), 3, axis=1)
    activity = generator.poisson(np.exp(0.5 * drive * np.ones(6))).astype(np.float64)
    heldin = np.array([0, 1, 3, 4])
    model = SmoothingGLM.fit(
        activity[:16], activity[16:], heldin=heldin, num_encoded_bins=12, kind=Counts()
    )
    nothing, average = np.full((1, 12, 6), np.nan), np.broadcast_to(model.mean, (1, 12, 6))
    np.testing.assert_allclose(model.predict(nothing), model.predict(average), rtol=1e-9)


def test_flds_starts_at_the_curvature_of_rare_counts():
    """log p(x | eta) is about (x - m)(eta - c) - m (eta - c)^2 / 2, also where m is below 1."""
    spec = toy_spec(heldout=(1, 4))
    linear = LinearDynamics(spec, latent_dim=2)
    linear.take(random_model("poisson", 2, num_neurons=6))
    model = FLDS(spec, latent_dim=2, encoder=partial(InformationMLP, hidden_dims=())).double()
    mean = torch.tensor([0.05, 0.3, 0.7, 0.1, 2.0, 1.5], dtype=torch.float64)
    model.null_counts.copy_(mean)
    model.observed_mean.copy_(mean[list(spec.heldin)])
    model.begin_from(linear)
    batch = toy_batch(spec)
    found = model.encoder(model.standardized(batch), batch)
    dynamics, emission = linear.state_space
    loadings, bias = (part[list(spec.heldin)] for part in (emission.loadings, emission.bias))
    path = dynamics.chain(batch.inputs[:1]).mean[0].mean(0)
    mean, centre = mean[list(spec.heldin)], path @ loadings.mT + bias
    matrix = loadings.mT @ mean.diag() @ loadings
    assert_close(found.matrix, matrix.expand(4, 8, 2, 2), rtol=1e-9, atol=0)
    vector = (batch.observed - mean + mean * (centre - bias)) @ loadings
    assert_close(found.vector, vector, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("member", [FactorAnalysis, PCA])
def test_readout_of_counts_is_learned_to_where_its_gradient_is_zero(member):
    """Of five neurons each is read out from latents that the four others tell."""
    batch = simulate(
        random_model("poisson", 2, num_neurons=5, num_inputs=0), num_trials=30, num_bins=8
    )
    torch.manual_seed(0)
    model, ridge = member(toy_spec(num_neurons=5), latent_dim=2, smoothing=0.04), 0.5
    model.learn(batch, ridge=ridge)
    readout = model.observation.readout
    for n in range(5):
        others = [k for k in range(5) if k != n]
        found = model.infer(batch.target[..., others], batch.weight[..., others] > 0, others, 8)
        mean, covariance = found.mean.flatten(0, 1), found.covariance_matrix.flatten(0, 1)
        loading, x = readout.weight[n], batch.target[..., n].flatten()
        pushed = covariance @ loading
        rate = (mean @ loading + readout.bias[n] + 0.5 * pushed @ loading).exp()
        slope = x @ mean - rate @ (mean + pushed) - ridge * loading
        assert_close(slope, torch.zeros(2).double(), rtol=0, atol=1e-6 * float(x.sum()))
        assert float(rate.sum()) == pytest.approx(float(x.sum()), rel=1e-6)
