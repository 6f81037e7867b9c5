"""Observation models that read the factors by one linear predictor a neuron."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from seqvae.observations.base import Observation


class LinkResponse(NamedTuple):
    """What a predictor makes of the data, in the units in which they are learned from.

    Attributes:
        mean: m(eta).
        slope: dm / d eta.
        variance: of the data about their mean.
    """

    mean: Float[Tensor, "*leading neuron"]
    slope: Float[Tensor, "*leading neuron"]
    variance: Float[Tensor, "*#leading neuron"]

    def score(self, values: Float[Tensor, "*leading neuron"]) -> Float[Tensor, "*leading neuron"]:
        """Return d log p / d eta = (x - m) m' / variance."""
        return (values - self.mean) * self.slope / self.variance

    @property
    def information(self) -> Float[Tensor, "*leading neuron"]:
        """Fisher's information about eta, m'^2 / variance."""
        return self.slope.square() / self.variance


class GeneralizedLinear(Observation):
    """x_tn of mean m(eta_tn), eta_tn = w_n . f_t + b_n: a generalised linear model of the factors.

    So score and information about eta have one form, and inference by iterated linearisation can
    read any member [McCullagh & Nelder 1989, Generalized Linear Models].
    """

    readout: nn.Linear

    @abstractmethod
    def response(
        self, predictor: Float[Tensor, "*leading chosen"], neurons: list[int]
    ) -> LinkResponse:
        """Return mean, slope and variance of the data of some neurons at a predictor."""

    @abstractmethod
    def predictor_of(
        self, mean: Float[Tensor, "*leading chosen"], neurons: list[int]
    ) -> Float[Tensor, "*leading chosen"]:
        """Return the predictor eta at which the data of some neurons have a mean."""

    def loadings_of(
        self, neurons: list[int]
    ) -> tuple[Float[Tensor, "chosen factor"], Float[Tensor, " chosen"]]:
        """Return w and b of some neurons."""
        return self.readout.weight[neurons], self.readout.bias[neurons]
