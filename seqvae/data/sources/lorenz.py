"""Spikes of neurons that follow the Lorenz system: chaos in three dimensions, with the truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from seqvae.data.sources.flow import Flow


@dataclass(frozen=True)
class Lorenz(Flow):
    """Poisson counts with log-rates linear in the Lorenz system.

    z follows dz1 = 10 (z2 - z1), dz2 = z1 (28 - z3) - z2, dz3 = z1 z2 - 8/3 z3 from random initial
    conditions, which reach the attractor before the first bin, standardised over the whole
    simulation; log r_tn = w_n . z_t + b, counts ~ Poisson(r bin_width). The last trials are test,
    those before them val. ``rates`` are the truth r in Hz, ``behavior`` is z. [Lorenz 1963; as a
    test of sequential VAEs: Sussillo et al. 2016]

    Attributes:
        speed: Lorenz time units per second.
    """

    burn_in: ClassVar[float] = 10.0

    speed: float = 6.0

    def _begin(self, generator: np.random.Generator) -> Float[np.ndarray, "trial 3"]:
        return generator.standard_normal((self.num_trials, 3)) * 10 + np.array([0.0, 0.0, 25.0])

    def _velocity(self, z: Float[np.ndarray, "trial 3"]) -> Float[np.ndarray, "trial 3"]:
        x, y, w = z.T
        return np.stack([10 * (y - x), x * (28 - w) - y, x * y - 8 / 3 * w], axis=1)
