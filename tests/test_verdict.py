"""The verdict of an audit names planted faults, and holds its rate of false alarms."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from linear import random_dynamics, random_emission
from seqvae.analysis.audit import Departure, Verdict, judge, simulation_based_calibration
from seqvae.analysis.audit.departures import departures_of_draws, departures_of_ranks, hotelling
from seqvae.analysis.audit.verdict import LEVEL
from seqvae.distributions import GaussianMarkovChain
from seqvae.linalg import BlockTridiagonal
from seqvae.models import LinearDynamics
from seqvae.observations import Gaussian
from seqvae.state_space import LinearStateSpace
from seqvae.types import Batch, DataSpec, Output


def scaled(variance):
    def change(latent):
        diagonal, lower = latent.posterior.precision.diagonal, latent.posterior.precision.lower
        precision = BlockTridiagonal(diagonal / variance, lower / variance)
        return GaussianMarkovChain(latent.posterior.mean, precision, validate_args=False)

    return change


def shifted(latent):
    mean = latent.posterior.mean + 0.3 * latent.posterior.variance.sqrt()
    return GaussianMarkovChain(mean, latent.posterior.precision, validate_args=False)


FAULTS = {
    "narrow": scaled(0.8),
    "wide": scaled(1.25),
    "mean": shifted,
    "dependence": lambda latent: Normal(latent.posterior.mean, latent.posterior.variance.sqrt()),
    "exact": lambda latent: latent.posterior,
    "prior": lambda latent: latent.prior,
}


class Faulty(LinearDynamics):
    """Its exact posterior is changed."""

    fault = "exact"

    def forward(self, batch: Batch, num_samples: int = 1) -> Output:
        (latent,) = super().forward(batch, num_samples).latents.values()
        posterior = FAULTS[self.fault](latent)
        sample = posterior.rsample(torch.Size((num_samples,)))
        latents = {"latents": latent._replace(posterior=posterior, sample=sample)}
        return Output(latents, sample, self.observation(sample))


@cache
def verdict(fault: str, seed: int) -> Verdict:
    spec = DataSpec(tuple(range(6)), 6, 0, 10, 10, 0.02)
    model = Faulty(spec, latent_dim=2, observation=Gaussian)
    emission = random_emission("gaussian", 2, num_neurons=6, seed=seed + 1000)
    model.take(LinearStateSpace(random_dynamics(2, seed=seed), emission))
    model.null_counts.fill_(1.0)
    model.fault = fault
    calibrations = simulation_based_calibration(model, seed=seed + 10)
    return judge(
        {"simulated trials": [d for each in calibrations.values() for d in each.departures]}
    )


@pytest.mark.parametrize("seed", range(2))
def test_an_exact_posterior_raises_no_alarm(seed):
    told = verdict("exact", seed)
    assert told.alarms == ()
    assert told.num_tests == 6
    assert told.sentence == (
        "verdict: no fault was seen (6 tests; 1% chance of a false alarm in any)"
    )


@pytest.mark.parametrize("fault", ["narrow", "wide", "mean", "dependence"])
def test_the_fault_of_a_posterior_is_named(fault):
    told = verdict(fault, 0)
    assert told.faults == [fault]
    assert "the posterior is not the true one" in told.sentence


def test_sizes_and_their_errors_are_told():
    (alarm, *_) = [each for each in verdict("mean", 0).alarms if each.departure.kind == "entries"]
    assert alarm.departure.size == pytest.approx(0.3, abs=3 * alarm.departure.error)
    assert alarm.departure.sentence.startswith("latents, dimension ")
    assert " too high by 0." in alarm.departure.sentence
    ratios = [
        each.departure for each in verdict("narrow", 0).alarms
        if each.departure.aspect == "variance" and each.departure.kind == "entries"
    ]  # fmt: skip
    assert ratios[0].size == pytest.approx(0.8, abs=4 * ratios[0].error)


def test_the_prior_in_place_of_the_posterior_is_seen_in_what_knows_the_data():
    told = verdict("prior", 0)
    assert {alarm.departure.kind for alarm in told.alarms} == {"density"}


def uniform_ranks(rng, shape, *, num_draws=19):
    return rng.integers(0, num_draws + 1, shape)


@pytest.mark.parametrize("shape", [(60,), (60, 3), (60, 4, 2)])
def test_p_values_of_uniform_ranks_are_not_too_small(shape):
    rng = np.random.default_rng(0)
    p_values = np.array([
        [each.p_value for each in
         departures_of_ranks(uniform_ranks(rng, shape), 19, quantity="z", kind="entries")]
        for _ in range(300)
    ])  # fmt: skip
    assert ((p_values < 0.1).mean(0) < 0.1 + 3 * (0.09 / 300) ** 0.5).all()
    assert ((p_values < 0.1).mean(0) > 0.03).all()


def test_p_values_of_dependent_draws_are_not_too_small():
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(200):
        chains = rng.standard_normal((2, 400))
        for step in range(1, 400):
            chains[:, step] = 0.5 * chains[:, step - 1] + 0.75**0.5 * chains[:, step]
        ours = rng.standard_normal(1000)
        found = departures_of_draws(ours, chains, quantity="z", kind="density")
        p_values.append([each.p_value for each in found])
    rates = (np.array(p_values) < 0.1).mean(0)
    assert (rates < 0.1 + 3 * (0.09 / 200) ** 0.5).all()


def test_draws_of_another_mean_or_variance_depart():
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((2, 500, 6, 2))
    ours = rng.standard_normal((2000, 6, 2)) * 0.8**0.5
    ours[:, 3, 1] += 0.3
    mean, variance = departures_of_draws(ours, reference, quantity="z", kind="entries")
    assert mean.quantity == "z, dimension 2"
    assert mean.p_value < 1e-3
    assert mean.size == pytest.approx(0.3, abs=4 * mean.error)
    assert variance.p_value < 1e-3
    assert variance.size == pytest.approx(0.8, abs=4 * variance.error)


def test_truths_beyond_all_draws_are_no_chance():
    for rank in (0, 99):
        mean, _ = departures_of_ranks(np.full(40, rank), 99, quantity="z", kind="density")
        assert mean.p_value < 1e-9
        assert (mean.size > 0) == (rank == 0)
    last = np.zeros((40, 10))
    last[:, -1] = 1.0
    assert hotelling(last[:, :9], (last.mean(0) - 0.1)[:9]) == 0.0


def test_a_verdict_holds_its_rate_over_many_tests():
    rng = np.random.default_rng(0)

    def departures(p_values):
        return [Departure("z", "entries", "mean", 1.0, 0.1, p) for p in p_values]

    alarms = [bool(judge({"here": departures(rng.random(40))}).alarms) for _ in range(2000)]
    assert np.mean(alarms) == pytest.approx(LEVEL, abs=3 * (LEVEL / 2000) ** 0.5)
    corrected = judge({"here": departures([1e-5, 0.004, 0.5, 0.003])}).alarms
    assert [alarm.p_value for alarm in corrected] == pytest.approx([4e-5, 9e-3, 9e-3])
    assert judge({}).sentence == "verdict: nothing could be tested"
