from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from seqvae.baselines.regression import log_partition, regress


def problem(data_kind):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(400, 3)) * [1.0, 0.1, 5.0]
    predictor = features @ (rng.normal(size=(3, 2)) / [[1.0], [0.1], [5.0]]) - 0.5
    if data_kind == "counts":
        return features, rng.poisson(np.exp(predictor)).astype(float)
    if data_kind == "binary":
        return features, (rng.uniform(size=predictor.shape) < expit(predictor)).astype(float)
    return features, predictor + rng.normal(size=predictor.shape)


@pytest.mark.parametrize("data_kind", ["counts", "binary", "real"])
def test_regression_agrees_with_scikit_learn(data_kind):
    from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge

    features, targets = problem(data_kind)
    penalty = 7.0
    peers = {
        "counts": PoissonRegressor(alpha=penalty / len(features), tol=1e-10, max_iter=1000),
        "binary": LogisticRegression(C=1 / penalty, tol=1e-10, max_iter=1000),
        "real": Ridge(alpha=penalty),
    }
    found = regress(features, targets, penalty=penalty, data_kind=data_kind)
    for output in range(targets.shape[1]):
        peer = peers[data_kind].fit(features, targets[:, output])
        expected = np.append(peer.coef_.ravel(), peer.intercept_)
        np.testing.assert_allclose(found[:, output], expected, rtol=5e-3, atol=2e-3)


@pytest.mark.parametrize("data_kind", ["counts", "binary", "real"])
def test_missing_targets_are_left_out(data_kind):
    features, targets = problem(data_kind)
    gaps = targets.copy()
    gaps[300:, 0] = np.nan
    found = regress(features, gaps, penalty=1.0, data_kind=data_kind)
    fewer = regress(features[:300], targets[:300], penalty=1.0, data_kind=data_kind)
    np.testing.assert_allclose(found[:, 0], fewer[:, 0], atol=5e-3)


@pytest.mark.parametrize("data_kind", ["counts", "binary", "real"])
def test_strong_penalty_leaves_the_mean(data_kind):
    features, targets = problem(data_kind)
    found = regress(features, targets, penalty=1e9, data_kind=data_kind)
    answered = log_partition(found[-1], data_kind)[1]
    np.testing.assert_allclose(answered, targets.mean(0), rtol=1e-3)
    np.testing.assert_allclose(found[:-1], 0.0, atol=1e-4)


@pytest.mark.parametrize("data_kind", ["counts", "binary", "real"])
def test_mean_is_the_slope_of_the_log_partition(data_kind):
    eta, step = np.linspace(-5, 5, 21), 1e-6
    slope = log_partition(eta + step, data_kind)[0] - log_partition(eta - step, data_kind)[0]
    np.testing.assert_allclose(
        log_partition(eta, data_kind)[1], slope / (2 * step), rtol=1e-5, atol=1e-8
    )


def test_an_output_that_never_fires_is_answered_near_zero():
    features, targets = problem("counts")
    targets[:, 1] = 0.0
    found = regress(features, targets, penalty=1.0, data_kind="counts")
    assert np.exp(features @ found[:-1, 1] + found[-1, 1]).max() < 1e-3
