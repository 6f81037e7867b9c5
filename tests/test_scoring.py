from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import poisson
from sklearn.linear_model import PoissonRegressor

from seqvae.analysis.posterior import deterministic
from seqvae.crossvalidation.division import Division, Holdout
from seqvae.crossvalidation.scoring import (
    K_SHOT_PENALTY,
    _factors,
    k_shot_gain,
    mean_rate_of,
    score,
)
from seqvae.crossvalidation.scoring import seen_data as seen
from seqvae.data import NeuralData, Recording
from seqvae.data.sources import Arrays
from seqvae.distributions.kinds import Counts
from seqvae.learning import EM
from seqvae.models import LinearDynamics

SETTINGS = {"eval_batch_size": 64}


@pytest.fixture(scope="module")
def case():
    """A model learned on some trials, what is scored of others, and the training rows hidden."""
    generator = np.random.default_rng(0)
    latents = generator.normal(size=(24, 12, 2))
    loadings = generator.normal(size=(8, 2))
    counts = generator.poisson(np.exp(latents @ loadings.T - 0.5)).astype(np.float32)
    recording = Recording(counts, 0.02)
    division = Division.of(
        recording, scheme="fold_in", rows="auto", trial_folds=2, neuron_folds=2, gap=None, seed=0
    )
    train, part = division.train(0), division.part(0, 0)
    heldout = [n for n in range(8) if n not in part.heldin]
    data = NeuralData(Arrays(train), val_fraction=0.0, heldout=heldout)
    torch.manual_seed(0)
    model = LinearDynamics(data.spec, latent_dim=2)
    model.initialize(data)
    batch = data.batch(data.trials("train")).to(torch.float64)
    *_, last = EM(max_iterations=5, progress=False).iterations(model, batch)
    model.take(last.learned)
    hidden = np.ones(train.activity.shape, dtype=bool)
    hidden[..., list(part.heldin)] = False
    shown = Holdout(train.hide(hidden), part.heldin, np.where(hidden, train.activity, np.nan))
    return model, part, shown, mean_rate_of(train, Counts()), heldout


def test_score_of_counts_is_scipys_likelihood_at_the_mean_of_the_lognormal_rate(case):
    model, part, shown, null, heldout = case
    found = score(model, part, null, num_samples=7, settings=SETTINGS)
    (batch,) = seen(part, SETTINGS).batches("all", 100)
    with deterministic(model, model.seed):
        posterior = model(batch, 7).latents["latents"].posterior
    loadings, bias = model.observation.readout.weight.double(), model.observation.readout.bias
    spread = torch.einsum("ni,btij,nj->btn", loadings, posterior.covariance.double(), loadings)
    predictor = posterior.mean.double() @ loadings.mT + bias
    rates = (predictor + spread / 2).exp().detach().numpy()
    truth = part.truth[..., heldout]
    expected = poisson.logpmf(truth, rates[..., heldout]).sum()
    mean = shown.truth[..., heldout].mean((0, 1), dtype=np.float64)
    assert found.log_likelihood == pytest.approx(expected, rel=1e-6)
    assert found.gain == pytest.approx(expected - poisson.logpmf(truth, mean).sum(), rel=1e-6)
    assert (found.spikes, found.entries) == (truth.sum(), truth.size)


def test_few_shot_readout_is_scikit_learns_on_the_same_trials(case):
    """With all trials for the shots every draw is the same, and there is one answer."""
    model, part, shown, null, heldout = case
    shots = len(shown.truth)
    found = k_shot_gain(model, part, shown, null, shots=shots, settings=SETTINGS)
    learned, new = (_factors(model, one, SETTINGS).reshape(-1, 2) for one in (shown, part))
    center, unit = learned.mean(0), learned.std(0)
    expected = 0.0
    for neuron in heldout:
        counts = shown.truth[..., neuron].ravel().astype(np.float64)
        solver = PoissonRegressor(alpha=K_SHOT_PENALTY / len(counts), tol=1e-8, max_iter=1000)
        rates = solver.fit((learned - center) / unit, counts).predict((new - center) / unit)
        rates = np.clip(rates, max(counts.min(), 1e-9), counts.max())
        truth = part.truth[..., neuron].ravel()
        null_rates = np.full(len(truth), counts.mean())
        expected += (poisson.logpmf(truth, rates) - poisson.logpmf(truth, null_rates)).sum()
    assert found == pytest.approx(expected, rel=2e-3)
    assert found > 0
