"""Spikes of neurons that follow a limit cycle: an oscillation in two dimensions, with the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from seqvae.data.sources.flow import Flow
from seqvae.errors import InputError

_FARTHEST = 2.0
"""Largest radius at which a trial begins; the cycle has radius 1."""


@dataclass(frozen=True)
class LimitCycle(Flow):
    """Poisson counts with log-rates linear in a planar oscillation of stable amplitude.

    z follows the normal form of a Hopf bifurcation, in polar coordinates

        d radius = attraction radius (1 - radius^2),    d phase = 1,

    from a random phase and a random radius between 0 and 2, so that trials approach the unit
    circle from both sides; the plane is then standardised over the whole simulation.
    log r_tn = w_n . z_t + b, counts ~ Poisson(r bin_width). The last trials are test, those before
    them val. ``rates`` are the truth r in Hz, ``behavior`` is z. [Strogatz 2015, chapter 8]

    Attributes:
        speed: radians per second; 12 are about two turns.
        attraction: how fast trials approach the circle, per radian.
    """

    speed: float = 12.0
    attraction: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.attraction <= 100:
            raise InputError(f"attraction must be from 0 to 100, got {self.attraction}")

    def _begin(self, generator: np.random.Generator) -> Float[np.ndarray, "trial 2"]:
        phase = generator.uniform(0, 2 * np.pi, self.num_trials)
        radius = generator.uniform(0, _FARTHEST, self.num_trials)
        return radius[:, None] * np.stack([np.cos(phase), np.sin(phase)], axis=1)

    def _velocity(self, z: Float[np.ndarray, "trial 2"]) -> Float[np.ndarray, "trial 2"]:
        inward = self.attraction * (1 - (z**2).sum(1, keepdims=True))
        return inward * z + np.stack([-z[:, 1], z[:, 0]], axis=1)
