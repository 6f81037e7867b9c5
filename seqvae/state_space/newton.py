"""The most likely paths of all trials at once, by damped Newton steps on block-tridiagonal systems.

A trial is left alone once it has converged, so what it is told does not depend on the others.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.distributions import GaussianMarkovChain
from seqvae.linalg import BlockTridiagonal, Factor, factorize
from seqvae.state_space.emissions import LinearEmission

MAX_STEPS = 100
DECREMENT = 1e-8
"""Newton decrement g' H^-1 g, in nats, at which a trial has converged after one step more."""
ARMIJO = 1e-4


class Mode(NamedTuple):
    """Where the objective is greatest.

    Attributes:
        path: the best path z.
        factor: of the negative Hessian there.
        value: sum w E[log p(x | eta)] there, without what eta does not change.
    """

    path: Float[Tensor, "batch time latent"]
    factor: Factor
    value: Float[Tensor, " batch"]


@torch.no_grad()
def find_mode(
    prior: GaussianMarkovChain,
    emission: LinearEmission,
    *,
    target: Float[Tensor, "batch time neuron"],
    weight: Float[Tensor, "batch time neuron"],
    spread: Float[Tensor, "#batch #time neuron"],
    start: Float[Tensor, "batch time latent"],
    decrement_below: float = DECREMENT,
) -> Mode:
    """Maximise sum w E[log p(x | eta)] - (z - m)' P (z - m) / 2 over the path z of each trial.

    eta ~ N(C z + d, spread): with spread 0 the objective is the log joint density, else the
    expectation of it under a Gaussian path of mean z. It is concave; each Newton step is halved,
    for its trial alone, until the objective rises (Armijo), and never falls.

    Args:
        prior: N(m, P^-1).
        emission: the readout.
        target: the data x; any number where the weight is 0.
        weight: w; 0 where the data are missing.
        spread: variances of the predictor.
        start: where to begin.
        decrement_below: the Newton decrement, in nats, at which one step more is the last.
    """
    path = start
    predictor = emission.predictor(path)
    terms = emission.terms(target, predictor, spread)
    active = torch.ones(len(path), dtype=torch.bool, device=path.device)
    for _ in range(MAX_STEPS):
        deviation = path - prior.mean
        pull = prior.precision.matvec(deviation)
        gradient = (weight * terms.slope) @ emission.loadings - pull
        information = emission.information(weight * terms.curvature)
        factor = factorize_surely(prior.precision.plus_diagonal(information))
        if not bool(active.any()):
            break
        step = factor.solve(gradient)
        decrement = (gradient * step).sum((1, 2))
        step = torch.where(active[:, None, None], step, 0.0)
        change = step @ emission.loadings.mT

        along = (step * pull).sum((1, 2))
        square = (step * prior.precision.matvec(step)).sum((1, 2))
        value = (weight * terms.value).sum((1, 2))
        length = torch.ones_like(decrement)
        searching = active & (decrement >= decrement_below)
        for _ in range(60):
            advanced = predictor + length[:, None, None] * change
            moved = emission.terms(target, advanced, spread)
            rise = (weight * moved.value).sum((1, 2)) - value
            rise = rise - length * along - 0.5 * length.square() * square
            short = searching & ~(rise >= ARMIJO * length * decrement)
            if not bool(short.any()):
                break
            length = torch.where(short, 0.5 * length, length)
        else:  # no step of these trials rises: they stay, to rounding
            advanced = predictor + length[:, None, None] * change
            moved = emission.terms(target, advanced, spread)
        path = path + length[:, None, None] * step
        predictor, terms = advanced, moved
        active = searching
    return Mode(path, factor, (weight * terms.value).sum((1, 2)))


def factorize_surely(matrix: BlockTridiagonal) -> Factor:
    """Return the factor of P, of P + jitter for the trials where it is not positive definite."""
    factor = factorize(matrix)
    jitter = 1e-10 * matrix.diagonal.diagonal(dim1=-2, dim2=-1).abs().mean((1, 2))
    added = torch.zeros_like(jitter)
    identity = torch.eye(matrix.diagonal.shape[-1]).to(matrix.diagonal)
    while not bool(factor.positive_definite.all()) and bool(jitter.isfinite().all()):
        failed = ~factor.positive_definite
        added = torch.where(failed, jitter, added)
        factor = factorize(matrix.plus_diagonal(added[:, None, None, None] * identity))
        jitter = 10 * jitter
    if bool((added > 0).any()):
        warnings.warn(
            f"{int((added > 0).sum())} posterior precisions were not positive definite to "
            f"rounding; up to {float(added.max()):.1e} was added to their diagonal",
            stacklevel=2,
        )
    return factor
