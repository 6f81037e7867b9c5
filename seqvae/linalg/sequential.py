"""Elimination step by step, from the last to the first."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.linalg.block_tridiagonal import BlockTridiagonal, Conditionals, Factor, pad_time
from seqvae.linalg.recursions import congruence_recursion, linear_recursion
from seqvae.linalg.roots import inverse_root, log_det_root, symmetrized


class Sequential(Factor):
    """P = (I - A)' Lambda (I - A): the chain x_t = A_t x_{t-1} + N(0, Lambda_t^-1) itself.

        Lambda_T = P_TT,   Lambda_t = P_tt - P_{t+1,t}' Lambda_{t+1}^-1 P_{t+1,t},
        A_t = -Lambda_t^-1 P_{t,t-1},   Lambda_t^-1 = K_t' K_t,   L' = K^-1 (I - A).

    A solve is two linear recursions, a draw is one, and the selected inverse is the recursion of
    the covariances, S_t = Lambda_t^-1 + A_t S_{t-1} A_t' [Rybicki & Hummer 1991, Astron.
    Astrophys. 245:171; Paninski et al. 2010, J. Comput. Neurosci. 29:107]. Differentiable.

    Args:
        matrix: P.
        root: K, time first, where another elimination in this order has found it already.
    """

    def __init__(
        self,
        matrix: BlockTridiagonal,
        root: Float[Tensor, "time batch dim dim"] | None = None,
    ) -> None:
        self._precision: Tensor | None = None
        if root is None:
            self._precision = _SchurComplements.apply(matrix.diagonal, matrix.lower)
            root = inverse_root(self._precision)
        self.matrix = matrix
        self._root = root
        self._gains = _gains(root, matrix.lower)
        self.logdet = log_det_root(root).sum(0)

    def selected_inverse(self) -> BlockTridiagonal:
        """Return the blocks of P^-1 by the recursion of the covariances."""
        diagonal = congruence_recursion(self._gains, self._root.mT @ self._root)
        lower = self._gains @ diagonal[:-1]
        return BlockTridiagonal(diagonal.transpose(0, 1), lower.transpose(0, 1))

    def conditionals(self) -> Conditionals:
        """Return the chain told forward in time, which is how this factor holds it."""
        gain, root = self._gain(), self._root.transpose(0, 1)
        if self._precision is not None:
            return Conditionals(gain, self._precision.transpose(0, 1), root)
        precision = self.matrix.diagonal + pad_time(self.matrix.lower.mT @ gain, after=1)
        return Conditionals(gain, precision, root)

    def _gain(self) -> Tensor:
        return self._gains.transpose(0, 1)

    def _solve(self, rhs: Tensor) -> Tensor:
        inner = linear_recursion(self._gains, rhs.transpose(0, 1), reverse=True)
        return self._draw((self._root @ inner).transpose(0, 1))

    def _draw(self, noise: Tensor) -> Tensor:
        terms = self._root.mT @ noise.transpose(0, 1)
        return linear_recursion(self._gains, terms).transpose(0, 1)


class _SchurComplements(torch.autograd.Function):
    """Lambda_t, time first, of the blocks of P.

    dLambda_t = dP_tt + dP_{t+1,t}' A_{t+1} + A_{t+1}' dP_{t+1,t} + A_{t+1}' dLambda_{t+1} A_{t+1},
    so the gradient G of Lambda gives X_t = G_t + A_t X_{t-1} A_t' for P_tt and 2 A_{t+1} X_t for
    P_{t+1,t}. (For log det P, G = Lambda^-1 and X is the selected inverse.)
    """

    @staticmethod
    def forward(ctx: Any, diagonal: Tensor, lower: Tensor) -> Tensor:
        complements = diagonal.transpose(0, 1).clone(memory_format=torch.contiguous_format)
        steps, couplings = complements.unbind(), lower.unbind(1)
        for t in reversed(range(len(couplings))):
            cholesky = torch.linalg.cholesky_ex(steps[t + 1]).L
            half = torch.linalg.solve_triangular(cholesky, couplings[t], upper=False)
            steps[t].baddbmm_(half.mT, half, alpha=-1)
        ctx.save_for_backward(lower, complements)
        return complements

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        lower, complements = ctx.saved_tensors
        gains = _gains(inverse_root(complements), lower)
        total = congruence_recursion(gains, symmetrized(gradient))
        return total.transpose(0, 1), (gains @ total[:-1]).mul_(2).transpose(0, 1)


def _gains(root: Tensor, lower: Tensor) -> Float[Tensor, "links batch dim dim"]:
    """Return A_t = -K_t' K_t P_{t,t-1}."""
    later = root[1:]
    return (later.mT @ (later @ lower.transpose(0, 1))).neg_()
