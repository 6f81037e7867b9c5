"""The joint density of latents and of what inference sees of a trial."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.compute import noise
from seqvae.distributions.divergence import log_density
from seqvae.models import Model
from seqvae.types import Batch, Latent


def what_is_seen(batch: Batch, heldin: Sequence[int]) -> Batch:
    """Return the part of one trial that inference sees: held-in neurons in encoded bins.

    Nothing else has weight, and forecast bins and padding are cut off, so that the bound and the
    joint density are those of the very data that the posterior was made of.

    Args:
        batch: one trial.
        heldin: indices of the neurons held in.
    """
    assert len(batch) == 1
    num_bins = min(batch.observed.shape[1], int(batch.lengths[0]))
    mask, target = batch.observed_mask[:, :num_bins], batch.target[:, :num_bins].clone()
    target[..., list(heldin)] = batch.observed[:, :num_bins]
    weight = torch.zeros_like(target)
    weight[..., list(heldin)] = mask.to(target)
    return Batch(
        observed=batch.observed[:, :num_bins],
        observed_mask=mask,
        target=target,
        weight=weight,
        inputs=batch.inputs[:, :num_bins],
        lengths=batch.lengths.clamp(max=num_bins),
        trial=batch.trial,
        neurons=batch.neurons,
    )


class JointDensity:
    """log p(x, z) = log p(x | z) + log p(z) of latents that are given, x being a batch.

    Args:
        model: a model that answers ``emission_given``.
        batch: the data.
    """

    def __init__(self, model: Model, batch: Batch) -> None:
        self.model = model
        self.batch = batch = model.scored(batch)
        with torch.no_grad():
            latents = model(batch, 1).latents
        self._priors = {name: (latent.prior, latent.mask) for name, latent in latents.items()}

    def __call__(
        self, latents: dict[str, Float[Tensor, "sample batch ..."]]
    ) -> Float[Tensor, "sample batch"]:
        """Return log p(x, z) in nats of each sample and trial."""
        emission = self.model.emission_given(latents, self.batch)
        total = (self.batch.weight * emission.log_prob(self.batch.target)).sum((-2, -1))
        for name, (prior, mask) in self._priors.items():
            total = total + log_density(prior, Latent(prior, prior, latents[name], mask))
        return total


@contextmanager
def frozen_model(model: Model, *, seed: int) -> Iterator[None]:
    """In double precision, without dropout or gradients of parameters, and with a seed of its own.

    Everything is as it was afterwards.
    """
    modes = [(module, module.training) for module in model.modules()]
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    values = [(parameter, parameter.data) for parameter in model.parameters()]
    buffers = [(module, dict(module.named_buffers(recurse=False))) for module in model.modules()]
    model.eval().double().requires_grad_(False)
    try:
        with noise.apart(seed):
            yield
    finally:
        for parameter, value in values:
            parameter.data = value
        for module, tensors in buffers:
            for name, value in tensors.items():
                setattr(module, name, value)
        for parameter in learned:
            parameter.requires_grad_(True)
        for module, training in modes:
            module.training = training
