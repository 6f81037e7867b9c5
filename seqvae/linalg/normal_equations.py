"""The normal equations of weighted least squares, many small ones at once."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


def normal_equations(
    slopes: Float[Tensor, "*#leading dim neuron"],
    weight: Float[Tensor, "*leading neuron"],
    residual: Float[Tensor, "*leading neuron"],
) -> tuple[Float[Tensor, "*leading dim dim"], Float[Tensor, "*leading dim"]]:
    """Return J = G diag(w) G' and h = G r.

    Differentiable once: with S = (dJ + dJ') G, dG = S diag(w) + dh r', dw = diag(G' S) / 2 and
    dr = G' dh, in one buffer of the size of G where autograd would fill several.

    Args:
        slopes: G.
        weight: w.
        residual: r.
    """
    return _NormalEquations.apply(slopes, weight, residual)


class _NormalEquations(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, slopes: Tensor, weight: Tensor, residual: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(slopes, weight, residual)
        matrix = (slopes * weight[..., None, :]) @ slopes.mT
        return matrix, (slopes @ residual[..., None])[..., 0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_matrix: Tensor, of_vector: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        slopes, weight, residual = ctx.saved_tensors
        gradient = (of_matrix + of_matrix.mT) @ slopes
        of_weight = (gradient * slopes).sum(-2).mul_(0.5)
        gradient.mul_(weight[..., None, :]).addcmul_(of_vector[..., None], residual[..., None, :])
        of_residual = (of_vector[..., None, :] @ slopes)[..., 0, :]
        return gradient.sum_to_size(slopes.shape), of_weight, of_residual
