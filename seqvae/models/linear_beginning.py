"""Where models begin that learn by gradients from linear dynamics."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.data import NeuralData
from seqvae.distributions.kinds import Real
from seqvae.errors import InputError
from seqvae.models.latent_dynamics import LatentDynamicsModel
from seqvae.models.linear_dynamics import LinearDynamics
from seqvae.observations import Gaussian, GeneralizedLinear, Poisson
from seqvae.state_space import GaussianEmission, begin_linear


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
    """
    kind = model.observation.kind
    if not kind.counts_events and kind != Real():
        return None
    readout = Poisson if kind.counts_events else Gaussian
    linear = LinearDynamics(model.spec, latent_dim=model.latent_dim, observation=readout)
    linear.initialize(data)
    batch = linear.scored(data.batch(data.at_once("train"))).to(linear.offset)
    emission = linear.state_space.emission
    linear.take(begin_linear(emission, batch, e_step=linear.e_step(), iterations=iterations))
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
