"""The optimal hard threshold of singular values, by random matrix theory."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from seqvae.crossvalidation.panel.sign_flips import singular_values


class HardThreshold(NamedTuple):
    """How many singular values exceed the threshold, and the threshold."""

    dimension: int
    threshold: float


def hard_threshold(rows: Float[np.ndarray, "row column"]) -> HardThreshold:
    """Count singular values above omega(beta) times their median [Gavish & Donoho 2014].

    IEEE Trans. Inf. Theory 60:5040. Of a matrix of low rank in white noise of unknown variance, to
    set to zero what is below this threshold leaves the least squared error, as both sides grow and
    beta, the shorter over the longer, stays. It is made for denoising: a component that can be
    detected, but whose estimate is more noise than signal, is not counted.

    It assumes noise of the same variance in all entries, independent between them, and a rank so
    low that the median is noise. Neurons of unequal noise, noise that is slow in time, and a rank
    near half the number of neurons break that.

    Args:
        rows: the matrix, each column of mean 0.
    """
    values = singular_values(rows)
    beta = min(rows.shape) / max(rows.shape)
    threshold = omega(beta) * float(np.median(values))
    return HardThreshold(int((values > threshold).sum()), threshold)


def omega(beta: float) -> float:
    """Return the threshold over the median singular value, lambda(beta) / sqrt(mu(beta))."""
    return optimal_threshold(beta) / math.sqrt(marchenko_pastur_median(beta))


def optimal_threshold(beta: float) -> float:
    """Return the threshold where the noise is known, over sqrt(longer side) times its deviation.

    lambda(beta) = sqrt(2 (beta + 1) + 8 beta / (beta + 1 + sqrt(beta^2 + 14 beta + 1))), their
    equation (11); 4 / sqrt(3) for a square.
    """
    root = math.sqrt(beta**2 + 14 * beta + 1)
    return math.sqrt(2 * (beta + 1) + 8 * beta / (beta + 1 + root))


def marchenko_pastur_median(beta: float) -> float:
    """Return the median of the Marchenko-Pastur law, the squared singular values of white noise.

    Density sqrt((b - x) (x - a)) / (2 pi beta x) between a and b = (1 -+ sqrt(beta))^2. With
    x = (a + b) / 2 - (b - a) / 2 cos(t) the integrand is smooth in t.
    """
    from scipy.integrate import quad
    from scipy.optimize import brentq

    middle, half = 1 + beta, 2 * math.sqrt(beta)

    def density(angle: float) -> float:
        position = middle - half * math.cos(angle)
        if position <= 0:  # a square, at its lower end: sin^2 / (1 - cos) has the limit 2
            return 2 * half / (2 * math.pi * beta)
        return (half * math.sin(angle)) ** 2 / (2 * math.pi * beta * position)

    def excess(angle: float) -> float:
        return float(quad(density, 0.0, angle, epsabs=1e-12, epsrel=1e-12)[0]) - 0.5

    angle = brentq(excess, 0.0, math.pi, xtol=1e-13)
    return middle - half * math.cos(float(angle))
