"""What every gradient-trained model is: a bound to climb, standardised data, posterior samples."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau

from seqvae.compute.views import Chosen, put
from seqvae.data import NeuralData
from seqvae.data.session_alignment import aligned
from seqvae.distributions import Delta, draw
from seqvae.encoders import ReadIn
from seqvae.errors import InputError
from seqvae.models.base import Model
from seqvae.models.trained import LightningModel, OptimizerFactory, ScheduleFactory
from seqvae.objectives import Objective
from seqvae.types import Batch, DataSpec

# Any improvement counts. Torch's default threshold is relative to the best score, and where that is
# negative, as the -ELBO of real-valued data may be, takes anything near it for an improvement.
DEFAULT_SCHEDULE = partial(ReduceLROnPlateau, factor=0.5, patience=12, min_lr=1e-4, threshold=0.0)


class LatentVariableModel(LightningModel):
    """A model trained on the evidence lower bound by gradients.

    Subclasses set ``observation`` and fill in ``forward``, ``sample`` and, where they have some,
    ``recurrent_kernels``.
    Given a ``NeuralData``, the readout starts at the training mean of each neuron.

    Args:
        spec: facts of the data.
        objective: weights of the bound's terms and their warm-up.
        optimizer: factory, parameters -> optimiser.
        schedule: factory, optimiser -> learning-rate schedule, stepped once an epoch; a
            ``ReduceLROnPlateau`` is stepped once a validation on the held-in -ELBO (without one: on
            -log-likelihood), after the warm-ups. None: constant learning rate.
        validation_samples: posterior samples for each trial in validation.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        objective: Objective = Objective(),  # noqa: B008 (frozen)
        optimizer: OptimizerFactory = partial(AdamW, lr=4e-3, weight_decay=0.1),
        schedule: ScheduleFactory | None = DEFAULT_SCHEDULE,
        validation_samples: int = 4,
    ) -> None:
        super().__init__(spec)
        self.objective = objective
        self.make_optimizer = optimizer
        self.make_schedule = schedule
        self.validation_samples = validation_samples
        self.observed_mean: Tensor
        self.observed_scale: Tensor
        self.register_buffer("observed_mean", torch.zeros(spec.num_heldin))
        self.register_buffer("observed_scale", torch.ones(()))

    def standardized(self, batch: Batch) -> Float[Tensor, "batch encoded_time heldin"]:
        """Return what inference sees, centred at the training means, in units of typical deviation.

        Real values are in units of each channel's own deviation. An entry that is missing or
        hidden counts as the mean.
        """
        heldin = list(self.spec.heldin)
        observed = self.observation.standardized(batch.observed, heldin)
        centred = observed - self.observed_mean
        return centred.div_(self.observed_scale).mul_(batch.observed_mask)

    def _narrow(self, view: Model, chosen: Chosen) -> None:
        super()._narrow(view, chosen)
        put(view, "observed_mean", self.observed_mean[chosen.heldin])

    def draw(
        self, posterior: Distribution, num_samples: int
    ) -> Float[Tensor, "sample batch *event"]:
        """Draw posterior samples as the objective's gradient needs them.

        Raises:
            InputError: if the posterior does not allow that gradient.
        """
        gradient = self.objective.gradient
        if self.objective.uses_score:
            if isinstance(posterior, Delta):
                raise InputError(
                    f"gradient {gradient!r} needs a posterior with a density, which a point has not"
                )
            with torch.no_grad():
                return draw(posterior, num_samples)
        if not posterior.has_rsample:
            name = type(posterior).__name__
            raise InputError(
                f"gradient {gradient!r} cannot pass through samples of a posterior of type {name}; "
                "use gradient 'score_function'"
            )
        return draw(posterior, num_samples)

    def initialize(self, data: NeuralData) -> None:
        """Take the training means: null rates of the scores, start of the readout, input scale."""
        super().initialize(data)
        heldin = list(self.spec.heldin)
        if self.observation.has_units:
            self.observed_mean.zero_()
            self.observed_scale.fill_(1.0)
        else:
            std = data.train_moments.std.to(self.null_counts)
            scale = std[heldin].square().mean().sqrt()
            self.observed_mean.copy_(self.null_counts[heldin])
            self.observed_scale.copy_(torch.where(scale > 0, scale, 1.0))
        self._align(data)

    def _align(self, data: NeuralData) -> None:
        """Start the read-ins, wherever they are, where several sessions are aligned."""
        heldin = list(self.spec.heldin)
        ends = self.null_counts.new_tensor([[0.0], [1.0]]).expand(2, len(heldin))
        low, high = self.observation.standardized(ends, heldin)
        for read_in in (module for module in self.modules() if isinstance(module, ReadIn)):
            common = aligned(data, read_in.output_dim)
            if common is not None:
                weight = torch.from_numpy(common.read_in[heldin]).to(low)
                read_in.start(weight * (self.observed_scale / (high - low))[:, None])

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return matrices, which weight decay may shrink, and all the rest, which it must not.

        A bias holds a neuron's mean rate, a vector of a prior its scale; decay would bend the model
        rather than simplify it.
        """
        matrices = [parameter for parameter in self.parameters() if parameter.ndim > 1]
        rest = [parameter for parameter in self.parameters() if parameter.ndim <= 1]
        return [{"params": matrices}, {"params": rest, "weight_decay": 0.0}]
