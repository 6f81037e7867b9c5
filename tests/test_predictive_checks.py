"""Posterior predictive checks pass where the model is right, and fail where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqvae.analysis.predictive_checks import predictive_checks, statistics
from seqvae.data import NeuralData, Recording
from seqvae.models import VAE

TRIALS, BINS, NEURONS = 120, 10, 8


def checked(counts: np.ndarray) -> dict:
    """Checks of a Poisson model whose rates do not depend on its latents: the mean rates."""
    data = NeuralData(Recording(counts, 0.02), val_fraction=0.1)
    data.setup()
    model = VAE(data.spec, latent_dim=2)
    rates = torch.from_numpy(counts.mean((0, 1))).float()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.null_counts.copy_(rates)
        model.observation.readout.bias.copy_(rates.log())
    return predictive_checks(model, data, np.arange(TRIALS), num_replicates=39, seed=1)


def means() -> np.ndarray:
    return np.linspace(0.5, 2.0, NEURONS)


def test_poisson_counts_pass_the_checks_of_a_poisson_model():
    counts = np.random.default_rng(0).poisson(means(), (TRIALS, BINS, NEURONS)).astype(float)
    checks = checked(counts)
    assert set(checks) == {"fano", "correlation", "autocorrelation", "synchrony"}
    assert all(check.p_value > 0.05 for check in checks.values())
    assert checks["fano"].recorded == pytest.approx(1.0, abs=0.1)


def test_overdispersed_counts_fail_them():
    rng = np.random.default_rng(0)
    gains = rng.gamma(4.0, 0.25, (TRIALS, 1, 1))  # shared by the neurons of a trial
    checks = checked(rng.poisson(gains * means(), (TRIALS, BINS, NEURONS)).astype(float))
    assert checks["fano"].recorded > 2
    assert all(check.p_value == pytest.approx(2 / 40) for check in checks.values())


def test_statistics_are_those_of_numpy():
    counts = np.random.default_rng(0).poisson(2.0, (30, 5, 3)).astype(float)
    numbers = statistics(counts)
    whole = counts.sum(1)
    assert numbers["fano"] == pytest.approx((whole.var(0, ddof=1) / whole.mean(0)).mean())
    correlations = np.corrcoef(whole.T)[[0, 0, 1], [1, 2, 2]]
    assert numbers["correlation"] == pytest.approx(np.sqrt((correlations**2).mean()))
    successive = [np.corrcoef(counts[:, :-1, n].ravel(), counts[:, 1:, n].ravel())[0, 1]
                  for n in range(3)]  # fmt: skip
    assert numbers["autocorrelation"] == pytest.approx(np.mean(successive))


def test_data_that_are_no_counts_have_no_checks():
    from seqvae.observations import Gaussian

    data = NeuralData(Recording(np.random.default_rng(0).normal(size=(20, 4, 3))))
    data.setup()
    model = VAE(data.spec, latent_dim=1, observation=Gaussian)
    assert predictive_checks(model, data, np.arange(20)) == {}
