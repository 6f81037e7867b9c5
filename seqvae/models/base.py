"""What the verbs know of a model, however it is learned."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from seqvae.compute import noise
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.observations import Observation
from seqvae.types import Batch, DataSpec, Output


class Model(nn.Module, ABC):
    """A latent-variable model of trials; answers a batch with latents, factors and emission.

    Subclasses set ``observation`` and fill in ``forward`` and ``sample``.

    Args:
        spec: facts of the data.

    Attributes:
        dimension_argument: the constructor's argument that is its size.
        serves_any_heldin: whether what is learned does not depend on which neurons are held in: all
            are learned from, and latents can be inferred from any of them.
        observation: the distribution of the data, given the factors.
        null_counts: training mean of each neuron, NaN until ``initialize``.
        has_begun: whether the parameters are those of a fitted model, to begin from.
        seed: of the noise in learning.
    """

    dimension_argument: ClassVar[str]
    serves_any_heldin: ClassVar[bool] = False
    observation: Observation

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.spec = spec
        self.seed = 0
        self.has_begun = False
        self.null_counts: Tensor
        self.register_buffer("null_counts", torch.full((spec.num_neurons,), torch.nan))

    def __call__(self, batch: Batch, num_samples: int = 1, *more: object) -> Output:
        """Answer a batch; keyed noise hangs on each trial, whatever the batch it comes in.

        Data-parallel training comes this way, too, with the arguments of a training step.
        """
        with noise.of_trials(batch.trial):
            return super().__call__(batch, num_samples, *more)

    @abstractmethod
    def forward(self, batch: Batch, num_samples: int = 1) -> Output:
        """Infer the latents of a batch and return posterior samples, factors and emission."""

    @abstractmethod
    def sample(
        self, num_trials: int, inputs: Float[Tensor, "batch time input"] | None = None
    ) -> Output:
        """Draw new trials from the prior: latents, factors and emission (one sample)."""

    @torch.no_grad()
    def begin_from(self, smaller: Model) -> None:
        """Take over what a smaller model of the same class has learned, to learn on from there.

        Of each parameter the leading block is taken; what the smaller model does not have stays as
        it is.
        """
        for name, own in self.state_dict().items():
            other = smaller.state_dict()[name]
            sizes = zip(own.shape, other.shape, strict=True)
            block = tuple(slice(0, min(size, its)) for size, its in sizes)
            own[block] = other[block].to(own)
        self.has_begun = True

    def emission_given(
        self, latents: dict[str, Float[Tensor, "sample batch ..."]], batch: Batch
    ) -> Distribution:
        """Return p(x | z) of given latents, such as ``forward`` answers as samples, by name.

        With the prior it makes the joint density p(x, z), to which the posterior that ``forward``
        answers is an approximation. Of the batch the external inputs and sizes are read.

        Raises:
            InputError: for a model that does not tell it.
        """
        raise InputError(f"{type(self).__name__} does not tell p(x | z) for latents that are given")

    def evidence(self, batch: Batch) -> dict[str, Float[Tensor, " batch"]]:
        """Return what is known of log p(x), x all that inference sees, by name, in nats per trial.

        ``log_evidence`` where it is exact; ``laplace_evidence``, which is not a bound. To compare
        with ``heldin_elbo``. Most models know nothing.
        """
        return {}

    @property
    def keeps_trials(self) -> bool:
        """Whether there is something of its own for each trial of the recording."""
        return False

    def make_room(self, num_trials: int, num_encoded_bins: int) -> None:
        """Start anew what is kept for each trial of a recording; most models keep nothing."""

    @property
    def initialized(self) -> bool:
        """Whether the training means are known."""
        return not bool(torch.isnan(self.null_counts).any())

    def initialize(self, data: NeuralData) -> None:
        """Take the training means: null rates of the scores, start of the readout.

        Raises:
            InputError: if the data are not of the kind that the observation model reads.
        """
        data.recording.require(self.observation.data_kind)
        mean, std = data.train_mean.to(self.null_counts), data.train_std.to(self.null_counts)
        self.null_counts.copy_(mean)
        self.observation.initialize(mean, std)
