"""How well behaviour can be read linearly from factors."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

_PENALTIES = 10.0 ** np.arange(-3, 7)


def behavior_r2(
    factors_train: Float[np.ndarray, "train_trial time factor"],
    behavior_train: Float[np.ndarray, "train_trial time dimension"],
    *,
    factors_test: Float[np.ndarray, "test_trial test_time factor"],
    behavior_test: Float[np.ndarray, "test_trial test_time dimension"],
) -> Float[np.ndarray, " dimension"]:
    """Coefficient of determination of ridge regression from factors to behaviour, per dimension.

    ``R2_d = 1 - sum (y_d - predicted_d)^2 / sum (y_d - mean y_d)^2`` over all present bins of the
    test trials. Each dimension has its own ridge penalty, chosen by cross-validation over whole
    training trials, because neighbouring bins of one trial predict each other.

    Args:
        factors_train: factors of the training trials; a bin with a NaN is left out.
        behavior_train: behaviour in the same bins; a NaN is left out.
        factors_test: factors of the trials to score.
        behavior_test: behaviour to predict.

    Returns:
        R2 of each dimension; NaN where there is nothing to learn from or to explain (fewer than
        two training trials, or constant test behaviour).
    """
    scores = [
        _r2(factors_train, behavior_train[..., d], factors_test, behavior_test[..., d])
        for d in range(behavior_train.shape[-1])
    ]
    return np.array(scores, dtype=np.float64)


def decoded_behavior(
    factors_train: Float[np.ndarray, "train_trial time factor"],
    behavior_train: Float[np.ndarray, "train_trial time dimension"],
    *,
    factors_test: Float[np.ndarray, "test_trial test_time factor"],
) -> Float[np.ndarray, "test_trial test_time dimension"]:
    """Behaviour as ridge regression reads it from factors; see ``behavior_r2``.

    Returns:
        NaN where factors are, and in dimensions that fewer than two training trials know.
    """
    decoded = np.full((*factors_test.shape[:2], behavior_train.shape[-1]), np.nan)
    test = np.isfinite(factors_test).all(-1)
    for d in range(behavior_train.shape[-1]):
        decoder = _decoder(factors_train, behavior_train[..., d])
        if decoder is not None:
            decoded[test, d] = decoder.predict(factors_test[test])
    return decoded


def _r2(
    factors_train: Float[np.ndarray, "train_trial time factor"],
    target_train: Float[np.ndarray, "train_trial time"],
    factors_test: Float[np.ndarray, "test_trial test_time factor"],
    target_test: Float[np.ndarray, "test_trial test_time"],
) -> float:
    """R2 of one behavioural dimension."""
    test = np.isfinite(factors_test).all(-1) & np.isfinite(target_test)
    total = np.sum((target_test[test] - target_test[test].mean()) ** 2) if test.any() else 0.0
    decoder = _decoder(factors_train, target_train) if total != 0.0 else None
    if decoder is None:
        return float("nan")
    residual = target_test[test] - decoder.predict(factors_test[test])
    return float(1.0 - np.sum(residual**2) / total)


def _decoder(
    factors_train: Float[np.ndarray, "train_trial time factor"],
    target_train: Float[np.ndarray, "train_trial time"],
) -> Any:
    """Ridge regression of one behavioural dimension; None for fewer than two training trials."""
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train = np.isfinite(factors_train).all(-1) & np.isfinite(target_train)
    trial = np.nonzero(train)[0]
    num_folds = min(5, len(np.unique(trial)))
    if num_folds < 2:
        return None
    folds = list(GroupKFold(num_folds).split(trial, groups=trial))
    decoder = make_pipeline(StandardScaler(), RidgeCV(_PENALTIES, cv=folds))
    # In double precision: factors may be nearly collinear.
    return decoder.fit(factors_train[train].astype(np.float64), target_train[train])
