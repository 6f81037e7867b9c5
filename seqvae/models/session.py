"""What a model knows of one session of recordings."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from seqvae.observations import Observation
from seqvae.types import DataSpec


@dataclass(frozen=True)
class Session:
    """The facts, training moments and readout of a session, whatever else the sessions share.

    Attributes:
        spec: facts of the data.
        null_counts: training mean of each neuron, NaN until the model is initialized.
        observation: the distribution of the data, given the factors.
        observed_mean: what inference centres the held-in data at; 0 where it reads them as they
            are.
        observed_scale: the unit in which it reads them.
    """

    spec: DataSpec
    null_counts: Float[Tensor, " neuron"]
    observation: Observation
    observed_mean: Float[Tensor, " heldin"] | float = 0.0
    observed_scale: Float[Tensor, ""] | float = 1.0
