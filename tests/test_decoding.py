from __future__ import annotations

import numpy as np

from seqvae.scores.decoding import behavior_r2, decoded_behavior


def trials(num_trials, *, seed, noise=0.0):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(num_trials, 20, 4)) * [1.0, 100.0, 0.01, 1.0]
    weights = np.random.default_rng(9).normal(size=(4, 2)) / [[1.0], [100.0], [0.01], [1.0]]
    behavior = factors @ weights + 3.0
    return factors, behavior + noise * behavior.std((0, 1)) * rng.normal(size=behavior.shape)


def score(train, test):
    return behavior_r2(*train, factors_test=test[0], behavior_test=test[1])


def test_linear_behavior_is_decoded_whatever_the_scales_of_the_factors():
    np.testing.assert_allclose(score(trials(20, seed=0), trials(10, seed=1)), 1.0, atol=1e-4)


def test_decoded_behavior_is_what_is_scored():
    train, (factors, behavior) = trials(50, seed=0, noise=1.0), trials(30, seed=1, noise=1.0)
    gaps = factors.copy()
    gaps[0, :5] = np.nan
    decoded = decoded_behavior(*train, factors_test=gaps)
    assert np.isnan(decoded[0, :5]).all()
    assert np.isfinite(decoded[1:]).all()
    there = np.isfinite(gaps).all(-1)
    true = behavior[there]
    r2 = 1 - ((true - decoded[there]) ** 2).sum(0) / ((true - true.mean(0)) ** 2).sum(0)
    np.testing.assert_allclose(r2, score(train, (gaps, behavior)), atol=1e-9)


def test_noise_bounds_r2_at_its_share_of_the_variance():
    r2 = score(trials(200, seed=0, noise=1.0), trials(200, seed=1, noise=1.0))
    np.testing.assert_allclose(r2, 0.5, atol=0.05)


def test_unrelated_behavior_scores_about_zero():
    factors, _ = trials(20, seed=0)
    unrelated = np.random.default_rng(5).normal(size=(20, 20, 2))
    r2 = behavior_r2(
        factors[:10], unrelated[:10], factors_test=factors[10:], behavior_test=unrelated[10:]
    )
    assert (np.abs(r2) < 0.1).all()


def test_missing_bins_are_left_out():
    (factors, behavior), test = trials(20, seed=0, noise=0.5), trials(10, seed=1, noise=0.5)
    gaps = behavior.copy()
    gaps[:, 15:] = np.nan
    holes = factors.copy()
    holes[:, 15:] = np.nan
    clean = score((factors[:, :15], behavior[:, :15]), test)
    np.testing.assert_allclose(score((factors, gaps), test), clean)
    np.testing.assert_allclose(score((holes, behavior), test), clean)


def test_constant_behavior_has_no_r2():
    train, (factors, behavior) = trials(20, seed=0), trials(10, seed=1)
    behavior = behavior.copy()
    behavior[..., 1] = 3.0
    r2 = score(train, (factors, behavior))
    assert np.isfinite(r2[0])
    assert np.isnan(r2[1])


def test_one_training_trial_is_too_few_to_choose_a_penalty():
    assert np.isnan(score(trials(1, seed=0), trials(5, seed=1))).all()


def test_of_many_training_bins_evenly_spread_trials_teach(monkeypatch):
    from seqvae import NeuralData
    from seqvae.analysis import decoded
    from seqvae.data.sources import Lorenz

    data = NeuralData(Lorenz(num_trials=40, num_val=8, num_test=0, num_time_bins=10))
    every = data.trials("train")
    assert list(decoded._some(data, "train")) == list(every)
    monkeypatch.setattr(decoded, "TEACHING_BINS", 160)  # of 320: half
    assert list(decoded._some(data, "train")) == list(every[::2])
    assert list(decoded._some(data, "val")) == list(data.trials("val"))
