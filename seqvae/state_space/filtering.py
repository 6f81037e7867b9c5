"""Gaussian posteriors of the present given the past: linear dynamics, one bin at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from seqvae.state_space.emissions import LinearEmission
from seqvae.state_space.m_step import LinearStateSpace
from seqvae.state_space.newton import ARMIJO, DECREMENT

MAX_STEPS = 50
MAX_HALVINGS = 40


class FilteredBin(NamedTuple):
    """What is known of a bin from it and all before: moments of latents, and of what they make.

    Attributes:
        latents: mean of z_t.
        latents_sd: its standard deviation.
        mean: expected data of all neurons, in data units.
        mean_sd: standard deviation of E[x_t | z_t].
    """

    latents: Float[Tensor, " latent"]
    latents_sd: Float[Tensor, " latent"]
    mean: Float[Tensor, " neuron"]
    mean_sd: Float[Tensor, " neuron"]


class LinearFilter:
    """p(z_t | x_1 ... x_t) as a Gaussian, for a linear state space; the Kalman filter's recursion.

        m = A m_{t-1} + B u_t + b,   P = A V_{t-1} A' + Q,   V_t = (P^-1 + C' W C)^-1

    m_t is where log p(x_t | z) + log N(z; m, P) is greatest, by Newton's method, and W minus the
    second derivative there: exact for Gaussian noise, Laplace's approximation for counts [Eden et
    al. 2004]. A bin in which nothing is seen is predicted. Nothing depends on later bins.

    Args:
        space: dynamics and the readout of all neurons.
        heldin: the neurons that are seen.
        scored: which of all neurons say anything; None: all.
    """

    def __init__(
        self,
        space: LinearStateSpace,
        heldin: list[int],
        *,
        scored: Bool[Tensor, " neuron"] | None = None,
    ) -> None:
        self._dynamics, self._emission = space
        self._seen = self._emission.select(heldin)
        self._unread = None if scored is None else ~scored[heldin]
        self.restart()

    def restart(self) -> None:
        """Forget all bins."""
        self._mean: Tensor | None = None
        self._covariance = self._dynamics.initial_covariance

    @torch.no_grad()
    def step(
        self,
        values: Float[Tensor, " heldin"],
        inputs: Float[Tensor, " input"],
    ) -> FilteredBin:
        """Take the next bin.

        Args:
            values: x of the neurons that are seen; NaN = missing.
            inputs: u; that of the first bin is not read.
        """
        dynamics = self._dynamics
        if self._mean is None:
            mean, covariance = dynamics.initial_mean, dynamics.initial_covariance
        else:
            forward = dynamics.transition
            mean = forward @ self._mean + dynamics.offset + dynamics.input_matrix @ inputs
            covariance = forward @ self._covariance @ forward.mT + dynamics.noise_covariance
        if self._unread is not None:
            values = values.masked_fill(self._unread, torch.nan)
        self._mean, self._covariance = _updated(mean, covariance, self._seen, values)
        return self._expected()

    def _expected(self) -> FilteredBin:
        mean, covariance, emission = self._mean, self._covariance, self._emission
        assert mean is not None
        loadings = emission.loadings
        spread = ((loadings @ covariance) * loadings).sum(1)[None, None]
        response = emission.response(emission.predictor(mean[None, None]), spread)
        sd = covariance.diagonal().clamp_min(0.0).sqrt()
        return FilteredBin(mean, sd, response.mean[0, 0], response.sd[0, 0])


def _updated(
    mean: Float[Tensor, " latent"],
    covariance: Float[Tensor, "latent latent"],
    emission: LinearEmission,
    values: Float[Tensor, " heldin"],
) -> tuple[Float[Tensor, " latent"], Float[Tensor, "latent latent"]]:
    """Return the moments of z given N(mean, covariance) and a bin.

    Newton's steps are halved until the objective rises (Armijo).
    """
    weight = values.isfinite().to(mean)
    if not bool(weight.any()):
        return mean, covariance
    target, weight = values.nan_to_num()[None, None], weight[None, None]
    none = torch.zeros_like(target)
    precision, loadings = torch.linalg.inv(covariance), emission.loadings
    latent, predictor = mean, emission.predictor(mean[None, None])
    for _ in range(MAX_STEPS):
        terms = emission.terms(target, predictor, none)
        pull = precision @ (latent - mean)
        gradient = (weight * terms.slope)[0, 0] @ loadings - pull
        curvature = (weight * terms.curvature)[0, 0]
        hessian = precision + (curvature * loadings.mT) @ loadings
        root = torch.linalg.cholesky(hessian)
        step = torch.cholesky_solve(gradient[:, None], root)[:, 0]
        decrement = float(gradient @ step)
        if decrement < DECREMENT:
            return latent + step, torch.cholesky_inverse(root)
        change = (loadings @ step)[None, None]
        value = float((weight * terms.value).sum())
        along, square = float(step @ pull), float(step @ precision @ step)
        length = 1.0
        for _ in range(MAX_HALVINGS):
            moved = emission.terms(target, predictor + length * change, none).value
            rise = float((weight * moved).sum()) - value
            if rise - length * along - 0.5 * length**2 * square >= ARMIJO * length * decrement:
                break
            length *= 0.5
        latent, predictor = latent + length * step, predictor + length * change
    return latent, torch.cholesky_inverse(root)
