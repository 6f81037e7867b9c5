"""What a diagnosis is made of: plain values, and the sentence that comes of them."""

from __future__ import annotations

from typing import NamedTuple

from seqvae.distributions.kinds import DataKind


class Finding(NamedTuple):
    """One thing that is wrong.

    Attributes:
        name: a word for it, to be looked up.
        sentence: what was found, with its numbers.
        setting: what to change.
    """

    name: str
    sentence: str
    setting: str

    def __str__(self) -> str:
        return f"{self.name.replace('_', ' ')}: {self.sentence}; {self.setting}"


class Spread(NamedTuple):
    """Mean over trials, and standard deviation between them."""

    mean: float
    std: float


class Gain(NamedTuple):
    """How far the evidence lower bound lies above the mean rate's log-likelihood.

    Of the held-in neurons in encoded bins, in nats per entry.

    Attributes:
        mean: over all entries.
        standard_error: of it, over trials.
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
        silent: names of the neurons without a spike in training.
        radius: spectral radius of linear dynamics, if there are some.
        num_time_bins: of a trial.
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
    silent: list[str]
    radius: float | None
    num_time_bins: int


class Settings(NamedTuple):
    """What a fit was told.

    Attributes:
        by_gradient: whether the model was trained by gradients.
        ramp_end: step at which the weights of the bound have their final values.
        beta: the final weight of the KL.
        min_rate: the least learning rate of the schedule, if it has one.
        max_iterations: of expectation maximisation.
        num_trials: that were learned from.
    """

    by_gradient: bool
    ramp_end: int = 0
    beta: float = 1.0
    min_rate: float | None = None
    max_iterations: int | None = None
    num_trials: int = 0
