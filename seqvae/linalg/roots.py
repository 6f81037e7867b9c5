"""The inverse Cholesky factor of many small blocks."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class _InverseRoot(torch.autograd.Function):
    """K = L^-1 of S = L L'.

    From K S K' = I: dK = -phi(K dS K') K, where phi keeps the lower triangle and halves the
    diagonal (its adjoint is itself). So the gradient g of K gives -K' phi(g K') K for S: three
    small products in place of triangular solves [Murray 2016, arXiv:1602.07527].
    """

    @staticmethod
    def forward(ctx: Any, blocks: Tensor) -> Tensor:
        cholesky, info = torch.linalg.cholesky_ex(blocks)
        cholesky.masked_fill_((info > 0)[..., None, None], torch.nan)
        root = inverse_triangular(cholesky)
        ctx.save_for_backward(root)
        return root

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (root,) = ctx.saved_tensors
        projected = (gradient @ root.mT).tril_()
        projected.diagonal(dim1=-2, dim2=-1).mul_(0.5)
        return symmetrized(root.mT @ projected @ root).neg_()


def inverse_root(
    blocks: Float[Tensor, "*leading dim dim"],
) -> Float[Tensor, "*leading dim dim"]:
    """Return the lower triangular K with S^-1 = K' K; NaN where S is not positive definite.

    Args:
        blocks: S, symmetric; only its lower triangle is read.
    """
    return _InverseRoot.apply(blocks)


def inverse_triangular(
    cholesky: Float[Tensor, "*leading dim dim"],
) -> Float[Tensor, "*leading dim dim"]:
    """Return the inverse of lower triangular blocks."""
    identity = torch.eye(cholesky.shape[-1], dtype=cholesky.dtype, device=cholesky.device)
    return torch.linalg.solve_triangular(cholesky, identity.expand_as(cholesky), upper=False)


def log_det_root(
    root: Float[Tensor, "*leading dim dim"],
) -> Float[Tensor, "*leading"]:
    """Return log det S of the S with S^-1 = K' K, from K."""
    return -2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def symmetrized(blocks: Float[Tensor, "*leading dim dim"]) -> Float[Tensor, "*leading dim dim"]:
    """Return (S + S') / 2."""
    return (blocks + blocks.mT).mul_(0.5)
