from __future__ import annotations

import numpy as np
import pytest

from seqvae.data.sources import SimulatedLinearDynamics
from seqvae.errors import InputError


@pytest.mark.parametrize(("num_states", "latent_dim"), [(1, 2), (1, 3), (2, 2), (3, 4), (2, 1)])
def test_paths_follow_the_dynamics_of_their_states(num_states, latent_dim):
    source = SimulatedLinearDynamics(
        num_states=num_states, latent_dim=latent_dim, num_trials=400, num_val=100
    )
    truth = source.simulate()
    assert truth.latents.shape == (400, 100, latent_dim)
    assert set(np.unique(truth.states)) == set(range(num_states))
    for k in range(num_states):
        trial, time = np.nonzero(truth.states[:, 1:] == k)
        before, after = truth.latents[trial, time], truth.latents[trial, time + 1]
        found = np.linalg.lstsq(before, after, rcond=None)[0].T
        np.testing.assert_allclose(found, truth.transition[k], atol=0.01)
        left = np.cov((after - before @ truth.transition[k].T).T).reshape(latent_dim, latent_dim)
        np.testing.assert_allclose(left, truth.noise_covariance, atol=0.003)
    stays = (truth.states[:, 1:] == truth.states[:, :-1]).mean()
    assert stays == pytest.approx(0.98 if num_states > 1 else 1.0, abs=0.005)


def test_angles_and_radius_are_as_asked():
    transition = SimulatedLinearDynamics(num_states=2).simulate().transition
    values = np.linalg.eigvals(transition)
    np.testing.assert_allclose(np.abs(values), 0.98)
    np.testing.assert_allclose(np.abs(np.angle(values)), [[0.35, 0.35], [0.1, 0.1]])


@pytest.mark.parametrize("drive_std", [0.1, 0.2])
def test_counts_have_the_true_rates(drive_std):
    source = SimulatedLinearDynamics(
        num_states=2, num_trials=400, num_val=100, predictor_std=0.7, drive_std=drive_std
    )
    truth = source.simulate()
    recording = truth.recording
    expected = np.exp(truth.latents @ truth.loadings.T + truth.bias)
    np.testing.assert_allclose(recording.rates, expected / 0.02, rtol=1e-5)
    np.testing.assert_allclose(recording.behavior, truth.latents, rtol=1e-5)
    counts = recording.activity.mean((0, 1))
    np.testing.assert_allclose(counts, expected.mean((0, 1)), rtol=0.05)
    assert np.exp(np.log(counts).mean()) == pytest.approx(0.3, rel=0.15)
    assert (recording.split == "val").sum() == 100
    assert len(recording.heldin) == 34


def test_real_values_have_the_noise_that_was_asked_for():
    truth = SimulatedLinearDynamics(observation="gaussian", noise_std=0.5).simulate()
    recording = truth.recording
    assert recording.rates is None
    residual = recording.activity - truth.latents @ truth.loadings.T - truth.bias
    assert residual.std() == pytest.approx(0.5, rel=0.01)


def test_the_seed_decides_the_recording():
    one = SimulatedLinearDynamics(num_states=2, num_trials=10, num_val=2)
    assert one.load().checksum == one.simulate().recording.checksum
    other = SimulatedLinearDynamics(num_states=2, num_trials=10, num_val=2, seed=1)
    assert one.load().checksum != other.load().checksum


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"num_states": 0}, "num_states must be at least 1, got 0"),
        ({"mean_count": 0.0}, "mean_count must be above 0"),
        ({"radius": 1.0}, "radius must be at least 0 and below 1, got 1"),
        ({"stay": 1.5}, "stay must be from 0 to 1, got 1.5"),
        ({"num_val": 100}, "must leave some of the 100 trials"),
        ({"num_heldout": 45}, "num_heldout must be from 0 to 44, got 45"),
    ],
)
def test_bad_settings_are_refused(options, told):
    with pytest.raises(InputError, match=told):
        SimulatedLinearDynamics(**options)
