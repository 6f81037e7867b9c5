"""What a fitted model tells: of its latents, its likelihood, and of trials it has not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from seqvae.analysis.diagnosis.cures import Cure, choose, higher, lower
from seqvae.analysis.diagnosis.facts import FEWEST_TRIALS, Checkup, Finding, Settings
from seqvae.analysis.diagnosis.training import FEWEST_NATS, HistoryRow, longer, softer_kl

MOST_DISPERSION = 1.2
"""Ratio of variances above which counts are not Poisson (Payne et al. 2018)."""
MOST_NEURONS = 0.25
"""Share of the neurons that may be so."""
LEAST_SHARE = 0.01
"""Share of the bins below which a discrete state is not used."""
LEAST_BITS = 0.01
"""Bits per spike that are told from none."""


def smaller(checkup: Checkup) -> tuple[Cure, ...]:
    """Return the sizes of a model that may be lowered."""
    names = dict.fromkeys((checkup.dimension, "generator_dim", "num_states"))
    return tuple(lower(f"model.{name}", least=1) for name in names)


def posterior_collapse(checkup: Checkup, settings: Settings) -> list[Finding]:
    """Find latents that are not used.

    A dimension is active if its posterior mean varies over the data by more than 0.01 of the
    prior's variance (Burda et al. 2016). As a Gaussian channel it then carries more than
    -log(1 - 0.01) / 2 = 0.005 nats, and its KL, which is at least what it carries, can be told for
    every latent: ``Checkup`` counts as active what has more, per bin where it is a time course.
    All latents together are not used, either, if they carry less than a nat a trial and the model
    gains nothing over the mean rate. ``inferred_inputs`` alone may be idle; of discrete states
    ``unused_states`` tells. What a few trials have in common needs no latent.
    """
    uses, gain = checkup.latents, checkup.other or checkup.train
    if not uses or checkup.num_trials < FEWEST_TRIALS:
        return []
    idle = [name for name, use in uses.items() if use.active == 0]
    nothing = gain is not None and gain.mean <= 2 * gain.standard_error
    everything = sum(use.kl for use in uses.values())
    if nothing and everything < FEWEST_NATS:
        idle = list(uses)
    if len(idle) < len(uses):
        idle = [name for name in idle if name not in ("inferred_inputs", *checkup.occupancy)]
    if not idle:
        return []
    carried = ", ".join(f"{name} {use.kl:.2g}" for name, use in uses.items())
    sentence = f"{' and '.join(idle)} not used (KL in nats per trial: {carried})"
    otherwise = "neurons may have nothing in common; look at the baselines that evaluate tells"
    if len(idle) < len(uses):
        cures: tuple[Cure, ...] = (lower("model.inferred_input_dim"),)
        sentence += ", unless trials are meant to begin alike"
        otherwise = "the data may need fewer kinds of latents"
    else:
        cures = softer_kl() if settings.by_gradient else (lower("learner.ridge", least=1),)
    return [Finding("posterior_collapse", sentence, cures, otherwise)]


def unused_states(checkup: Checkup) -> list[Finding]:
    """Find discrete states that hold nowhere, or that tell nothing of a trial."""
    findings = []
    for name, shares in checkup.occupancy.items():
        unused, use = [share for share in shares if share < LEAST_SHARE], checkup.latents.get(name)
        percents = ", ".join(f"{share:.1%}" for share in shares)
        sentence = (
            f"{len(unused)} of {len(shares)} {name} hold almost nowhere (of the bins: {percents})"
        )
        if not unused and use is not None and use.active == 0:
            sentence = (
                f"{name} tell nothing of a trial (KL {use.kl:.2g} nats; of the bins: {percents})"
            )
        elif not unused:
            continue
        if len(shares) > 1 and checkup.num_trials >= FEWEST_TRIALS:
            cures = (lower("model.num_states", least=1),)
            otherwise = "the data may need fewer states"
            findings.append(Finding("unused_states", sentence, cures, otherwise))
    return findings


def overfitting(checkup: Checkup, settings: Settings) -> list[Finding]:
    """Find a model that knows its training trials only.

    Bounds are compared at beta = 1, without dropout, per entry. More than half of what is gained
    over the mean rate in training trials must be missing in others, by two standard errors; or
    held-out neurons must be predicted worse than by their mean, held-in ones better.
    """
    cures: tuple[Cure, ...] = (higher("learner.ridge", start=1.0),)
    if settings.by_gradient:
        cures = (
            higher("data.coordinated_dropout.rate", most=0.5, start=0.3),
            higher("model.dropout", most=0.5, start=0.2),
            higher("model.optimizer.weight_decay", most=1.0, start=0.1),
        )
    cures, otherwise = cures + smaller(checkup), "give more trials, or make the model smaller"
    train, other = checkup.train, checkup.other
    if train is not None and other is not None and settings.climbs_bound:
        gap = train.mean - other.mean
        error = math.hypot(train.standard_error, other.standard_error)
        if gap > 0.5 * train.mean > 0 and gap > 2 * error:
            sentence = (
                f"the bound gains {train.mean:.3g} nats per entry over the mean rate in training "
                f"trials, {other.mean:.3g} in others"
            )
            return [Finding("overfitting", sentence, cures, otherwise)]
    enough = checkup.num_trials >= FEWEST_TRIALS
    if enough and checkup.heldin_bits > LEAST_BITS and checkup.heldout_bits < -LEAST_BITS:
        sentence = (
            f"held-in neurons are predicted with {checkup.heldin_bits:.3g} bits per spike, "
            f"held-out ones with {checkup.heldout_bits:.3g}"
        )
        return [Finding("overfitting", sentence, cures, otherwise)]
    return []


def worse_than_mean_rate(
    history: Sequence[HistoryRow], checkup: Checkup, settings: Settings
) -> list[Finding]:
    """Find a bound below the mean rate's log-likelihood, by two standard errors.

    With beta below 1 the bound is not what was asked for. Where learning does not raise it, it is
    low for other reasons, and predictions count: held-out ones if there are some.
    """
    cures = longer(history, settings) + smaller(checkup)
    otherwise = "neurons may have nothing in common; look at the baselines that evaluate tells"
    gain = checkup.other or checkup.train
    if not settings.climbs_bound:
        bits = checkup.heldin_bits if math.isnan(checkup.heldout_bits) else checkup.heldout_bits
        if checkup.num_trials < FEWEST_TRIALS or not bits < -LEAST_BITS:
            return []
        sentence = f"the model predicts {-bits:.3g} bits per spike worse than the mean rate"
        return [Finding("worse_than_mean_rate", sentence, cures, otherwise)]
    if gain is None or settings.beta < 1 or gain.mean >= -2 * gain.standard_error:
        return []
    sentence = (
        f"the bound lies {-gain.mean:.3g} nats per entry below the log-likelihood of the mean rate"
    )
    return [Finding("worse_than_mean_rate", sentence, cures, otherwise)]


def worse_than_smoothing(scores: Mapping[str, Any] | None, checkup: Checkup) -> list[Finding]:
    """Find held-out predictions worse than those of smoothing + GLM, by two standard errors."""
    gain = (scores or {}).get("gain", {}).get("smoothing_glm")
    if gain is None or checkup.num_trials < FEWEST_TRIALS:
        return []
    if not gain["mean"] < -2 * gain["standard_error"]:
        return []
    sentence = (
        f"what the model did not see it predicts {-gain['mean']:.3g} +- "
        f"{gain['standard_error']:.2g} {gain.get('unit', 'bits per spike')} worse than smoothing + "
        "GLM"
    )
    otherwise = "let crossvalidate choose its size, or try another kind of model"
    return [Finding("worse_than_smoothing", sentence, (), otherwise)]


def overdispersed_counts(checkup: Checkup) -> list[Finding]:
    """Find counts that vary more than a Poisson model can.

    A quarter of the neurons must have counts whose dispersion exceeds 1.2, and 1 by two standard
    errors; of neurons that are Poisson, one in forty does the latter.
    """
    if not checkup.kind.counts_events or checkup.observation == "NegativeBinomial":
        return []
    pairs = zip(checkup.dispersion, checkup.dispersion_error, strict=True)
    above = [x for x, error in pairs if x > MOST_DISPERSION and x - 1 > 2 * error]
    if len(above) <= MOST_NEURONS * max(1, len(checkup.dispersion)):
        return []
    middle = sorted(above)[len(above) // 2]
    sentence = (
        f"{len(above)} of {len(checkup.dispersion)} neurons vary more than the model says, "
        f"typically {middle:.2g} times its variance; its observation is {checkup.observation}"
    )
    cures = (choose("model.observation", "NegativeBinomial"),)
    otherwise = "a model that is learned by gradients reads NegativeBinomial counts, this one not"
    return [Finding("overdispersed_counts", sentence, cures, otherwise)]


def unstable_dynamics(checkup: Checkup) -> list[Finding]:
    """Find linear dynamics that at least double within a trial of their own accord.

    One trial that grows is no sign of dynamics that do.
    """
    radius = checkup.radius
    if radius is None or radius <= 1 or checkup.num_trials < FEWEST_TRIALS:
        return []
    if radius**checkup.num_time_bins < 2:
        return []
    sentence = (
        f"the spectral radius of the transition is {radius:.4g}, so that latents grow by "
        f"{radius**checkup.num_time_bins:.3g} over the {checkup.num_time_bins} bins of a trial"
    )
    otherwise = "give longer or more trials"
    return [Finding("unstable_dynamics", sentence, smaller(checkup)[:1], otherwise)]
