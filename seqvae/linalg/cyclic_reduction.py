"""Odd-even (cyclic) reduction: every other step is eliminated at once, log2(time) times over."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.linalg.block_tridiagonal import BlockTridiagonal, Factor, pad_time
from seqvae.linalg.roots import inverse_root, log_det_root


class CyclicReduction(Factor):
    """The Cholesky factor in odd-even order.

    At each level the steps i = 0, 2, 4, ... are eliminated, and a chain of the others is left:

        P'_jj = P_jj - right_{j-1}' right_{j-1} - left_{j+1}' left_{j+1},
        P'_{j+2,j} = -right_{j+1}' left_{j+1},
        left_i = K_i P_{i,i-1},   right_i = K_i P_{i,i+1},   P_ii^-1 = K_i' K_i,

    [Heller 1976, SIAM J. Numer. Anal. 13:484; Hirshman et al. 2010, J. Comput. Phys. 229:6392].
    Draws and the selected inverse are put together from the last level back to the first by
    x_i = K_i' (noise_i - left_i x_{i-1} - right_i x_{i+1}) [Takahashi et al. 1973]. It is up to
    twice the arithmetic of elimination step by step, in log2(time) rounds of large batched
    products: for accelerators. Differentiable.

    Args:
        matrix: P.
    """

    def __init__(self, matrix: BlockTridiagonal) -> None:
        self.matrix = matrix
        self.levels: list[_Level] = []
        diagonal, lower = matrix.diagonal, matrix.lower
        while diagonal.shape[1]:
            num_kept = diagonal.shape[1] // 2
            root = inverse_root(diagonal[:, 0::2])
            left = root[:, 1:] @ lower[:, 1::2]
            right = root[:, :num_kept] @ lower[:, 0::2].mT
            level = _Level(root, left, right)
            self.levels.append(level)
            diagonal = diagonal[:, 1::2] - level.onto_kept(left, right)
            lower = -(right[:, 1:].mT @ left[:, : right.shape[1] - 1])
        log_dets = [log_det_root(level.root).sum(1) for level in self.levels]
        self.logdet = torch.stack(log_dets).sum(0)

    def selected_inverse(self) -> BlockTridiagonal:
        """Return the blocks of P^-1, put together from the last level back to the first."""
        diagonal = self.matrix.diagonal[:, :0]
        lower = diagonal
        for root, left, right in reversed(self.levels):
            num_left, num_kept = left.shape[1], right.shape[1]
            missing = num_left + 1 - num_kept
            # x_i = -after_left x_{i-1} - after_right x_{i+1} + N(0, K_i' K_i)
            after_left, after_right = root[:, 1:].mT @ left, root[:, :num_kept].mT @ right
            further = pad_time(after_right[:, 1:] @ lower, after=missing)
            with_left = -(after_left @ diagonal[:, :num_left] + further)
            further = pad_time(after_left[:, : num_kept - 1] @ lower.mT, before=1)
            with_right = -(after_right @ diagonal + further)
            eliminated = root.mT @ root - pad_time(with_left @ after_left.mT, before=1)
            eliminated = eliminated - pad_time(with_right @ after_right.mT, after=missing)
            diagonal = _interleaved(eliminated, diagonal)
            lower = _interleaved(with_right.mT, with_left)
        return BlockTridiagonal(diagonal, lower)

    def _solve(self, rhs: Tensor) -> Tensor:
        halves = []
        for level in self.levels:
            half = level.root @ rhs[:, 0::2]
            halves.append(half)
            rhs = rhs[:, 1::2] - level.onto_kept(half[:, 1:], half[:, : level.right.shape[1]])
        return self._back_substituted(halves, rhs)

    def _draw(self, noise: Tensor) -> Tensor:
        halves = []
        for _ in self.levels:
            halves.append(noise[:, 0::2])
            noise = noise[:, 1::2]
        return self._back_substituted(halves, noise)

    def _back_substituted(self, halves: list[Tensor], rest: Tensor) -> Tensor:
        """Return x = L^-T y from the parts of y eliminated at each level; ``rest`` is empty."""
        for level, half in zip(reversed(self.levels), reversed(halves), strict=True):
            eliminated = level.root.mT @ (half - level.from_rest(rest))
            rest = _interleaved(eliminated, rest)
        return rest


class _Level(NamedTuple):
    """Some steps eliminated at once; the first and the last may lack a neighbour.

    Attributes:
        root: K_i of every eliminated step.
        left: left_i of every eliminated step but the first.
        right: right_i of every eliminated step that has a step after it.
    """

    root: Float[Tensor, "batch eliminated dim dim"]
    left: Float[Tensor, "batch eliminated-1 dim dim"]
    right: Float[Tensor, "batch kept dim dim"]

    def onto_kept(self, of_left: Tensor, of_right: Tensor) -> Tensor:
        """Return left' of_left + right' of_right, summed at each step that is kept."""
        missing = self.right.shape[1] - self.left.shape[1]
        return self.right.mT @ of_right + pad_time(self.left.mT @ of_left, after=missing)

    def from_rest(self, rest: Tensor) -> Tensor:
        """Return left_i x_{i-1} + right_i x_{i+1} of each step that is eliminated."""
        num_left, num_kept = self.left.shape[1], self.right.shape[1]
        before = pad_time(self.left @ rest[:, :num_left], before=1)
        return before + pad_time(self.right @ rest, after=num_left + 1 - num_kept)


def _interleaved(even: Tensor, odd: Tensor) -> Tensor:
    """Return even[0], odd[0], even[1], ...; there may be one more of the even ones."""
    size = even.shape[1] + odd.shape[1]
    odd = pad_time(odd, after=even.shape[1] - odd.shape[1])
    return torch.stack([even, odd], dim=2).flatten(1, 2)[:, :size]
