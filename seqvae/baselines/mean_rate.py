"""The model of no structure: each neuron on its own, whatever the trial and the bin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import Distribution

from seqvae.distributions.kinds import DataKind
from seqvae.types import Moments


@dataclass(frozen=True, eq=False)
class MeanRate:
    """What the training moments of each neuron say of the data, and nothing else does.

    Attributes:
        kind: of the data.
        moments: of each neuron in training.
    """

    kind: DataKind
    moments: Moments

    @classmethod
    def of(cls, train: Float[np.ndarray, "trial time neuron"], kind: DataKind) -> MeanRate:
        """Learn it from training trials, NaN = missing."""
        return cls(kind, training_moments(train))

    @property
    def mean(self) -> Float[np.ndarray, " neuron"]:
        """Expected activity of each neuron, where its likelihood is finite."""
        return self.kind.inside_support(self.moments.mean.numpy())

    @property
    def is_known(self) -> Bool[np.ndarray, " neuron"]:
        """Which neurons have shown in training what must be known of them."""
        return self.kind.is_known(self.moments).numpy()

    def predict(
        self, activity: Float[np.ndarray, "trial time neuron"]
    ) -> Float[np.ndarray, "trial time neuron"]:
        """Expected activity; nothing of ``activity`` but its shape is used."""
        return np.broadcast_to(self.mean, activity.shape).copy()

    def around(
        self,
        mean: Float[Tensor, "*leading neuron"],
        spread: Float[Tensor, " neuron"] | None = None,
    ) -> Distribution:
        """Return what a mean from elsewhere stands for.

        Args:
            mean: expected activity.
            spread: standard deviation of the training entries about such means; None: about
                each neuron's own mean.
        """
        spread = self.moments.std if spread is None else spread
        return self.kind.around(mean, self.moments, spread=spread)

    def distribution(self) -> Distribution:
        """Return the distribution of an entry, batch shape (neuron,)."""
        return self.around(self.kind.clamp(self.moments.mean))


def training_moments(train: Float[np.ndarray, "trial time neuron"]) -> Moments:
    """Return the moments of the present entries of each neuron in float64; 0 if there is none."""
    present = np.isfinite(train)
    number = np.maximum(present.sum((0, 1)), 1)
    mean = np.where(present, train, 0.0).sum((0, 1), dtype=np.float64) / number
    spread = np.where(present, train - mean, 0.0)
    std = np.sqrt((spread**2).sum((0, 1)) / number)
    nonzero = (present & (train != 0)).sum((0, 1)) / number
    return Moments(*(torch.from_numpy(part) for part in (mean, std, nonzero)))
