"""Generalised linear models with canonical link: Poisson, logistic and linear regression."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

DataKind: TypeAlias = Literal["counts", "real", "binary"]


def inside_support(
    mean: Float[np.ndarray, "*shape"], data_kind: DataKind
) -> Float[np.ndarray, "*shape"]:
    """Keep means where the likelihood of any data is finite."""
    if data_kind == "counts":
        return np.maximum(mean, 1e-9)
    return np.clip(mean, 1e-6, 1 - 1e-6) if data_kind == "binary" else mean


def log_partition(
    predictor: Float[np.ndarray, "*shape"], data_kind: DataKind
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """A(eta) of the exponential family and its derivative, the mean: exp, logistic, identity."""
    if data_kind == "counts":
        mean = np.exp(np.minimum(predictor, 50.0))
        return mean, mean
    if data_kind == "binary":
        normalizer = np.logaddexp(0.0, predictor)
        return normalizer, np.exp(predictor - normalizer)
    return 0.5 * predictor**2, predictor


def _link(mean: Float[np.ndarray, "*shape"], data_kind: DataKind) -> Float[np.ndarray, "*shape"]:
    """Predictor eta of a mean: log, logit or identity."""
    if data_kind == "counts":
        return np.log(mean)
    return np.log(mean / (1 - mean)) if data_kind == "binary" else mean


def log_likelihood(
    target: Float[np.ndarray, "trial time neuron"],
    mean: Float[np.ndarray, "trial time neuron"],
    *,
    unit: Float[np.ndarray, " neuron"],
    data_kind: DataKind,
) -> float:
    """Sum over present entries, up to terms without ``mean``; real data have std ``unit``."""
    if data_kind == "counts":
        terms = target * np.log(mean) - mean
    elif data_kind == "binary":
        terms = target * np.log(mean) + (1 - target) * np.log1p(-mean)
    else:
        terms = -0.5 * ((target - mean) / unit) ** 2
    return float(np.nansum(terms))


def regress(
    features: Float[np.ndarray, "sample feature"],
    targets: Float[np.ndarray, "sample output"],
    *,
    penalty: float,
    data_kind: DataKind,
    start: Float[np.ndarray, "feature_and_one output"] | None = None,
) -> Float[np.ndarray, "feature_and_one output"]:
    """Ridge-penalised maximum likelihood of a GLM with canonical link, for all outputs at once.

    Minimises ``sum [A(eta) - y eta] + penalty/2 |w|^2`` over the present y, ``eta = x . w + b``,
    in coordinates in which the curvature is about one in every direction.

    Args:
        features: x.
        targets: y, NaN = missing.
        penalty: of w; b has none.
        data_kind: "counts" (Poisson), "binary" (logistic) or "real" (linear, unit variance).
        start: coefficients to begin at, such as those at a nearby penalty; None: the mean.

    Returns:
        w, and b in the last row.
    """
    from scipy.optimize import minimize

    design = np.column_stack([features, np.ones(len(features))])
    present = np.isfinite(targets)
    observed = np.where(present, targets, 0.0)
    mean = observed.sum(0) / np.maximum(present.sum(0), 1)
    mean = inside_support(mean, data_kind)
    if start is None:
        start = np.zeros((design.shape[1], targets.shape[1]))
        start[-1] = _link(mean, data_kind)
    ridge = np.full((len(start), 1), penalty)
    ridge[-1] = 0.0
    variance = np.ones_like(mean) if data_kind == "real" else mean
    unit = 1.0 / np.sqrt((design**2).sum(0)[:, None] * variance + ridge)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients = flat.reshape(unit.shape) * unit
        predictor = design @ coefficients
        normalizer, expected = log_partition(predictor, data_kind)
        loss = (present * (normalizer - observed * predictor)).sum()
        loss += 0.5 * (ridge * coefficients**2).sum()
        gradient = design.T @ (present * (expected - observed)) + ridge * coefficients
        return loss, (gradient * unit).ravel()

    fitted = minimize(
        objective,
        (start / unit).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 300, "ftol": 1e-8, "gtol": 1e-2},
    )
    return fitted.x.reshape(unit.shape) * unit
