"""Linear readouts as the functions of ``seqvae.state_space`` take them, and their E-steps."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

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
from seqvae.types import Expectations

Inference = Literal["auto", "exact", "laplace", "variational"]


def has_linear_readout(observation: Observation) -> bool:
    """Return whether the factors enter by a linear predictor eta, as the mean or log-rate of x."""
    if isinstance(observation, Poisson):
        return observation.link == "exp"
    return isinstance(observation, Gaussian)


def require_linear_readout(observation: Observation, reader: str) -> None:
    """Refuse an observation model for which there is no such inference.

    Raises:
        InputError: naming ``reader`` and the observation model, or its link.
    """
    if isinstance(observation, Poisson) and not has_linear_readout(observation):
        raise InputError(
            f"observation.link: {reader} reads rates exp(predictor) only, got "
            f"{observation.link!r}; leave link out, or take a VAE, SequentialVAE or FLDS"
        )
    if not has_linear_readout(observation):
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
    """Return the parameters of an observation model, in double precision and data units."""
    readout = _readout(observation)
    if isinstance(observation, Gaussian):
        origin, unit = observation.origin.double(), observation.unit.double()
        return GaussianEmission(
            unit[:, None] * observation.loadings.double(),
            origin + unit * observation.bias.double(),
            unit * observation.std.double(),
            unit * (observation.min_std + LEAST_ABOVE),
        )
    return PoissonEmission(readout.weight.double(), readout.bias.double())


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


def linear_expectations(
    observation: Observation,
    mean: Float[Tensor, "batch time factor"],
    covariance: Float[Tensor, "batch time factor factor"],
    *,
    target: Float[Tensor, "batch time neuron"],
) -> Expectations:
    """Return what Gaussian factors with these moments make the data, in closed form.

    The predictor eta = c_n . f + d_n of an entry is N(c_n . m + d_n, c_n' V c_n), and what follows
    is known of it alone: for Gaussian noise from these two moments, whatever the distribution of f
    (but for ``log_predictive``); for counts the rate exp(eta) is log-normal.

    Args:
        observation: one that ``has_linear_readout``.
        mean: m of each bin.
        covariance: V of each bin on its own.
        target: the data to expect the log-likelihood of; a missing entry is any number.
    """
    emission = emission_of(observation)
    mean, covariance = mean.to(emission.bias), covariance.to(emission.bias)
    predictor, variance = emission.predictor(mean), emission.spread(covariance)
    target = target.to(predictor)
    response = emission.response(predictor, variance)
    return Expectations(
        factors=mean,
        factors_sd=covariance.diagonal(dim1=-2, dim2=-1).sqrt(),
        mean=response.mean,
        mean_sd=response.sd,
        log_prob=emission.terms(target, predictor, variance).value + emission.constant(target),
        log_predictive=emission.log_predictive(target, predictor, variance),
    )


def _readout(observation: Observation) -> nn.Linear:
    readout = observation.readout
    assert isinstance(readout, nn.Linear)
    return readout
