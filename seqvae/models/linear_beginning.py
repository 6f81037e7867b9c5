"""Where models begin that learn by gradients from linear dynamics."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqvae.data import NeuralData
from seqvae.data.coverage import require_every_neuron
from seqvae.distributions.kinds import Real
from seqvae.errors import InputError
from seqvae.models.base import Model
from seqvae.models.latent_dynamics import LatentDynamicsModel
from seqvae.models.linear_dynamics import LinearDynamics
from seqvae.observations import Gaussian, GeneralizedLinear, Poisson
from seqvae.state_space import GaussianEmission, begin_linear, from_path

MOST_COMPONENTS = 16
"""That the factors of a model begin with."""


class LinearReadout(NamedTuple):
    """Loadings of the latents and bias, for predictors of one's own."""

    weight: Float[Tensor, "neuron latent"]
    bias: Float[Tensor, " neuron"]


def fitted_linear(
    model: LatentDynamicsModel, data: NeuralData, *, iterations: int
) -> LinearDynamics | None:
    """Return linear dynamics of a model's size after some iterations of EM on all neurons.

    Args:
        model: whose data the linear model is to read.
        data: the data to learn from.
        iterations: of EM.

    Returns:
        The linear model; None if there is none for the kind of data.

    Raises:
        InputError: for a neuron that has no value to learn from.
    """
    linear = _linear_of(model, data, model.latent_dim)
    if linear is None:
        return None
    require_every_neuron(data)
    batch = linear.scored(data.batch(data.at_once("train"))).to(linear.offset)
    emission = linear.state_space.emission
    begun = [linear.state_space] if linear.is_aligned else []
    e_step = linear.e_step()
    linear.take(begin_linear(emission, batch, e_step=e_step, iterations=iterations, begun=begun))
    return linear


def aligned_linear(model: Model, data: NeuralData, size: int) -> LinearDynamics | None:
    """Return linear dynamics at which several sessions are aligned, before any iteration of EM.

    Args:
        model: whose data the linear model is to read.
        data: the data to learn from.
        size: of the latents.

    Returns:
        The linear model; None if there is one session, or no such model for the kind of data.
    """
    return _linear_of(model, data, size) if len(data.sessions) > 1 else None


def linear_along(
    model: Model,
    data: NeuralData,
    trials: Int[np.ndarray, " trial"],
    path: Float[Tensor, "trial time latent"],
) -> LinearDynamics | None:
    """Return linear dynamics and readout learned from a path of unit variance of some trials.

    Args:
        model: whose data the linear model is to read.
        data: the data to learn from.
        trials: indices.
        path: of each of them.

    Returns:
        The linear model; None if there is none for the kind of data.
    """
    linear = _linear_of(model, data, path.shape[2])
    if linear is not None:
        batch = linear.scored(data.batch(trials)).to(linear.offset)
        emission = linear.state_space.emission
        linear.take(from_path(emission, batch, path.to(linear.offset), ridge=1.0))
    return linear


@torch.no_grad()
def begin_readout_aligned(model: Model, data: NeuralData) -> None:
    """Start the readout of several sessions where they are aligned, if it is linear.

    A factor then means the same for the neurons of every session: the first ones, at most 16, are
    the components that sessions share.
    """
    observation = model.observation
    if not isinstance(observation, GeneralizedLinear):
        return
    size = min(MOST_COMPONENTS, observation.readout.in_features)
    linear = aligned_linear(model, data, size)
    if linear is not None:
        readout = readout_at(observation, linear)
        observation.readout.weight[:, :size] = readout.weight
        observation.readout.bias.copy_(readout.bias)


def _linear_of(model: Model, data: NeuralData, size: int) -> LinearDynamics | None:
    """Return linear dynamics that know the training means; None if there are none for the data."""
    kind = model.observation.kind
    if not kind.counts_events and kind != Real():
        return None
    readout = Poisson if kind.counts_events else Gaussian
    linear = LinearDynamics(model.spec, latent_dim=size, observation=readout)
    linear.initialize(data)
    return linear


def check_fits(model: LatentDynamicsModel, linear: LinearDynamics) -> None:
    """Refuse linear dynamics of another size, or of other data, than a model is to begin at.

    Raises:
        InputError: naming what differs.
    """
    for name, here, there in (
        ("latent_dim", model.latent_dim, linear.latent_dim),
        ("the number of neurons", model.spec.num_neurons, linear.spec.num_neurons),
        ("the number of inputs", model.spec.num_inputs, linear.spec.num_inputs),
        ("the kind of data", model.observation.kind, linear.observation.kind),
    ):
        if here != there:
            raise InputError(f"{name} is {there} in the fitted model, but {here} here")


@torch.no_grad()
def readout_at(observation: GeneralizedLinear, linear: LinearDynamics) -> LinearReadout:
    """Return the readout that says of the latents what a linear model's says, near its bias.

    With m the mean of a neuron at its bias, a log-rate c . z + d becomes a predictor of bias eta(m)
    and loadings c m / m'(eta); the same c and d where the link is ``exp``.
    """
    emission = linear.state_space.emission
    if isinstance(observation, Gaussian):
        assert isinstance(emission, GaussianEmission)
        emission = emission.in_units(observation.origin, observation.unit)
        observation.take_std(emission.std)
        return LinearReadout(emission.loadings, emission.bias)
    neurons = list(range(linear.spec.num_neurons))
    bias = observation.predictor_of(emission.bias.exp(), neurons)
    response = observation.response(bias, neurons)
    return LinearReadout(emission.loadings * (response.mean / response.slope)[:, None], bias)
