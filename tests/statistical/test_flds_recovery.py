"""fLDS learned from simulations: held to the exact evidence, and to the linear model."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from pytorch_lightning import Trainer

from linear import random_dynamics, random_emission, simulate
from seqvae import evaluate, fit
from seqvae.data import NeuralData
from seqvae.data.sources import Arrays, Lorenz
from seqvae.encoders import InformationMLP
from seqvae.learning import EM, GradientLearner
from seqvae.models import FLDS, LinearDynamics
from seqvae.models.linear_readout import emission_of
from seqvae.objectives import bound, importance_weighted_bound
from seqvae.observations import Gaussian
from seqvae.state_space import LinearStateSpace
from seqvae.types import Batch

pytestmark = pytest.mark.slow


def learner(max_epochs: int) -> GradientLearner:
    trainer = partial(Trainer, max_epochs=max_epochs, check_val_every_n_epoch=2, accelerator="cpu")
    return GradientLearner(trainer, progress=False)


def as_linear(model: FLDS) -> LinearDynamics:
    """The linear model with the parameters of a linear FLDS."""
    twin = LinearDynamics(model.spec, latent_dim=model.latent_dim, observation=Gaussian)
    emission = emission_of(copy.deepcopy(model.observation).double())
    twin.take(LinearStateSpace(model.dynamics, emission))
    return twin.eval()


def evidence(model: LinearDynamics, batch: Batch) -> float:
    """Exact log p(x) of all trials: with the exact posterior every draw has this weight."""
    return float(importance_weighted_bound(model(batch), batch).sum())


@pytest.mark.parametrize("hidden_dims", [(), (64, 64)], ids=["linear", "network"])
def test_a_linear_gaussian_flds_comes_to_the_exact_evidence_and_not_above(tmp_path, hidden_dims):
    truth = LinearStateSpace(random_dynamics(3), random_emission("gaussian", 3, num_neurons=20))
    simulated = simulate(truth, num_trials=125, num_bins=50)
    data = NeuralData(Arrays(simulated.target.numpy(), 0.02), val_fraction=0.2, batch_size=20)
    data.setup()
    test = data.batch(data.trials("val"))
    model = partial(
        FLDS,
        latent_dim=3,
        decoder_dims=(),
        encoder=partial(InformationMLP, hidden_dims=hidden_dims),
        observation=Gaussian,
    )
    run = fit(data, model, learner(60), run_dir=str(tmp_path / "flds"))
    flds = run.model()
    with torch.no_grad():
        draws = torch.stack([bound(flds(test, 20), test).elbo().sum() for _ in range(10)])
        own = evidence(as_linear(flds), test)
    elbo, error = float(draws.mean()), float(draws.std()) / len(draws) ** 0.5
    linear = partial(LinearDynamics, latent_dim=3, observation=Gaussian)
    best = fit(data, linear, EM(progress=False), run_dir=str(tmp_path / "lds")).model()
    exact = evidence(best, test)
    null = torch.distributions.Normal(data.train_mean, data.train_std)
    mean_rate = float(null.log_prob(test.target).sum())
    assert elbo < own + 4 * error
    assert own - elbo < 0.01 * (own - mean_rate)
    assert exact - elbo < 0.01 * (exact - mean_rate)


def test_a_nonlinear_readout_beats_the_linear_one_on_lorenz(tmp_path):
    data = NeuralData(Lorenz(num_trials=120, num_val=30), batch_size=30)
    runs = (
        fit(data, partial(LinearDynamics, latent_dim=3), EM(max_iterations=30, progress=False),
            run_dir=str(tmp_path / "lds")),
        fit(data, partial(FLDS, latent_dim=3), learner(40), run_dir=str(tmp_path / "flds")),
    )  # fmt: skip
    linear, nonlinear = (evaluate(run) for run in runs)
    assert nonlinear["co_bps"] > linear["co_bps"] + 0.02
    assert nonlinear["elbo"] > linear["elbo"]
    assert nonlinear["rates_r2"] > linear["rates_r2"] + 0.05
