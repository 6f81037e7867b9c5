"""Elimination step by step by LAPACK's banded Cholesky, a call for each trial: for the CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.linalg.block_tridiagonal import BlockTridiagonal, Factor
from seqvae.linalg.roots import inverse_triangular
from seqvae.linalg.sequential import Sequential


class Banded(Factor):
    """The factor of ``Sequential``, held in LAPACK's banded storage.

    P with time reversed has 2 dim - 1 diagonals below the main one, and its Cholesky factor
    (``pbtrf``) fills no more. Solves (``pbtrs``) and draws (``tbtrs``) run in compiled code; the
    selected inverse is that of ``Sequential``, from this factor. CPU only, float32 or float64. No
    gradient reaches the matrix; one of right-hand sides is taken through ``Sequential``.

    Args:
        matrix: P.
    """

    def __init__(self, matrix: BlockTridiagonal) -> None:
        from scipy.linalg import get_lapack_funcs  # not before it is needed: it takes a while

        assert not matrix.tracks_gradient
        self.matrix = matrix
        self._bands = _packed(matrix)
        self._pbtrf, self._pbtrs, self._tbtrs = get_lapack_funcs(
            ("pbtrf", "pbtrs", "tbtrs"), (self._bands,)
        )
        for band in self._bands:
            _, info = self._pbtrf(_columns(band), lower=1, overwrite_ab=1)
            if info:
                band.fill(np.nan)
        self.logdet = torch.from_numpy(2 * np.log(self._bands[..., 0]).sum((1, 2)))

    @cached_property
    def sequential(self) -> Sequential:
        """The same factor by its blocks."""
        dim = self._bands.shape[2]
        bands = self._bands.swapaxes(0, 1)[::-1]
        cholesky = np.zeros((*bands.shape[:2], dim, dim), bands.dtype)
        for column in range(dim):
            cholesky[..., column:, column] = bands[:, :, column, : dim - column]
        return Sequential(self.matrix, inverse_triangular(torch.from_numpy(cholesky)))

    def selected_inverse(self) -> BlockTridiagonal:
        """Return the blocks of P^-1 by the recursion of the covariances."""
        return self.sequential.selected_inverse()

    def _gain(self) -> Tensor:
        return self.sequential._gain()

    def _solve(self, rhs: Tensor) -> Tensor:
        if torch.is_grad_enabled() and rhs.requires_grad:
            return self.sequential._solve(rhs)
        return self._by_trials(lambda band, right: self._pbtrs(band, right, lower=1), rhs)

    def _draw(self, noise: Tensor) -> Tensor:
        if torch.is_grad_enabled() and noise.requires_grad:
            return self.sequential._draw(noise)
        return self._by_trials(
            lambda band, right: self._tbtrs(band, right, uplo="L", trans="T"), noise
        )

    def _by_trials(
        self, operate: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, int]], rhs: Tensor
    ) -> Float[Tensor, "batch time dim column"]:
        reversed_rhs = rhs.detach().numpy()[:, ::-1]
        result = np.empty(rhs.shape, self._bands.dtype)
        for band, right, out in zip(self._bands, reversed_rhs, result, strict=True):
            solution, _ = operate(_columns(band), right.reshape(-1, rhs.shape[-1]))
            out[...] = solution.reshape(right.shape)[::-1]
        return torch.from_numpy(result)


def _packed(matrix: BlockTridiagonal) -> np.ndarray:
    """Return the bands of P with time reversed: (batch, time, dim, 2 dim).

    Column (t, i) of the lower triangle from the diagonal down: the rest of column i of P_tt, then
    row i of P_{t,t-1}, because the step before t comes after it.
    """
    diagonal = matrix.diagonal.detach().numpy()[:, ::-1]
    lower = matrix.lower.detach().numpy()[:, ::-1]
    batch, time, dim, _ = diagonal.shape
    bands = np.zeros((batch, time, dim, 2 * dim), diagonal.dtype)
    for i in range(dim):
        bands[:, :, i, : dim - i] = diagonal[:, :, i:, i]
        bands[:, :-1, i, dim - i : 2 * dim - i] = lower[:, :, i]
    return bands


def _columns(band: np.ndarray) -> np.ndarray:
    """Return one band as LAPACK reads it, (2 dim, time * dim) in Fortran's order; a view."""
    return band.reshape(-1, band.shape[-1]).T
