"""What a fitted model tells: of its latents, its likelihood, and of trials it has not seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqvae.analysis.diagnosis.facts import Checkup, Finding, Settings
from seqvae.analysis.diagnosis.training import FEWEST_NATS
from seqvae.distributions.kinds import Real

MOST_DISPERSION = 1.2
"""Ratio of variances above which counts are not Poisson (Payne et al. 2018)."""
MOST_NEURONS = 0.25
"""Share of the neurons that may be so."""
LARGE_COUNT = 10.0
"""Mean count from which on a Gaussian is near enough to a Poisson (its skewness is below 1/3)."""
MOST_ZEROS = 0.25
"""Share of exact zeros among real values, of which a Gaussian has none."""


def posterior_collapse(checkup: Checkup, settings: Settings) -> list[Finding]:
    """Find latents that are not used.

    A dimension is active if its posterior mean varies over the data by more than 0.01 of the
    prior's variance (Burda et al. 2016). As a Gaussian channel it then carries more than
    -log(1 - 0.01) / 2 = 0.005 nats, and its KL, which is at least what it carries, can be told for
    every latent: ``Checkup`` counts as active what has more, per bin where it is a time course.
    All latents together are not used, either, if they carry less than a nat a trial and the model
    gains nothing over the mean rate. ``inferred_inputs`` alone may be idle.
    """
    uses, gain = checkup.latents, checkup.other or checkup.train
    if not uses:
        return []
    idle = [name for name, use in uses.items() if use.active == 0]
    nothing = gain is not None and gain.mean <= 2 * gain.standard_error
    everything = sum(use.kl for use in uses.values())
    if nothing and everything < FEWEST_NATS:
        idle = list(uses)
    if len(idle) < len(uses):
        idle = [name for name in idle if name != "inferred_inputs"]
    if not idle:
        return []
    carried = ", ".join(f"{name} {use.kl:.2g}" for name, use in uses.items())
    sentence = f"{' and '.join(idle)} not used (KL in nats per trial: {carried})"
    setting = "the data may hold nothing in common; else try fewer latent dimensions"
    if settings.by_gradient:
        setting = (
            "lower model.objective.beta, raise model.objective.beta_steps, or set "
            "model.objective.free_bits"
        )
    if len(idle) < len(uses):
        setting = "lower model.inferred_input_dim, unless trials are meant to begin alike"
    return [Finding("posterior_collapse", sentence, setting)]


def overfitting(checkup: Checkup) -> list[Finding]:
    """Find a model that knows its training trials only.

    Bounds are compared at beta = 1, without dropout, per entry. More than half of what is gained
    over the mean rate in training trials must be missing in others, by two standard errors; or
    held-out neurons must be predicted worse than by their mean, held-in ones better.
    """
    setting = (
        "raise model.optimizer.weight_decay, model.dropout or data.coordinated_dropout, or make "
        "the model smaller"
    )
    train, other = checkup.train, checkup.other
    if train is not None and other is not None:
        gap = train.mean - other.mean
        error = (train.standard_error**2 + other.standard_error**2) ** 0.5
        if gap > 0.5 * train.mean > 0 and gap > 2 * error:
            sentence = (
                f"the bound gains {train.mean:.3g} nats per entry over the mean rate in training "
                f"trials, {other.mean:.3g} in others"
            )
            return [Finding("overfitting", sentence, setting)]
    if checkup.heldin_bits > 0.01 and checkup.heldout_bits < -0.01:
        sentence = (
            f"held-in neurons are predicted with {checkup.heldin_bits:.3g} bits per spike, "
            f"held-out ones with {checkup.heldout_bits:.3g}"
        )
        return [Finding("overfitting", sentence, setting)]
    return []


def worse_than_mean_rate(checkup: Checkup, settings: Settings) -> list[Finding]:
    """Find a bound below the mean rate's log-likelihood, by two standard errors.

    With beta below 1 the bound is not what was asked for.
    """
    gain = checkup.other or checkup.train
    if gain is None or settings.beta < 1 or gain.mean >= -2 * gain.standard_error:
        return []
    sentence = (
        f"the bound lies {-gain.mean:.3g} nats per entry below the log-likelihood of the mean rate"
    )
    setting = "train longer (learner.trainer.max_epochs), or with fewer latent dimensions"
    return [Finding("worse_than_mean_rate", sentence, setting)]


def worse_than_smoothing(scores: Mapping[str, Any] | None) -> list[Finding]:
    """Find held-out predictions worse than those of smoothing + GLM, by two standard errors."""
    gain = (scores or {}).get("gain", {}).get("smoothing_glm")
    if gain is None or gain["mean"] >= -2 * gain["standard_error"]:
        return []
    sentence = (
        f"what the model did not see it predicts {-gain['mean']:.3g} +- "
        f"{gain['standard_error']:.2g} bits per spike worse than smoothing + GLM"
    )
    setting = "try another model (LinearDynamics, SequentialVAE), or crossvalidate its size"
    return [Finding("worse_than_smoothing", sentence, setting)]


def wrong_likelihood(checkup: Checkup) -> list[Finding]:
    """Find data that the observation model cannot have made.

    A quarter of the neurons must have counts whose dispersion exceeds 1.2, and 1 by two standard
    errors; of neurons that are Poisson, one in forty does the latter.
    """
    observation = f"its observation is {checkup.observation}"
    if checkup.kind.counts_events and checkup.observation != "NegativeBinomial":
        pairs = zip(checkup.dispersion, checkup.dispersion_error, strict=True)
        above = [x for x, error in pairs if x > MOST_DISPERSION and x - 1 > 2 * error]
        if len(above) > MOST_NEURONS * max(1, len(checkup.dispersion)):
            middle = sorted(above)[len(above) // 2]
            sentence = (
                f"{len(above)} of {len(checkup.dispersion)} neurons vary more than the model says, "
                f"typically {middle:.2g} times its variance; {observation}"
            )
            setting = "set model.observation to NegativeBinomial"
            return [Finding("overdispersed_counts", sentence, setting)]
    if checkup.kind == Real():
        if checkup.are_counts and checkup.mean < LARGE_COUNT:
            sentence = f"the data are counts of {checkup.mean:.3g} on average; {observation}"
            setting = "set model.observation to Poisson or NegativeBinomial"
            return [Finding("gaussian_counts", sentence, setting)]
        if not checkup.are_counts and checkup.zeros > MOST_ZEROS:
            sentence = f"{checkup.zeros:.0%} of the values are exactly zero; {observation}"
            setting = "give events as counts with model.observation Poisson, or traces without a "
            return [Finding("many_zeros", sentence, setting + "threshold")]
    return []


def unstable_dynamics(checkup: Checkup) -> list[Finding]:
    """Find linear dynamics that at least double within a trial of their own accord."""
    radius = checkup.radius
    if radius is None or radius <= 1 or radius**checkup.num_time_bins < 2:
        return []
    sentence = (
        f"the spectral radius of the transition is {radius:.4g}, so that latents grow by "
        f"{radius**checkup.num_time_bins:.3g} over the {checkup.num_time_bins} bins of a trial"
    )
    setting = "lower model.latent_dim, or give longer or more trials"
    return [Finding("unstable_dynamics", sentence, setting)]


def silent_neurons(checkup: Checkup) -> list[Finding]:
    """Find neurons of which nothing can be learned."""
    names = checkup.silent
    if not names:
        return []
    listed = ", ".join(names[:5]) + (" and others" if len(names) > 5 else "")
    sentence = f"{len(names)} neurons have no spike in the training trials: {listed}"
    return [Finding("silent_neurons", sentence, "leave them out of the data")]
