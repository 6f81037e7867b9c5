"""What a diagnosis is made of: plain values, and the sentence that comes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from seqvae.analysis.diagnosis.cures import Cure, FitConfig
from seqvae.distributions.kinds import DataKind


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
        name: a word for it, to be looked up.
        sentence: what was found, with its numbers.
        cures: settings that may help, the most likely first.
        otherwise: what can be done if a fit has none of these settings.
    """

    name: str
    sentence: str
    cures: tuple[Cure, ...] = ()
    otherwise: str = ""

    def fitting(self, config: FitConfig) -> Finding:
        """Return the finding with the cures that a fit has a use for."""
        cures = (cure.fitting(config) for cure in self.cures)
        return self._replace(cures=tuple(cure for cure in cures if cure is not None))

    @property
    def setting(self) -> str:
        """What to change, in words."""
        if not self.cures:
            return self.otherwise
        *words, last = map(str, self.cures)
        return f"{', '.join(words)} or {last}" if words else last

    def __str__(self) -> str:
        return f"{self.name.replace('_', ' ')}: {self.sentence}; {self.setting}"


FEWEST_TRIALS = 5
"""Trials below which nothing is said of how they differ, nor of what all of them have in common."""


class Spread(NamedTuple):
    """Mean over trials, and standard deviation between them, infinite if there are too few."""

    mean: float
    std: float


class Gain(NamedTuple):
    """How far the evidence lower bound lies above the mean rate's log-likelihood.

    Of the held-in neurons in encoded bins, in nats per entry.

    Attributes:
        mean: over all entries.
        standard_error: of it, over trials, infinite if there are too few.
        per_trial: the same gain in nats per trial.
    """

    mean: float
    standard_error: float
    per_trial: float


class Use(NamedTuple):
    """How much of a latent is used.

    Attributes:
        kl: KL from the prior, in nats per trial.
        active: dimensions that are used.
        size: dimensions.
    """

    kl: float
    active: int
    size: int


class OddChannels(NamedTuple):
    """Neurons or channels of which little can be learned, by name.

    Attributes:
        silent: without a spike, or event, in training.
        constant: with one value in all of training.
        far: real-valued, and further from 0 than single precision resolves their deviations.
        twins: pairs that are equal in every bin of training.
    """

    silent: Sequence[str] = ()
    constant: Sequence[str] = ()
    far: Sequence[str] = ()
    twins: Sequence[tuple[str, str]] = ()


class Checkup(NamedTuple):
    """What a fitted model does on its data.

    Attributes:
        null: log-likelihood of the mean rate, in nats per training trial, of all that is scored.
        train: gain in training trials, if the bound is known.
        other: gain in trials that were not trained on, if there are some.
        latents: how much of each latent is used in these (or in training) trials.
        heldin_bits: bits per spike of held-in neurons, of counts.
        heldout_bits: of held-out neurons.
        dispersion: for each neuron of a count model, the variance of the counts over that of the
            emission, what varies slowly left out; 1 if the likelihood is right.
        dispersion_error: their standard errors, over trials.
        observation: the class of the observation model.
        kind: the kind of data that it is made for.
        are_counts: whether the data are counts.
        mean: mean value of the data.
        zeros: share of the values that are exactly zero.
        least: the smallest value of the data.
        radius: spectral radius of linear dynamics, if there are some.
        num_time_bins: of a trial.
        num_trials: trials that were looked at, of those that were not trained on if there are some.
        dimension: the model's argument that is its size.
        channels: the odd ones.
        occupancy: of each latent that is a discrete state, the share of the bins that each state
            holds in.
    """

    null: Spread
    train: Gain | None
    other: Gain | None
    latents: dict[str, Use]
    heldin_bits: float
    heldout_bits: float
    dispersion: list[float]
    dispersion_error: list[float]
    observation: str
    kind: DataKind
    are_counts: bool
    mean: float
    zeros: float
    least: float
    radius: float | None
    num_time_bins: int
    num_trials: int
    dimension: str
    channels: OddChannels = OddChannels()
    occupancy: Mapping[str, Sequence[float]] = {}


class Settings(NamedTuple):
    """What a fit was told.

    Attributes:
        by_gradient: whether the model was trained by gradients.
        ramp_ends: step at which each weight of the bound has its final value, by the setting of its
            warm-up.
        beta: the final weight of the KL.
        min_rate: the least learning rate of the schedule, if it has one.
        max_iterations: of expectation maximisation.
        max_epochs: of training by gradients, if they have a limit.
        max_steps: likewise.
        num_trials: that were learned from.
    """

    by_gradient: bool
    ramp_ends: Mapping[str, int] = {}
    beta: float = 1.0
    min_rate: int | float | None = None
    max_iterations: int | float | None = None
    max_epochs: int | float | None = None
    max_steps: int | float | None = None
    num_trials: int = 0

    @property
    def ramp_end(self) -> int:
        """Step at which all weights have their final values."""
        return max(self.ramp_ends.values(), default=0)

    @property
    def climbs_bound(self) -> bool:
        """Whether learning raises the evidence lower bound, so that it tells how good a fit is."""
        return self.by_gradient or self.max_iterations is not None
