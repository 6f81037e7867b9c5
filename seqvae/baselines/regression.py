"""Generalised linear models with canonical link: Poisson, logistic and linear regression."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from seqvae.distributions.kinds import DataKind

ROWS = 2048
"""Samples at a time, so that what is made of them stays in the cache."""


def regress(
    features: Float[np.ndarray, "sample feature"],
    targets: Float[np.ndarray, "sample output"],
    *,
    penalty: float,
    kind: DataKind,
    start: Float[np.ndarray, "feature_and_one output"] | None = None,
) -> Float[np.ndarray, "feature_and_one output"]:
    """Ridge-penalised maximum likelihood of a GLM with canonical link, for all outputs at once.

    Minimises ``sum [A(eta) - y eta] + penalty/2 |w|^2`` over the present y, ``eta = x . w + b``,
    in coordinates in which the curvature is about one in every direction.

    Args:
        features: x.
        targets: y, NaN = missing.
        penalty: of w; b has none.
        kind: of the targets; of real ones the variance is 1.
        start: coefficients to begin at, such as those at a nearby penalty; None: the mean.

    Returns:
        w, and b in the last row.
    """
    from scipy.optimize import minimize

    design = np.column_stack([features, np.ones(len(features))])
    present = np.isfinite(targets)
    observed = np.where(present, targets, 0.0)
    mean = observed.sum(0) / np.maximum(present.sum(0), 1)
    mean = kind.inside_support(mean)
    if start is None:
        start = np.zeros((design.shape[1], targets.shape[1]))
        start[-1] = kind.link(mean)
    ridge = np.full((len(start), 1), penalty)
    ridge[-1] = 0.0
    variance = kind.variance(mean)
    unit = 1.0 / np.sqrt((design**2).sum(0)[:, None] * variance + ridge)

    moments = design.T @ observed
    blocks = [slice(i, i + ROWS) for i in range(0, len(design), ROWS)]
    missing = None if present.all() else ~present

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients = flat.reshape(unit.shape) * unit
        loss = 0.5 * (ridge * coefficients**2).sum() - (moments * coefficients).sum()
        gradient = ridge * coefficients - moments
        for rows in blocks:
            normalizer, expected = kind.log_partition(design[rows] @ coefficients)
            if missing is not None:
                normalizer = np.where(missing[rows], 0.0, normalizer)
                expected = np.where(missing[rows], 0.0, expected)
            loss += normalizer.sum()
            gradient += design[rows].T @ expected
        return loss, (gradient * unit).ravel()

    fitted = minimize(
        objective,
        (start / unit).ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 300, "ftol": 1e-8, "gtol": 1e-2},
    )
    return fitted.x.reshape(unit.shape) * unit
