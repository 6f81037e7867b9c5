from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from seqvae.data.sources import LimitCycle, Lorenz, SimulatedLinearDynamics
from seqvae.distributions.kinds import Counts
from seqvae.errors import InputError

SIZES = {"num_trials": 12, "num_val": 3, "num_neurons": 6, "num_heldout": 2}


def lorenz(_, z):
    x, y, w = z
    return [10 * (y - x), x * (28 - w) - y, x * y - 8 / 3 * w]


def hopf(_, z):
    x, y = z
    inward = 0.4 * (1 - x**2 - y**2)
    return [inward * x - y, inward * y + x]


def path_of(source):
    """States at the beginnings of the bins, in float64 and their own units."""
    return source._path(source._begin(np.random.default_rng(0)))


@pytest.mark.parametrize(
    ("source", "velocity"),
    [
        (Lorenz(**SIZES, num_time_bins=15, bin_width=0.02), lorenz),
        (LimitCycle(**SIZES, num_time_bins=40, bin_width=0.03, attraction=0.4), hopf),
    ],
    ids=["lorenz", "limit_cycle"],
)
def test_paths_are_those_of_an_integrator_of_adaptive_steps(source, velocity):
    path = path_of(source)
    time = source.speed * source.bin_width * np.arange(source.num_time_bins)
    for trial in path:
        truth = solve_ivp(velocity, time[[0, -1]], trial[0], t_eval=time, rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(trial, truth.y.T, atol=1e-4)


def test_a_limit_cycle_is_the_normal_form_in_closed_form():
    """r^-2 - 1 falls by exp(-2 attraction t), and the phase grows as time does."""
    source = LimitCycle(**SIZES, num_time_bins=60, bin_width=0.02, speed=9.0, attraction=0.3)
    path = path_of(source)
    time = 9.0 * 0.02 * np.arange(60)
    radius, phase = np.linalg.norm(path, axis=2), np.unwrap(np.arctan2(path[..., 1], path[..., 0]))
    gap = (radius[:, :1] ** -2.0 - 1) * np.exp(-2 * 0.3 * time)
    np.testing.assert_allclose(radius, (1 + gap) ** -0.5, rtol=1e-8)
    np.testing.assert_allclose(phase - phase[:, :1], np.broadcast_to(time, (12, 60)), atol=1e-8)


def test_a_limit_cycle_is_reached_from_both_sides_and_not_left():
    path = path_of(LimitCycle(**SIZES, num_time_bins=200, attraction=0.5))
    radius = np.linalg.norm(path, axis=2)
    assert radius[:, 0].min() < 0.7
    assert radius[:, 0].max() > 1.3
    np.testing.assert_allclose(radius[:, -30:], 1.0, atol=1e-3)


def test_counts_follow_rates_that_are_log_linear_in_the_plane():
    recording = LimitCycle(num_trials=400, num_val=50).load()
    z = recording.behavior.reshape(-1, 2).astype(float)
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(z.std(0), 1, atol=1e-4)
    design = np.column_stack([z, np.ones(len(z))])
    log_rates = np.log(recording.rates).reshape(len(z), -1)
    residual = np.linalg.lstsq(design, log_rates, rcond=None)[1]
    assert (residual / len(z) < 1e-6).all()
    mean = recording.rates * recording.bin_width
    np.testing.assert_allclose(mean.mean(), 0.25, rtol=1e-5)
    chi = ((recording.activity - mean) ** 2 / mean).mean(axis=(0, 1))
    np.testing.assert_allclose(chi, 1, atol=0.1)
    Counts().check(recording.activity)


def test_no_two_trials_begin_alike():
    begin = LimitCycle(num_trials=200).load().behavior[:, 0]
    assert len(np.unique(begin, axis=0)) == 200


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"attraction": -0.1}, "attraction must be from 0 to 100, got -0.1"),
        ({"attraction": float("nan")}, "attraction must be from 0 to 100, got nan"),
        ({"speed": 0.0}, "speed must be above 0"),
        ({"num_test": 150}, "must leave some of the 200 trials"),
        ({"num_time_bins": 10**8}, "the integration takes"),
    ],
)
def test_a_limit_cycle_refuses_what_cannot_be(options, sentence):
    with pytest.raises(InputError, match=sentence):
        LimitCycle(**options)


@pytest.mark.parametrize("source", [Lorenz, LimitCycle, SimulatedLinearDynamics])
@pytest.mark.parametrize("width", [float("nan"), float("inf"), 0.0])
def test_a_width_that_is_none_is_refused(source, width):
    with pytest.raises(InputError, match="bin_width must be above 0"):
        source(bin_width=width)
