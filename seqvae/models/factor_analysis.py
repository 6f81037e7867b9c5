"""Factor analysis and PCA of smoothed activity, by scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float

from seqvae.models.linear_factors import LinearFactors, Loadings


class FactorAnalysis(LinearFactors):
    """Factor analysis: each neuron has a noise psi_n of its own, by maximum likelihood.

    Everything else is that of ``LinearFactors``.
    """

    @staticmethod
    def factorize(
        covariance: Float[np.ndarray, "neuron neuron"], size: int, *, tolerance: float = 1e-5
    ) -> Loadings:
        """Return loadings and noise by scikit-learn's ``FactorAnalysis``.

        Args:
            covariance: of the neurons.
            size: number of factors.
            tolerance: on what an iteration gains, in nats of twice as many rows as neurons.
        """
        from sklearn.decomposition import FactorAnalysis as Solver

        solver = Solver(size, svd_method="lapack", tol=tolerance, max_iter=1000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about convergence: near is near enough
            solver.fit(_rows(covariance))
        return Loadings(solver.components_.T, solver.noise_variance_)


class PCA(LinearFactors):
    """Principal components as probabilistic PCA: one noise psi for all neurons.

    With l_i the variances of the components psi is the mean of those left out and
    w_i = sqrt(l_i - psi) times the component [Tipping & Bishop 1999, J. R. Stat. Soc. B 61:611].
    Scores that are inferred so, and shrink, predict unseen neurons better than least squares does.
    Everything else is that of ``LinearFactors``.
    """

    @staticmethod
    def factorize(covariance: Float[np.ndarray, "neuron neuron"], size: int) -> Loadings:
        """Return loadings and noise by scikit-learn's ``PCA``."""
        from sklearn.decomposition import PCA as Solver

        rows = _rows(covariance)
        solver = Solver(size, svd_solver="full").fit(rows * np.sqrt(1 - 1 / len(rows)))
        lengths = np.sqrt(np.maximum(solver.explained_variance_ - solver.noise_variance_, 0))
        noise = np.full(len(covariance), solver.noise_variance_)
        return Loadings(solver.components_.T * lengths, noise)


def _rows(covariance: Float[np.ndarray, "neuron neuron"]) -> Float[np.ndarray, "row neuron"]:
    """Few rows of mean 0 that have this covariance: all that either solver uses of the data."""
    root = np.linalg.cholesky(covariance).T * np.sqrt(len(covariance))
    return np.concatenate([root, -root])
