from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from seqvae.baselines.regression import regress
from seqvae.distributions.kinds import Binary, Counts, Real

KINDS = [Counts(), Binary(), Real()]


def problem(kind):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 3)) * [1.0, 0.1, 5.0]
    predictor = features @ (rng.normal(size=(3, 2)) / [[1.0], [0.1], [5.0]]) - 0.5
    if kind == Counts():
        return features, rng.poisson(np.exp(predictor)).astype(float)
    if kind == Binary():
        return features, (rng.uniform(size=predictor.shape) < expit(predictor)).astype(float)
    return features, predictor + rng.normal(size=predictor.shape)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_regression_agrees_with_scikit_learn(kind):
    from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge

    features, targets = problem(kind)
    penalty = 7.0
    peers = {
        Counts(): PoissonRegressor(alpha=penalty / len(features), tol=1e-10, max_iter=1000),
        Binary(): LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=1000),
        Real(): Ridge(alpha=penalty),
    }
    found = regress(features, targets, penalty=penalty, kind=kind)
    for output in range(targets.shape[1]):
        peer = peers[kind].fit(features, targets[:, output])
        expected = np.append(peer.coef_.ravel(), peer.intercept_)
        np.testing.assert_allclose(found[:, output], expected, rtol=5e-3, atol=2e-3)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_missing_targets_are_left_out(kind):
    features, targets = problem(kind)
    gaps = targets.copy()
    gaps[300:, 0] = np.nan
    found = regress(features, gaps, penalty=1.0, kind=kind)
    fewer = regress(features[:300], targets[:300], penalty=1.0, kind=kind)
    np.testing.assert_allclose(found[:, 0], fewer[:, 0], atol=5e-3)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_strong_penalty_leaves_the_mean(kind):
    features, targets = problem(kind)
    found = regress(features, targets, penalty=1e9, kind=kind)
    answered = kind.log_partition(found[-1])[1]
    np.testing.assert_allclose(answered, targets.mean(0), rtol=1e-3)
    np.testing.assert_allclose(found[:-1], 0.0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_mean_is_the_slope_of_the_log_partition(kind):
    eta, step = np.linspace(-5, 5, 21), 1e-6
    slope = kind.log_partition(eta + step)[0] - kind.log_partition(eta - step)[0]
    np.testing.assert_allclose(kind.log_partition(eta)[1], slope / (2 * step), rtol=1e-5, atol=1e-8)


def test_an_output_that_never_fires_is_answered_near_zero():
    features, targets = problem(Counts())
    targets[:, 1] = 0.0
    found = regress(features, targets, penalty=1.0, kind=Counts())
    assert np.exp(features @ found[:-1, 1] + found[-1, 1]).max() < 1e-3
