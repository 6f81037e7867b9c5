"""What a model was learned on."""

from __future__ import annotations

from typing import NamedTuple

from seqvae.data import NeuralData
from seqvae.models import Model
from seqvae.types import Moments


class Training(NamedTuple):
    """What baselines and decoders are learned on.

    Attributes:
        model: the model as it answers the trials that it was learned on.
        data: of its fit; None: they are not at hand.
        moments: what each neuron was on its own in the trials learned from, for where they are not.
    """

    model: Model
    data: NeuralData | None
    moments: Moments | None = None

    @property
    def learned(self) -> NeuralData | None:
        """The data, all trials that the model was learned from as training trials."""
        refitted = self.data is not None and self.model.refitted
        return self.data.merged() if self.data is not None and refitted else self.data
