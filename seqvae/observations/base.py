"""The family of observation models: factors -> p(x | factors)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Distribution

from seqvae.compute.views import Chosen, rows_of
from seqvae.data import Recording
from seqvae.data.pieces import pieces
from seqvae.distributions.kinds import DataKind
from seqvae.errors import InputError
from seqvae.types import Moments

_CURE = "say kind = Counts(), Real(), Binary() or Nonnegative() (seqvae.distributions.kinds)"


class Observation(nn.Module, ABC):
    """Maps factors to a distribution of the data, elementwise over neurons; owns its readout.

    A member is built as ``observation(factor_dim, num_neurons, **own_options)``.

    Attributes:
        kind: of the data that it reads; it decides on null model, baselines and scores.
        has_units: whether ``standardized`` gives every channel mean 0 and deviation 1 in training.

    Raises:
        InputError: for a member that does not state its kind of data.
    """

    kind: ClassVar[DataKind]
    has_units: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        name, kind = type(self).__name__, getattr(self, "kind", None)
        if hasattr(self, "data_kind"):
            raise InputError(
                f"observation: {name} states data_kind, which is read no more; {_CURE}"
            )
        if not isinstance(kind, DataKind):
            stated = "no kind of data" if kind is None else f"kind = {kind!r}, which is none"
            raise InputError(f"observation: {name} states {stated}; {_CURE}")

    def check(self, recording: Recording) -> None:
        """Refuse a recording whose activity the model cannot read.

        Raises:
            InputError: naming the first offending [trial, time, neuron].
        """
        for trials, neurons, activity in pieces(recording):
            try:
                self.check_activity(activity, first=int(trials[0]))
            except InputError:
                if neurons is None:
                    raise
                for trial in trials.tolist():  # which names the neuron among all
                    self.check_activity(recording.read([trial]), first=trial)
                raise

    def check_activity(self, activity: np.ndarray, *, first: int = 0) -> None:
        """Refuse activity (trial, time, neuron) of some trials, from number ``first`` on."""
        self.kind.check(activity, first=first)

    def among(self, chosen: Chosen) -> Observation:
        """Return the observation model of some of the neurons.

        Of each weight with as many rows as there are neurons it has those of these neurons; a
        member whose other weights may have as many says so here.
        """
        return rows_of(self, chosen.neurons, chosen.num_neurons)

    @property
    def scored(self) -> Bool[Tensor, " neuron"] | None:
        """Which neurons are learned from and scored; None: all."""
        return None

    def standardized(
        self, values: Float[Tensor, "*leading chosen"], neurons: list[int]
    ) -> Float[Tensor, "*leading chosen"]:
        """Return the data of some neurons in the units in which they are learned from."""
        return values

    def as_here(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of another observation model as they say the same in these units."""
        return weights

    @abstractmethod
    def forward(self, factors: Float[Tensor, "*leading factor"]) -> Distribution:
        """Return the distribution with batch shape (*leading, neuron) and empty event shape."""

    @abstractmethod
    def initialize(self, moments: Moments) -> None:
        """Start at the data: at factors = 0 the distribution has the training mean (and std)."""
