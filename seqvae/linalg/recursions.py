"""The two recursions of a linear chain, whose gradients are the same recursions run backward.

Time is the first axis, so that the steps are contiguous. A step costs one or two batched products,
forward and backward; autograd through a Python loop would cost several times that.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.linalg.roots import symmetrized


def linear_recursion(
    gains: Float[Tensor, "links batch dim dim"],
    terms: Float[Tensor, "links+1 batch dim column"],
    *,
    reverse: bool = False,
) -> Float[Tensor, "links+1 batch dim column"]:
    """Return x_t = c_t + A_t x_{t-1}; in reverse x_t = c_t + A_{t+1}' x_{t+1}, from the end.

    Args:
        gains: A_t of every step but the first.
        terms: c_t.
        reverse: run from the last step to the first, with transposed gains.
    """
    return _Linear.apply(gains, terms, reverse)


def congruence_recursion(
    gains: Float[Tensor, "links batch dim dim"],
    terms: Float[Tensor, "links+1 batch dim dim"],
    *,
    reverse: bool = False,
) -> Float[Tensor, "links+1 batch dim dim"]:
    """Return X_t = C_t + A_t X_{t-1} A_t'; in reverse X_t = C_t + A_{t+1}' X_{t+1} A_{t+1}.

    Args:
        gains: A_t of every step but the first.
        terms: C_t, symmetric.
        reverse: run from the last step to the first, with transposed gains.
    """
    return _Congruence.apply(gains, terms, reverse)


class _Linear(torch.autograd.Function):
    """With g the gradient of x, that of c is l_t = g_t + A_{t+1}' l_{t+1}; of A_t, l_t x_{t-1}'."""

    @staticmethod
    def forward(ctx: Any, gains: Tensor, terms: Tensor, reverse: bool) -> Tensor:
        state = terms.clone(memory_format=torch.contiguous_format)
        steps = state.unbind()
        if reverse:
            for t in reversed(range(len(gains))):
                steps[t].baddbmm_(gains[t].mT, steps[t + 1])
        else:
            for gain, last, step in zip(gains, steps, steps[1:], strict=False):
                step.baddbmm_(gain, last)
        ctx.save_for_backward(gains, state)
        ctx.reverse = reverse
        return state

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        gains, state = ctx.saved_tensors
        adjoint = linear_recursion(gains, gradient, reverse=not ctx.reverse)
        earlier, later = (adjoint, state) if ctx.reverse else (state, adjoint)
        return later[1:] @ earlier[:-1].mT, adjoint, None


class _Congruence(torch.autograd.Function):
    """With G the gradient of X, that of C is Y_t = G_t + A_{t+1}' Y_{t+1} A_{t+1}.

    That of A_t is 2 Y_t A_t X_{t-1}.
    """

    @staticmethod
    def forward(ctx: Any, gains: Tensor, terms: Tensor, reverse: bool) -> Tensor:
        state = terms.clone(memory_format=torch.contiguous_format)
        steps = state.unbind()
        product = torch.empty_like(steps[0])
        if reverse:
            for t in reversed(range(len(gains))):
                torch.bmm(gains[t].mT, steps[t + 1], out=product)
                steps[t].baddbmm_(product, gains[t])
        else:
            for gain, last, step in zip(gains, steps, steps[1:], strict=False):
                torch.bmm(gain, last, out=product)
                step.baddbmm_(product, gain.mT)
        ctx.save_for_backward(gains, state)
        ctx.reverse = reverse
        return state

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        gains, state = ctx.saved_tensors
        adjoint = congruence_recursion(gains, symmetrized(gradient), reverse=not ctx.reverse)
        earlier, later = (adjoint, state) if ctx.reverse else (state, adjoint)
        return (later[1:] @ gains @ earlier[:-1]).mul_(2), adjoint, None
