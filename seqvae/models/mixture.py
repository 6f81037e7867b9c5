"""Fitted models as one: the mixture of what each of them predicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqvae.compute import noise
from seqvae.data import NeuralData
from seqvae.distributions import Mixed
from seqvae.errors import InputError
from seqvae.models.base import Model
from seqvae.models.scores import all_expectations
from seqvae.observations import Observation
from seqvae.types import Batch, DataSpec, Expectations, Output

TOLERANCE = 1e-6
"""By how much the sum of weights may differ from 1."""


@dataclass(frozen=True)
class MixtureOutput(Output):
    """What a mixture answers: the factors of all members side by side, and what each answers."""

    members: tuple[Output, ...] = ()


class Mixture(Model):
    """Several models of one recording as one, p(x | seen) = sum_m w_m E_{q_m}[p_m(x | z_m)].

    Its mean is the weighted mean of the members' posterior means, in closed form where a member
    knows its own, and its variance that within and between members. It has no latents of its own,
    and so no bound. A member answers as it does alone, by the noise of its own seed. It is not
    learned, but made of fitted runs (``seqvae.Ensemble``).

    Args:
        spec: facts of the data, those of each member.
        members: factory of each member by its name.
        weights: of each member by its name; None: equal.
        seeds: of the noise of each member by its name; None: 0.

    Attributes:
        names: of the members.
        members: the models.
        weights: one for each member.

    Raises:
        InputError: for members of several kinds of data, or for weights that are none.
    """

    def __init__(
        self,
        spec: DataSpec,
        *,
        members: Mapping[str, Callable[[DataSpec], Model]],
        weights: Mapping[str, float] | None = None,
        seeds: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(spec)
        if not members:
            raise InputError("members: name at least one")
        self.names = tuple(members)
        self.weights = checked_weights(self.names, weights)
        self.members = nn.ModuleList(factory(spec) for factory in members.values())
        for name, member in self.by_name.items():
            member.seed = 0 if seeds is None else seeds.get(name, 0)
            if member.observation.kind != self.observation.kind:
                raise InputError(
                    f"members.{name} reads {member.observation.kind}, but "
                    f"{self.names[0]} {self.observation.kind}; give models of one kind of data"
                )

    @property
    def by_name(self) -> dict[str, Model]:
        """The members by name."""
        pairs = zip(self.names, self.members, strict=True)
        return {name: member for name, member in pairs if isinstance(member, Model)}

    @property
    def observation(self) -> Observation:  # type: ignore[override]
        """That of the first member; all read the same kind of data, and score the same channels."""
        return self.by_name[self.names[0]].observation

    def among(self, neurons: Sequence[int]) -> Mixture:
        """Return the mixture of some of the neurons."""
        view = super().among(neurons)
        members = (member.among(neurons) for member in self.by_name.values())
        view._modules["members"] = nn.ModuleList(members)
        return view

    def forward(self, batch: Batch, num_samples: int = 1) -> MixtureOutput:
        """Let each member answer; a sample of the emission is a mixture of one of each."""
        answers = []
        for member in self.by_name.values():
            with noise.shifted(member.seed - self.seed):
                answers.append(member(batch, num_samples))
        return MixtureOutput(
            latents={},
            factors=torch.cat([answer.factors for answer in answers], dim=-1),
            emission=Mixed([answer.emission for answer in answers], self._shares),
            members=tuple(answers),
        )

    def expectations(self, output: Output, batch: Batch) -> Expectations:
        """Return what the mixture expects, and what each member does."""
        assert isinstance(output, MixtureOutput)
        members = {
            name: all_expectations(answer, batch, member.expectations(answer, batch))
            for (name, member), answer in zip(self.by_name.items(), output.members, strict=True)
        }
        parts = list(members.values())
        mean = self._average([part.mean for part in parts])
        spread = [part.mean_sd.square() + (part.mean - mean).square() for part in parts]
        log_weights = self._shares.log()
        predictive = [
            log_weight + part.log_predictive
            for log_weight, part in zip(log_weights, parts, strict=True)
            if part.log_predictive is not None
        ]
        return Expectations(
            factors=torch.cat([part.factors for part in parts], dim=-1),
            factors_sd=torch.cat([part.factors_sd for part in parts], dim=-1),
            mean=mean,
            mean_sd=self._average(spread).sqrt(),
            log_prob=self._average([part.log_prob for part in parts]),
            log_predictive=torch.stack(predictive).logsumexp(dim=0),
            members=members,
        )

    def members_of_factors(self, batch: Batch) -> list[str]:
        """Return the name of the member that each factor is of.

        Args:
            batch: some trial, to be asked.
        """
        pairs = zip(self.names, self.forward(batch).members, strict=True)
        return [name for name, answer in pairs for _ in range(answer.factors.shape[-1])]

    def sample(
        self, num_trials: int, inputs: Float[Tensor, "batch time input"] | None = None
    ) -> Output:
        """Draw each trial from the prior of a member, which is drawn by its weight."""
        drawn = [member.sample(num_trials, inputs) for member in self.by_name.values()]
        chosen = torch.multinomial(self._shares, num_trials, replacement=True)
        shares = nn.functional.one_hot(chosen, len(drawn)).to(drawn[0].factors).mT
        return MixtureOutput(
            latents={},
            factors=torch.cat([answer.factors for answer in drawn], dim=-1),
            emission=Mixed([answer.emission for answer in drawn], shares[..., None, None]),
            members=tuple(drawn),
        )

    @property
    def keeps_trials(self) -> bool:
        """Whether a member has something of its own for each trial of the recording."""
        return any(member.keeps_trials for member in self.by_name.values())

    def make_room(self, num_trials: int, num_encoded_bins: int) -> None:
        """Start anew what members keep for each trial of a recording."""
        for member in self.by_name.values():
            member.make_room(num_trials, num_encoded_bins)

    def initialize(self, data: NeuralData) -> None:
        """Let the members take the training means."""
        super().initialize(data)
        for member in self.by_name.values():
            member.initialize(data)

    @property
    def _shares(self) -> Float[Tensor, " member"]:
        return torch.tensor(self.weights).to(self.null_counts)

    def _average(self, values: list[Tensor]) -> Tensor:
        pairs = zip(self.weights, values, strict=True)
        first, *others = (weight * value for weight, value in pairs)
        return sum(others, first)


def checked_weights(
    names: tuple[str, ...], weights: Mapping[str, float] | None
) -> tuple[float, ...]:
    """Return the weight of each member; equal ones where none are given.

    Raises:
        InputError: for weights that are missing, negative, or of another sum than 1.
    """
    if weights is None:
        return (1 / len(names),) * len(names)
    if set(weights) != set(names):
        raise InputError(
            f"weights: give one for each of {', '.join(names)}, got {', '.join(weights) or 'none'}"
        )
    for name in names:
        if not (math.isfinite(weights[name]) and weights[name] >= 0):
            raise InputError(f"weights: that of {name} must be at least 0, got {weights[name]:g}")
    total = math.fsum(weights.values())
    if abs(total - 1) > TOLERANCE:
        raise InputError(f"weights must have the sum 1, got {total:g}; divide each by it")
    return tuple(float(weights[name]) for name in names)
