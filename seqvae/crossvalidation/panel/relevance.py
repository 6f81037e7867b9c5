"""Factor analysis whose prior prunes the factors that the data do not need."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

LEAST_NOISE = 1e-4
"""Of a column, of its variance."""

RELEVANT = 0.5
PRUNED = 1e-12
"""Share of the largest E w_i^2 below which a factor is gone, as far as rounding can tell."""

MOST_FACTORS = 64
PATIENCE = 10
"""Iterations over which the gain is judged."""


class Relevance(NamedTuple):
    """What is learned.

    Attributes:
        dimension: factors that are relevant by more than a half.
        relevance: of each factor that is left, descending: the share of E w_i^2 that is not the
            prior's, between 0 (pruned) and 1.
        bound: lower bound on the log-likelihood, nats.
        is_largest: whether all factors that were offered are relevant.
    """

    dimension: int
    relevance: tuple[float, ...]
    bound: float
    is_largest: bool


class Factors(NamedTuple):
    """A posterior of loadings.

    Attributes:
        mean: of W.
        noise: psi.
        relevance: gamma of each factor.
        bounds: after each iteration.
    """

    mean: Float[np.ndarray, "column factor"]
    noise: Float[np.ndarray, " column"]
    relevance: Float[np.ndarray, " factor"]
    bounds: list[float]


def automatic_relevance(
    covariance: Float[np.ndarray, "column column"], num_rows: int, *, most: int | None = None
) -> Relevance:
    """Learn factor analysis with a prior on each factor, and count those that it spares.

        x = W z + e,   z ~ N(0, I),   e_n ~ N(0, psi_n),   w_ni ~ N(0, 1 / alpha_i)

    Variational Bayes with q(z) q(W), and alpha and psi where the bound is highest [Bishop 1999,
    ICANN; with a noise of each neuron's own: Ghahramani & Beal 2000, NIPS 12]; see ``learn``.

    A factor that the data do not need has alpha_i grow without end, and its posterior is its prior:
    all that is left of E w_i^2 is the variance of that, and the relevance
    gamma_i = sum_n m_ni^2 / sum_n E w_ni^2, the well-determined share, goes to 0. Counted is
    gamma_i > 1/2. It begins with all factors, at loadings of the principal components. From there
    it may end with a factor that serves a single neuron, which is a lower maximum of the bound: so
    each factor is then taken away for a try, and stays away where the bound is higher without it.

    It assumes Gaussian rows that are independent of each other. Rows of time are not: T counts
    for more than it is, and factors of chance and of what is slow but private may survive.

    Args:
        covariance: of the columns, about their means.
        num_rows: T, from how many rows it is.
        most: factors that are offered; None: as many as the covariance identifies (Ledermann), at
            most 64.
    """
    most = min(identified_factors(len(covariance)), MOST_FACTORS) if most is None else most
    values, directions = np.linalg.eigh(covariance)
    largest = np.argsort(values)[::-1][:most]
    mean = directions[:, largest] * np.sqrt(values[largest].clip(min=LEAST_NOISE))
    first = learn(covariance, num_rows, Factors(mean, np.diag(covariance) / 2, np.ones(most), []))
    best = learn(covariance, num_rows, _with(first, first.relevance > RELEVANT))
    while len(best.relevance):
        fewer = [
            learn(covariance, num_rows, _with(best, np.arange(len(best.relevance)) != i))
            for i in range(len(best.relevance))
        ]
        better = max(fewer, key=lambda one: one.bounds[-1])
        if better.bounds[-1] <= best.bounds[-1]:
            break
        best = better
    relevance = np.sort(best.relevance)[::-1]
    dimension = int((relevance > RELEVANT).sum())
    return Relevance(dimension, tuple(relevance.tolist()), best.bounds[-1], dimension == most)


def _with(factors: Factors, chosen: np.ndarray) -> Factors:
    """Return some factors; what the others explained is noise."""
    mean = factors.mean[:, chosen]
    noise = factors.noise + (factors.mean[:, ~chosen] ** 2).sum(axis=1)
    return Factors(mean, noise, factors.relevance[chosen], [])


def learn(
    covariance: Float[np.ndarray, "column column"],
    num_rows: int,
    start: Factors,
    *,
    max_iterations: int = 1000,
    tolerance: float = 1e-3,
) -> Factors:
    """Learn a posterior of loadings; the bound never falls.

    The updates are in closed form and need no rows, only their covariance:

        q(z_t) = N(V M' psi^-1 x_t, V),  V = (I + sum_n E w_n w_n' / psi_n)^-1
        q(w_n) = N(m_n, S_n),  S_n = (diag alpha + Z / psi_n)^-1,  Z = sum_t E z_t z_t'
        alpha_i = N / sum_n E w_ni^2

    and for psi as ever. After the latents, z -> R z and W -> W R^-1 with the R that raises the
    bound most: Z / T becomes the identity, so that S_n is diagonal, and E W'W diagonal [Luttinen &
    Ilin 2010, Neurocomputing 73:1093], without which pruning takes thousands of iterations.

    Args:
        covariance: of the columns, about their means.
        num_rows: T.
        start: loadings and noise to begin with.
        max_iterations: at most.
        tolerance: ends when ten iterations gain less, in nats.
    """
    size, most = start.mean.shape
    mean, noise, bounds = start.mean, start.noise, list[float]()
    variance, sums = np.diag(covariance), covariance * num_rows
    spread, energy = np.zeros_like(mean), np.ones(most)
    for _ in range(max_iterations):
        # latents
        precision = (mean.T / noise) @ mean + np.diag((spread.T / noise).sum(axis=1))
        latent_spread = np.linalg.inv(np.eye(most) + precision)
        onto = latent_spread @ (mean.T / noise)
        with_data = sums @ onto.T
        second = latent_spread + onto @ with_data / num_rows
        # the transformation, of which R' is ``change``
        root = np.linalg.cholesky(second)
        weight = root.T @ (mean.T @ mean + np.diag(spread.sum(axis=0))) @ root
        weights, turn = np.linalg.eigh(weight)
        change = np.linalg.solve(root.T, turn)
        with_data = with_data @ change
        alpha = size / weights.clip(min=PRUNED * weights.max(initial=1e-99))
        # weights, their prior, noise
        spread = 1.0 / (alpha + num_rows / noise[:, None])
        mean = spread * with_data / noise[:, None]
        energy = (mean**2 + spread).sum(axis=0)
        squares = num_rows * (mean**2 + spread).sum(axis=1)
        residual = np.diag(sums) - 2 * (mean * with_data).sum(axis=1) + squares
        noise = np.maximum(residual / num_rows, LEAST_NOISE * variance)
        likelihood = -(num_rows * np.log(2 * math.pi * noise) + residual / noise).sum() / 2
        determinant = np.linalg.slogdet(latent_spread)[1] + 2 * np.linalg.slogdet(change)[1]
        of_weights = (np.log(spread).sum() + size * np.log(size / energy).sum()) / 2
        bounds.append(float(likelihood + num_rows * determinant / 2 + of_weights))
        if most == 0:
            break
        if len(bounds) > PATIENCE and bounds[-1] - bounds[-1 - PATIENCE] < tolerance:
            break
    return Factors(mean, noise, (mean**2).sum(axis=0) / energy, bounds)


def identified_factors(size: int) -> int:
    """Return how many factors a covariance of N columns identifies: (N - k)^2 >= N + k."""
    return max(int(size + 0.5 - math.sqrt(8 * size + 1) / 2 + 1e-9), 0)
