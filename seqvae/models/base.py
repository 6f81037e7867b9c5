"""What the verbs know of a model, however it is learned."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from seqvae.compute import noise
from seqvae.compute.views import Chosen, KnowsNeurons, put, view_of
from seqvae.data import NeuralData
from seqvae.data.pieces import constant_in
from seqvae.data.validation import names_of
from seqvae.errors import InputError
from seqvae.observations import Observation
from seqvae.state_space import LinearFilter
from seqvae.types import Batch, DataSpec, Expectations, Moments, Output

_TRAINING_MEANS = (
    "null_counts",
    "observed_mean",
    "observed_scale",
    *(f"observation.{name}" for name in ("origin", "unit", "varies")),
)

AnyModel = TypeVar("AnyModel", bound="Model")


class Model(nn.Module, ABC):
    """A latent-variable model of trials; answers a batch with latents, factors and emission.

    Subclasses set ``observation`` and fill in ``forward`` and ``sample``.

    Args:
        spec: facts of the data.

    Attributes:
        dimension_argument: the constructor's argument that is its size.
        serves_any_heldin: whether what is learned does not depend on which neurons are held in: all
            are learned from, and latents can be inferred from any of them.
        reads_inputs: whether what the model answers depends on external inputs.
        observation: the distribution of the data, given the factors.
        null_counts: training mean of each neuron, NaN until ``initialize``.
        start: run folder of a fitted model to begin from, which whoever fits reads and gives to
            ``begin_from``; None: begin at random.
        starts_from: the class of models that ``start`` may name.
        has_begun: whether the parameters are those of a fitted model, to begin from.
        refitted: whether it was learned from the validation trials, too, after these had chosen for
            how long.
        seed: of the noise in learning.
    """

    dimension_argument: ClassVar[str]
    serves_any_heldin: ClassVar[bool] = False
    reads_inputs: ClassVar[bool] = False
    starts_from: ClassVar[type[Model]]
    start: str | None = None
    observation: Observation

    def __new__(cls, *arguments: Any, **settings: Any) -> Model:
        """Refuse settings without data, which a factory would be given."""
        if settings and not arguments and "spec" not in settings:
            listed = ", ".join(f"{name}={value!r}" for name, value in settings.items())
            raise InputError(
                f"{cls.__name__} is built for data; give the factory "
                f"partial({cls.__name__}, {listed}), or {cls.__name__}(data.spec, {listed})"
            )
        return super().__new__(cls)

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.spec = spec
        self.seed = 0
        self.has_begun = False
        self.refitted = False
        self.null_counts: Tensor
        self.register_buffer("null_counts", torch.full((spec.num_neurons,), torch.nan))

    def __call__(self, batch: Batch, num_samples: int = 1, *more: object) -> Output:
        """Answer a batch; keyed noise depends on each trial, whatever the batch it comes in.

        Data-parallel training comes this way, too, with the arguments of a training step.
        """
        with noise.of_trials(batch.trial):
            return super().__call__(self.scored(batch), num_samples, *more)

    def scored(self, batch: Batch) -> Batch:
        """Return a batch in which what the observation model does not score is missing.

        A real-valued channel that did not vary in training is hidden from inference, too.
        """
        scored, heldin = self.observation.scored, self.spec.heldin
        if scored is None:
            return batch
        if batch.neurons is not None:
            scored, heldin = scored[list(batch.neurons)], self.spec.among(batch.neurons).heldin
        mask = batch.observed_mask & scored[list(heldin)]
        observed = torch.where(mask, batch.observed, 0.0)
        return replace(batch, observed=observed, observed_mask=mask, weight=batch.weight * scored)

    def narrowed(self: AnyModel, batch: Batch) -> tuple[AnyModel, Batch]:
        """Return the model of those neurons that a batch has, and the batch as it reads it.

        Of what is known of each neuron it has the rows of these neurons, through which gradients
        reach the whole; all else is shared. So what a trial costs does not depend on how many
        neurons other sessions have. A batch of all neurons is read by the model itself.
        """
        if batch.neurons is None:
            return self, batch
        return self.among(batch.neurons), replace(batch, neurons=None)

    def among(self: AnyModel, neurons: Sequence[int]) -> AnyModel:
        """Return the model of some of the neurons; see ``narrowed``."""
        spec, view = self.spec, view_of(self)
        rows = torch.tensor(neurons, dtype=torch.int64).to(self.null_counts.device)
        places = torch.from_numpy(spec.heldin_among(neurons)).to(rows.device)
        chosen = Chosen(rows, places, spec.num_neurons, spec.num_heldin)
        view.spec = spec.among(neurons)
        self._narrow(view, chosen)
        return view

    def _narrow(self, view: Model, chosen: Chosen) -> None:
        """Put what is known of some neurons in the place of what is known of all."""
        put(view, "null_counts", self.null_counts[chosen.neurons])
        for name, part in self._modules.items():
            if isinstance(part, KnowsNeurons):
                view._modules[name] = part.among(chosen)

    @abstractmethod
    def forward(self, batch: Batch, num_samples: int = 1) -> Output:
        """Infer the latents of a batch and return posterior samples, factors and emission."""

    @abstractmethod
    def sample(
        self, num_trials: int, inputs: Float[Tensor, "batch time input"] | None = None
    ) -> Output:
        """Draw new trials from the prior: latents, factors and emission (one sample)."""

    @torch.no_grad()
    def begin_from(self, other: Model, *, leading_blocks: bool = False) -> list[str]:
        """Take over what another model has learned, to learn on from there.

        All that has the same name and the same shape is taken. The training means (null rates,
        offset and scale of what inference sees, origin and unit of real-valued channels) stay those
        of the data that this model was initialised with, so loadings keep what they mean in units
        of each channel's deviation. To be called after ``initialize``.

        Args:
            other: the fitted model.
            leading_blocks: ``other`` is a smaller model of the same class, learned on the same
                recording: of everything, training means included, its size is taken as the leading
                block, and the rest stays as it is.

        Returns:
            What was not taken over, a few words for each: the weights that are here only, there
            only, or of another shape.

        Raises:
            InputError: if nothing can be taken over.
        """
        own, others = self.state_dict(), other.state_dict()
        if leading_blocks:
            for name, weight in own.items():
                sizes = zip(weight.shape, others[name].shape, strict=True)
                block = tuple(slice(0, min(size, its)) for size, its in sizes)
                weight[block] = others[name][block].to(weight)
            self.has_begun = True
            return []
        readout = self.observation.as_here(other.observation.state_dict())
        others |= {f"observation.{name}": weight for name, weight in readout.items()}
        apart, num_taken = [], 0
        for name in [name for name in {**own, **others} if name not in _TRAINING_MEANS]:
            if name not in others:
                apart.append(f"{name} is not there")
            elif name not in own:
                apart.append(f"{name} is there, but not here")
            elif own[name].shape != others[name].shape:
                there, here = tuple(others[name].shape), tuple(own[name].shape)
                apart.append(f"{name} has shape {there} there, but {here} here")
            else:
                own[name].copy_(others[name])
                num_taken += own[name].numel()
        links = [getattr(model.observation, "link", None) for model in (other, self)]
        if None not in links and links[0] != links[1]:
            apart.append(f"observation.link is {links[0]!r} there, but {links[1]!r} here")
        if not num_taken:
            raise InputError(
                f"a {type(other).__name__} of these sizes has no weight of the name and shape of "
                f"one of this {type(self).__name__}"
            )
        self.has_begun = True
        return apart

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

    def filter(self) -> LinearFilter:
        """Return what infers each bin from it and those before, one at a time.

        Raises:
            InputError: for a model that is not causal, as most are not.
        """
        raise InputError(
            f"{type(self).__name__} is not causal: it infers each bin from later ones, too; a "
            "LinearDynamics fitted to the same data is, by its filter"
        )

    def expectations(self, output: Output, batch: Batch) -> Expectations | None:
        """Return what the posterior expects of factors and data, if that is known without samples.

        It is where the posterior is Gaussian and the readout linear. None, as of most models: means
        over the samples of ``output`` stand for it.

        Args:
            output: what ``forward`` answered.
            batch: what it was asked; its target may be another.
        """
        return None

    def start_inference(self) -> None:
        """Start what infers at what the readout tells of each neuron, if the model can say it."""

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
        self.observation.check(data.recording)
        moments = Moments(*(part.to(self.null_counts) for part in data.train_moments))
        self.null_counts.copy_(moments.mean)
        self.observation.initialize(moments)
        self._warn_of_unscored(data)

    def _warn_of_unscored(self, data: NeuralData) -> None:
        """Name the channels that vary, but not in training; of others loading has warned."""
        scored, recording = self.observation.scored, data.recording
        if scored is None or bool(scored.all()):
            return
        unscored = (~scored).nonzero()[:, 0].cpu().numpy()
        unscored = np.setdiff1d(unscored, constant_in(recording))
        if len(unscored):
            assert recording.neuron_ids is not None
            warnings.warn(
                f"{len(unscored)} of {recording.num_neurons} channels do not vary in the training "
                f"trials: {names_of(unscored, recording.neuron_ids)}; they are neither learned nor "
                "scored",
                stacklevel=2,
            )
