"""Refining what an encoder answered, trial by trial, while the model stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal, Normal

from seqvae.compute import noise
from seqvae.compute.noise import step_seed
from seqvae.distributions.unconstrained import gaussian_of_root, log_root
from seqvae.errors import InputError
from seqvae.models.amortised import AmortisedModel, Encoding
from seqvae.models.base import Model
from seqvae.objectives import bound
from seqvae.types import Batch, DataSpec

Leaves = dict[str, "list[Tensor]"]


class Refinement(NamedTuple):
    """What came of refining the encodings of a batch.

    Attributes:
        encoding: the refined encoding, for ``model.answer``.
        elbo: bound on log p of what inference sees, under the refined posterior, nats per trial.
        amortised_elbo: the same under the encoder's posterior, with the same noise.
    """

    encoding: Encoding
    elbo: Float[Tensor, " batch"]
    amortised_elbo: Float[Tensor, " batch"]

    @property
    def amortisation_gap(self) -> Float[Tensor, " batch"]:
        """What the encoder loses against a posterior of the trial's own, nats; never below 0."""
        return self.elbo - self.amortised_elbo


def refine(
    model: Model,
    batch: Batch,
    *,
    num_steps: int = 200,
    num_samples: int = 8,
    learning_rate: float = 0.03,
    score_samples: int = 50,
    seed: int = 0,
) -> Refinement:
    """Optimise the posterior of each trial from the encoder's answer on.

    The parameters of the model are not touched. Free are mean and covariance of each Gaussian
    posterior in the encoding, and every tensor in it: of a ``VAE`` the latents of each bin; of a
    ``SequentialVAE`` the initial condition and the controller's inputs e_t, so that the inferred
    inputs keep a posterior that reacts to their sampled past. The bound is on what inference sees:
    held-out neurons and forecast bins do not count. Adam climbs it with fresh samples at a rate
    that falls to 0. A trial keeps the encoder's answer where the refined one scores no better with
    the same noise. [Cremer et al. 2018; Kim et al. 2018]

    Args:
        model: a trained model.
        batch: some trials, which need not be those it was trained on.
        num_steps: steps of Adam.
        num_samples: posterior samples in each step.
        learning_rate: of the first step.
        score_samples: posterior samples for the two bounds.
        seed: of all noise; the caller's random state is left as it was.

    Raises:
        InputError: if the model has no encoding, or one that is not Gaussian.
    """
    check_refinable(model)
    assert isinstance(model, AmortisedModel)
    batch = model.scored(batch)
    seen = as_inference_sees(batch, model.spec)
    with _frozen(model), noise.apart(seed), torch.enable_grad():
        start = _leaves(model.encode(batch), type(model).__name__)
        free = {
            name: [tensor.clone().requires_grad_() for tensor in tensors]
            for name, tensors in start.items()
        }
        optimizer = torch.optim.Adam([leaf for leaves in free.values() for leaf in leaves])
        for step in range(num_steps):
            optimizer.param_groups[0]["lr"] = learning_rate * (1 - step / num_steps)
            optimizer.zero_grad()
            with noise.keyed(step_seed(seed, step)), noise.of_trials(batch.trial):
                output = model.answer(_encoding(free), seen, num_samples)
            (-bound(output, seen).elbo().sum()).backward()
            optimizer.step()

        @torch.no_grad()
        def score(leaves: Leaves) -> Float[Tensor, " batch"]:
            torch.manual_seed(seed + 1)
            with noise.keyed(step_seed(seed, -1)), noise.of_trials(batch.trial):
                output = model.answer(_encoding(leaves), seen, score_samples)
            return bound(output, seen).elbo()

        before, after = score(start), score(free)
    better = after > before
    best = {
        name: [
            _where(better, new.detach(), old) for new, old in zip(free[name], tensors, strict=True)
        ]
        for name, tensors in start.items()
    }
    return Refinement(_encoding(best), torch.where(better, after, before), before)


def check_refinable(model: Model) -> None:
    """Refuse a model whose posterior is not made by an encoder.

    Raises:
        InputError: naming the model.
    """
    if not isinstance(model, AmortisedModel):
        raise InputError(
            f"refine_steps: a {type(model).__name__} has no encoder whose answer could be refined; "
            "set refine_steps to 0"
        )


def as_inference_sees(batch: Batch, spec: DataSpec) -> Batch:
    """Return the batch with weight 1 on what inference sees and 0 on all else."""
    weight = torch.zeros_like(batch.weight)
    heldin = torch.tensor(spec.heldin, device=weight.device)
    weight[:, : batch.observed.shape[1], heldin] = batch.observed_mask.to(weight)
    return replace(batch, weight=weight)


@contextmanager
def _frozen(model: AmortisedModel) -> Iterator[None]:
    """Without dropout and gradients of parameters, the samples differentiable; then as before."""
    modes = [(module, module.training) for module in model.modules()]
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    objective = model.objective
    model.eval().requires_grad_(False)
    model.objective = replace(objective, gradient="reparameterised")
    try:
        yield
    finally:
        model.objective = objective
        for module, training in modes:
            module.training = training
        for parameter in learned:
            parameter.requires_grad_()


def _leaves(encoding: Encoding, name: str) -> Leaves:
    """Return the numbers that an encoding is made of, free to take any value."""
    leaves: Leaves = {}
    for key, part in encoding.items():
        if isinstance(part, Tensor):
            leaves[key] = [part]
        elif isinstance(part, Normal | MultivariateNormal | LowRankMultivariateNormal):
            leaves[key] = [part.mean, log_root(part)]
        else:
            raise InputError(
                f"refine_steps: {key} of this {name} has a posterior of type "
                f"{type(part).__name__}, and only Gaussian ones can be refined; set refine_steps "
                "to 0"
            )
    return leaves


def _encoding(leaves: Leaves) -> Encoding:
    return {
        name: tensors[0] if len(tensors) == 1 else gaussian_of_root(*tensors)
        for name, tensors in leaves.items()
    }


def _where(chosen: Bool[Tensor, " batch"], new: Tensor, old: Tensor) -> Tensor:
    return torch.where(chosen.reshape(-1, *[1] * (new.ndim - 1)), new, old)
