"""What the models have in common whose posterior an encoder makes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor
from torch.distributions import Distribution

from seqvae.data import NeuralData
from seqvae.encoders import Encoder
from seqvae.models.latent_variable import LatentVariableModel
from seqvae.types import Batch, Output

Encoding = dict[str, "Distribution | Tensor"]
"""All that inference knows of a batch, by name: the first axis of each posterior or tensor is the
trial."""


class AmortisedModel(LatentVariableModel):
    """A model that first encodes the data and then answers from the encoding alone.

    So an encoding can be refined, trial by trial, while the model stays as it is. With a
    ``FreeGaussian`` for its encoder nothing is amortised: each trial of the recording has a
    posterior of its own.

    Subclasses set ``encoder`` and fill in ``encode`` and ``answer``.
    """

    encoder: Encoder

    @abstractmethod
    def encode(self, batch: Batch) -> Encoding:
        """Return all that inference knows of a batch."""

    @abstractmethod
    def answer(self, encoding: Encoding, batch: Batch, num_samples: int = 1) -> Output:
        """Draw posterior samples from an encoding and decode them.

        Of the batch it reads the external inputs and the sizes, not the data.
        """

    def forward(self, batch: Batch, num_samples: int = 1) -> Output:
        """Infer the latents, draw samples and decode them; see the class."""
        return self.answer(self.encode(batch), batch, num_samples)

    @property
    def keeps_trials(self) -> bool:
        """Whether there is something of its own for each trial of the recording."""
        return self.encoder.keeps_trials

    def initialize(self, data: NeuralData) -> None:
        """Start at the training means, with room for each trial of the recording."""
        super().initialize(data)
        self.make_room(data.recording.num_trials, data.spec.num_encoded_bins)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return matrices, which weight decay may shrink, and all the rest; no posterior is."""
        matrices, rest = super().parameter_groups()
        free = list(self.encoder.parameters()) if self.keeps_trials else []
        ids = {id(parameter) for parameter in free}
        matrices["params"] = [p for p in matrices["params"] if id(p) not in ids]
        rest["params"] = [p for p in rest["params"] if id(p) not in ids] + free
        return [matrices, rest]
