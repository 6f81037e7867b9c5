"""Symmetric block-tridiagonal matrices, and what can be asked of one that is factorised."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from seqvae.linalg.roots import inverse_root, log_det_root


@dataclass(frozen=True, eq=False)
class BlockTridiagonal:
    """Symmetric matrices with blocks P_tt on the diagonal, P_{t+1,t} below it and 0 elsewhere.

    The precision of a Gaussian Markov chain has this form.

    Attributes:
        diagonal: P_tt, symmetric.
        lower: P_{t+1,t}, of each trial or (batch of 1) of all; the blocks above the diagonal are
            their transposes.
    """

    diagonal: Float[Tensor, "batch time dim dim"]
    lower: Float[Tensor, "#batch time-1 dim dim"]

    @property
    def tracks_gradient(self) -> bool:
        """Whether a gradient is to flow into the blocks from what is computed now."""
        requires_grad = self.diagonal.requires_grad or self.lower.requires_grad
        return requires_grad and torch.is_grad_enabled()

    def plus_diagonal(self, blocks: Float[Tensor, "*leading dim dim"]) -> BlockTridiagonal:
        """Return P with blocks added to its diagonal, such as what the data of each bin tell."""
        return BlockTridiagonal(self.diagonal + blocks, self.lower)

    def masked(self, mask: Bool[Tensor, "#batch time"]) -> BlockTridiagonal:
        """Cut off the steps where ``mask`` is False: identity on the diagonal, no coupling.

        Whatever stood there, NaN included, reaches neither the other steps nor the
        log-determinant, nor their gradients. Right-hand sides must be finite at these steps.
        """
        identity = torch.eye(
            self.diagonal.shape[-1], dtype=self.diagonal.dtype, device=self.diagonal.device
        )
        both = mask[:, 1:] & mask[:, :-1]
        return BlockTridiagonal(
            torch.where(mask[..., None, None], self.diagonal, identity),
            torch.where(both[..., None, None], self.lower, 0.0),
        )

    def matvec(
        self, vector: Float[Tensor, "*sample chain time dim"]
    ) -> Float[Tensor, "*sample chain time dim"]:
        """Return P x: (P x)_t = P_{t,t-1} x_{t-1} + P_tt x_t + P_{t+1,t}' x_{t+1}."""
        here = torch.einsum("btij,...btj->...bti", self.diagonal, vector)
        before = torch.einsum("btij,...btj->...bti", self.lower, vector[..., :-1, :])
        after = torch.einsum("btji,...btj->...bti", self.lower, vector[..., 1:, :])
        return here + functional.pad(before, (0, 0, 1, 0)) + functional.pad(after, (0, 0, 0, 1))

    def dense(self) -> Float[Tensor, "batch size size"]:
        """Return the whole matrices, rows and columns ordered by time, then dimension."""
        batch, time, dim, _ = self.diagonal.shape
        blocks = self.diagonal.new_zeros(batch, time, time, dim, dim)
        steps = torch.arange(time, device=blocks.device)
        blocks[:, steps, steps] = self.diagonal
        blocks[:, steps[1:], steps[:-1]] = self.lower
        blocks[:, steps[:-1], steps[1:]] = self.lower.mT
        return blocks.transpose(2, 3).reshape(batch, time * dim, time * dim)


class Conditionals(NamedTuple):
    """The chain N(0, P^-1) told forward in time: x_t = A_t x_{t-1} + N(0, Lambda_t^-1).

    Attributes:
        gain: A_t of every step but the first.
        precision: Lambda_t; the first one is the precision of x_1 on its own.
        root: a triangular K_t with Lambda_t^-1 = K_t' K_t.
    """

    gain: Float[Tensor, "batch time-1 dim dim"]
    precision: Float[Tensor, "batch time dim dim"]
    root: Float[Tensor, "batch time dim dim"]

    @property
    def log_det(self) -> Float[Tensor, "batch time"]:
        """Log det Lambda_t; they add up to log det P."""
        return log_det_root(self.root)

    def quadratic_terms(
        self, path: Float[Tensor, "*sample chain time dim"]
    ) -> Float[Tensor, "*sample chain time"]:
        """Return e_t' Lambda_t e_t with e_t = x_t - A_t x_{t-1}; they add up to x' P x."""
        expected = torch.einsum("btij,...btj->...bti", self.gain, path[..., :-1, :])
        innovation = path - functional.pad(expected, (0, 0, 1, 0))
        return torch.einsum("btij,...bti,...btj->...bt", self.precision, innovation, innovation)


class Factor(ABC):
    """A Cholesky factor of P = L L', in an order of elimination that the back end chooses.

    A trial whose matrix is not positive definite, or not finite, is told by
    ``positive_definite``; what is answered about it is NaN, and the other trials are not touched.

    Attributes:
        matrix: P.
        logdet: log det P of each trial.
    """

    matrix: BlockTridiagonal
    logdet: Float[Tensor, " batch"]

    @property
    def positive_definite(self) -> Bool[Tensor, " batch"]:
        """Which trials could be factorised."""
        return self.logdet.isfinite()

    def solve(
        self, rhs: Float[Tensor, "*sample chain time dim"]
    ) -> Float[Tensor, "*sample chain time dim"]:
        """Return P^-1 rhs; samples share the matrix of their chain, all chains one of batch 1."""
        return self._by_columns(self._solve, rhs)

    def draw(
        self, noise: Float[Tensor, "*sample chain time dim"]
    ) -> Float[Tensor, "*sample chain time dim"]:
        """Return L^-T noise: a draw of N(0, P^-1) if the noise is white; shapes as in ``solve``.

        The same noise gives another draw, of the same law, in another back end.
        """
        return self._by_columns(self._draw, noise)

    @abstractmethod
    def selected_inverse(self) -> BlockTridiagonal:
        """Return the diagonal and first off-diagonal blocks of P^-1.

        They are the covariances of each step and the cross-covariances Cov(x_{t+1}, x_t) of
        neighbours under N(0, P^-1), and the gradient of log det P.
        """

    def conditionals(self) -> Conditionals:
        """Return the chain told forward in time.

        P = (I - A)' Lambda (I - A) with A below the diagonal. From S = P^-1 it is
        A_t = S_{t,t-1} S_{t-1,t-1}^-1  and  Lambda_t = P_tt + P_{t+1,t}' A_{t+1}.
        """
        gain = self._gain()
        update = self.matrix.lower.mT @ gain
        precision = self.matrix.diagonal + pad_time(update, after=1)
        return Conditionals(gain, precision, inverse_root(precision))

    def _gain(self) -> Float[Tensor, "batch links dim dim"]:
        inverse = self.selected_inverse()
        root = inverse_root(inverse.diagonal[:, :-1])
        return inverse.lower @ root.mT @ root

    @abstractmethod
    def _solve(
        self, rhs: Float[Tensor, "batch time dim column"]
    ) -> Float[Tensor, "batch time dim column"]: ...

    @abstractmethod
    def _draw(
        self, noise: Float[Tensor, "batch time dim column"]
    ) -> Float[Tensor, "batch time dim column"]: ...

    def _by_columns(self, operate: Callable[[Tensor], Tensor], rhs: Tensor) -> Tensor:
        """Bring samples, and chains that share one matrix, to the last axis and back."""
        batch, time, dim, _ = self.matrix.diagonal.shape
        assert batch in (1, rhs.shape[-3]), (batch, rhs.shape)
        columns = rhs.reshape(-1, batch, time, dim).permute(1, 2, 3, 0)
        return operate(columns).permute(3, 0, 1, 2).reshape(rhs.shape)


def pad_time(
    blocks: Float[Tensor, "batch time rows columns"], *, before: int = 0, after: int = 0
) -> Float[Tensor, "batch padded rows columns"]:
    """Add blocks of zeros before the first and after the last."""
    return functional.pad(blocks, (0, 0, 0, 0, before, after))
