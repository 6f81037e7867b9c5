"""One step of a prior over paths, for decoders that draw their latents as they go."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Normal

from seqvae.distributions.divergence import bare
from seqvae.distributions.gaussian_ar1 import GaussianAR1
from seqvae.errors import InputError


def prior_conditional(
    prior: Distribution, step: int, previous: Float[Tensor, "*leading latent"] | None
) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of p(u_t | u_{t-1}).

    Args:
        prior: p(u) with event or batch shape (time, latent).
        step: t, counted from 0.
        previous: u_{t-1}; None at the first step.

    Raises:
        InputError: if the prior has no Gaussian conditionals.
    """
    prior = bare(prior)
    if isinstance(prior, GaussianAR1):
        if previous is None:
            return prior.mean[0], prior.stationary_std
        return prior.conditional(previous)
    if isinstance(prior, Normal):
        return prior.mean[step], prior.stddev[step]
    raise InputError(
        f"a forecast or a new trial needs p(u_t | u_(t-1)), but a prior of {type(prior).__name__} "
        "has no Gaussian conditionals; use one that answers with GaussianAR1 or Normal"
    )
