"""Linear readouts as the functions of ``seqvae.state_space`` take them, and their E-steps."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from seqvae.errors import InputError
from seqvae.observations import Gaussian, Observation, Poisson
from seqvae.observations.gaussian import LEAST_ABOVE
from seqvae.state_space import (
    EStep,
    GaussianEmission,
    LinearEmission,
    PoissonEmission,
    exact,
    laplace,
    variational,
)

Inference = Literal["auto", "exact", "laplace", "variational"]


def require_linear_readout(observation: Observation, reader: str) -> None:
    """Refuse an observation model for which there is no such inference.

    Raises:
        InputError: naming ``reader`` and the observation model.
    """
    if not isinstance(observation, Poisson | Gaussian):
        raise InputError(
            f"observation: {reader} reads Poisson and Gaussian data only, got "
            f"{type(observation).__name__}; a VAE takes any observation model"
        )


def named_e_step(observation: Observation, name: str) -> EStep:
    """Return the E-step of a name; ``auto`` is exact where it can be, else variational.

    Raises:
        InputError: for ``exact`` where it is not, or another name.
    """
    gaussian = isinstance(observation, Gaussian)
    if gaussian and name in ("auto", "exact", "variational"):
        return exact  # which is the best Gaussian, too
    if name == "exact":
        raise InputError(
            f"inference is exact for a Gaussian observation only, not for "
            f"{type(observation).__name__}; take 'variational' or 'laplace'"
        )
    if name == "laplace":
        return laplace
    if name not in ("auto", "variational"):
        raise InputError(f"inference must be auto, exact, laplace or variational, got {name!r}")
    return variational


def emission_of(observation: Observation) -> LinearEmission:
    """Return the parameters of an observation model, in the units of the data."""
    readout = _readout(observation)
    if isinstance(observation, Gaussian):
        unit, least = observation.unit, observation.min_std + LEAST_ABOVE
        return GaussianEmission(
            unit[:, None] * observation.loadings,
            observation.origin + unit * observation.bias,
            unit * observation.std,
            unit * least,
        )
    return PoissonEmission(readout.weight, readout.bias)


@torch.no_grad()
def take_emission(observation: Observation, emission: LinearEmission) -> None:
    """Give an observation model parameters that were learned, in the units of the data."""
    if isinstance(observation, Gaussian):
        assert isinstance(emission, GaussianEmission)
        emission = emission.in_units(observation.origin, observation.unit)
        observation.take_std(emission.std)
    readout = _readout(observation)
    readout.weight.copy_(emission.loadings)
    readout.bias.copy_(emission.bias)


def _readout(observation: Observation) -> nn.Linear:
    readout = observation.readout
    assert isinstance(readout, nn.Linear)
    return readout
