"""A linear state-space model as a value, and its M-step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.state_space.dynamics import Dynamics, PathMoments, maximize_dynamics
from seqvae.state_space.emissions import LinearEmission
from seqvae.types import Batch


class LinearStateSpace(NamedTuple):
    """All parameters of a linear state-space model."""

    dynamics: Dynamics
    emission: LinearEmission

    def transformed(
        self, change: Float[Tensor, "latent latent"], shift: Float[Tensor, " latent"]
    ) -> LinearStateSpace:
        """Return the same distribution of the data with latents S (z - s)."""
        return LinearStateSpace(
            self.dynamics.transformed(change, shift),
            self.emission.transformed(torch.linalg.inv(change), shift),
        )


@torch.no_grad()
def maximize(
    model: LinearStateSpace,
    moments: PathMoments,
    *,
    batch: Batch,
    ridge: float,
) -> LinearStateSpace:
    """Return the parameters after one M-step: the penalised bound of the posterior does not fall.

    Args:
        model: the parameters the posterior was inferred with.
        moments: of the posterior, all neurons seen.
        batch: the trials to learn from: what has weight is scored.
        ridge: of the loadings.
    """
    dynamics = maximize_dynamics(
        model.dynamics, moments, inputs=batch.inputs, time_mask=batch.time_mask
    )
    emission = model.emission.maximized(
        moments, target=batch.target, weight=batch.weight, ridge=ridge
    )
    return LinearStateSpace(dynamics, emission)
