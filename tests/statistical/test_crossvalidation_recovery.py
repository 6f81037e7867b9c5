"""Cross-validation finds the rank that is there, and fails where theory says it must."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.linalg import expm

from seqvae import EM, NeuralData, crossvalidate
from seqvae.data.sources import Arrays, SimulatedLinearDynamics
from seqvae.learning import SwitchingEM
from seqvae.models import LinearDynamics, SwitchingLinearDynamics
from seqvae.observations import Gaussian

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*largest of the grid"),
    pytest.mark.filterwarnings("ignore:rows:"),
]


def chosen(activity, tmp_path, **settings) -> int:
    data = NeuralData(Arrays(activity.astype(np.float32), bin_width=0.02))
    found = crossvalidate(data, out_dir=str(tmp_path / "cv"), progress=False, **settings)
    (name,) = found.summary["models"]
    return found.chosen_dim(name)


def rank_four(seed, *, unequal=False):
    """500 x 60, the weakest component at twice the detection edge (n p)^(1/4)."""
    generator = np.random.default_rng(seed)
    left = np.linalg.qr(generator.normal(size=(500, 4)))[0]
    right = np.linalg.qr(generator.normal(size=(60, 4)))[0]
    strength = np.linspace(2.0, 4.0, 4) * (500 * 60) ** 0.25
    std = np.exp(generator.uniform(-0.7, 0.7, size=60)) if unequal else np.ones(60)
    std = std / np.sqrt((std**2).mean())
    noise = generator.normal(size=(500, 60)) * std
    return ((left * strength) @ right.T + noise)[:, None]


def autoregression(seed, shape, memory=0.9):
    noise = np.random.default_rng(seed).normal(size=(shape[0] + 100, shape[1]))
    for t in range(1, len(noise)):
        noise[t] = memory * noise[t - 1] + np.sqrt(1 - memory**2) * noise[t]
    return noise[100:]


@pytest.mark.parametrize("unequal", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_gabriel_finds_the_rank_of_a_gaussian_matrix(seed, unequal, tmp_path):
    activity = rank_four(seed, unequal=unequal)
    dims = list(range(1, 9))
    found = chosen(activity, tmp_path, dims=dims, scheme="gabriel", neuron_folds=5)
    assert found == 4


def test_speckled_entries_find_the_rank_of_a_gaussian_matrix(tmp_path):
    found = chosen(
        rank_four(0), tmp_path, scheme="speckled", dims=[2, 3, 4, 5, 6],
        models={"fa": partial(LinearDynamics, observation=Gaussian)},
        learners={"fa": EM(max_iterations=30)},
    )  # fmt: skip
    assert found == 4


def test_poisson_factor_analysis_finds_the_rank_of_the_log_rates(tmp_path):
    generator = np.random.default_rng(0)
    latents, loadings = generator.normal(size=(500, 5)), 0.4 * generator.normal(size=(60, 5))
    counts = generator.poisson(np.exp(latents @ loadings.T + 0.2))[:, None]
    found = chosen(
        counts, tmp_path, dims=[3, 4, 5, 6], models={"pfa": LinearDynamics}, neuron_folds=5,
        learners={"pfa": EM(max_iterations=20)},
    )  # fmt: skip
    assert found == 5


def test_fold_in_finds_the_latents_of_linear_dynamics(tmp_path):
    generator = np.random.default_rng(0)
    skew = 0.2 * generator.normal(size=(3, 3)) / 3**0.5
    transition = 0.97 * expm(skew - skew.T)
    loadings = 0.8 * generator.normal(size=(40, 3)) / 3**0.5
    latents = generator.normal(size=(40, 100, 3))
    for t in range(1, 100):
        noise = np.sqrt(1 - 0.97**2) * latents[:, t]
        latents[:, t] = latents[:, t - 1] @ transition.T + noise
    log_rates = latents @ loadings.T - 1.4 - 0.5 * (loadings**2).sum(1)
    found = chosen(
        generator.poisson(np.exp(log_rates)), tmp_path, dims=[1, 2, 3, 4, 5], trial_folds=4,
        models={"plds": LinearDynamics}, learners={"plds": EM(max_iterations=8)}, num_samples=20,
    )  # fmt: skip
    assert found == 3


@pytest.mark.parametrize("seed", range(3))
def test_random_rows_of_noise_with_memory_fail_and_blocks_do_not(seed, tmp_path):
    noise = autoregression(seed, (600, 30))[None]
    settings = {"dims": list(range(1, 11)), "scheme": "gabriel", "neuron_folds": 5}
    assert chosen(noise, tmp_path / "random", rows="random", **settings) == 10
    assert chosen(noise, tmp_path / "blocks", rows="blocks", **settings) <= 5


@pytest.mark.parametrize("seed", [0, 1])
def test_true_number_of_switching_states_is_chosen(seed, tmp_path):
    source = SimulatedLinearDynamics(
        num_states=2, latent_dim=2, observation="gaussian", num_trials=30, num_val=0,
        num_time_bins=40, num_neurons=10, num_heldout=0, seed=seed,
    )  # fmt: skip
    found = crossvalidate(
        NeuralData(source),
        models={"slds": partial(SwitchingLinearDynamics, latent_dim=2, observation=Gaussian)},
        learners={
            "slds": SwitchingEM(max_iterations=6, linear_iterations=6, num_starts=2, progress=False)
        },
        dims=[1, 2, 3],
        sweep="num_states",
        trial_folds=3,
        neuron_folds=2,
        num_samples=2,
        progress=False,
        out_dir=str(tmp_path / "cv"),
    )
    assert found.chosen_dim("slds") == 2
