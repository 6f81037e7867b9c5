"""What the history of a fit tells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from seqvae.analysis.diagnosis.facts import Checkup, Finding, Settings, Spread

HistoryRow = Mapping[str, float | int]
MOST_DEVIATIONS = 5.0
"""How far the mean likelihood of the trials may lie below the mean rate's, in deviations between
single trials. The readout begins at the mean rate, so that no step should lead there."""
MOST_NONFINITE = 0.05
"""Share of an epoch's gradients that may not be finite; in half precision a few are skipped."""
LEAST_RISE = 0.05
"""Part of what the model gains over the mean rate, below which a tenth of the training more or less
is not worth a word."""
FEWEST_NATS = 1.0
"""Information in nats per trial below which latents that gain nothing are not used."""
FEWEST_VALIDATIONS = 5
LEAST_REST = 0.01
"""The same for what EM has still to gain, by extrapolation."""


def learning_rate(history: Sequence[HistoryRow], null: Spread, settings: Settings) -> list[Finding]:
    """Find training that exploded: likelihood far below a constant's, ground lost, or no number.

    The bound that is trained on, with its own beta, counts after the warm-ups only; the likelihood
    counts from the first epoch on. Ground is lost by more than half of what had been gained over
    the mean rate, and by more than the deviation between single trials.
    """
    if not settings.by_gradient or not history:
        return []
    rates = [row["train/learning_rate"] for row in history if "train/learning_rate" in row]
    setting = "lower model.optimizer.lr" + (f", which was {max(rates):g}" if rates else "")
    clipped = max(row.get("train/clipped", 0.0) for row in history)
    beside = f", {clipped:.0%} of an epoch's steps clipped" if clipped > 0.5 else ""

    def finding(words: str) -> list[Finding]:
        return [Finding("learning_rate_too_high", words + beside, setting)]

    least = null.mean - MOST_DEVIATIONS * null.std
    for row in history:
        value = row.get("train/log_likelihood", math.inf)
        if value < least:
            return finding(
                f"in epoch {row['epoch']:.0f} the log-likelihood of training was {value:.4g} nats "
                f"per trial, where the mean rate has {null.mean:.4g}"
            )
    bad = [row for row in history if row.get("train/nonfinite_gradients", 0.0) > MOST_NONFINITE]
    if len(bad) > 1:  # in half precision the first epoch finds its scale
        share = bad[-1]["train/nonfinite_gradients"]
        epoch = bad[-1]["epoch"]
        return finding(f"in epoch {epoch:.0f} {share:.0%} of the gradients were not finite")
    best = -math.inf
    for row in history:
        likelihood, elbo = (row.get(f"train/{x}", math.nan) for x in ("log_likelihood", "elbo"))
        value = likelihood - row.get("train/beta", settings.beta) * (likelihood - elbo)
        if row["step"] < settings.ramp_end or math.isnan(value):
            continue
        best = max(best, value)
        if best - value > max(0.5 * (best - null.mean), null.std):
            return finding(
                f"in epoch {row['epoch']:.0f} the bound in training fell from {best:.4g} to "
                f"{value:.4g} nats per trial"
            )
    return []


def idle(history: Sequence[HistoryRow], settings: Settings) -> list[Finding]:
    """Find, while training goes on, five validations in which the latents carried nothing.

    A posterior that is a point has no KL, and no bound that could be told.
    """
    rows = [row for row in history if row["step"] >= settings.ramp_end][-FEWEST_VALIDATIONS:]
    last = rows[-1] if rows and "val/heldin_elbo" in rows[-1] else {}
    names = [name for name in last if name.startswith("val/kl/")]
    most = max((sum(row.get(name, math.inf) for name in names) for row in rows), default=math.inf)
    if len(rows) < FEWEST_VALIDATIONS or not names or most >= FEWEST_NATS:
        return []
    sentence = f"in the last {len(rows)} validations the KL was at most {most:.2g} nats per trial"
    setting = "lower model.objective.beta, or raise model.objective.beta_steps"
    return [Finding("posterior_collapse", sentence, setting)]


def ramps(history: Sequence[HistoryRow], settings: Settings) -> list[Finding]:
    """Find a training that ended before the weights of the bound had their final values."""
    if not settings.by_gradient or not history or history[-1]["step"] >= settings.ramp_end:
        return []
    step, end = history[-1]["step"], settings.ramp_end
    sentence = f"training ended at step {step:.0f}, the warm-ups end at step {end}"
    setting = "raise learner.trainer.max_epochs, or lower model.objective.beta_steps"
    return [Finding("ramps_unfinished", sentence, setting)]


def improvement(
    history: Sequence[HistoryRow], checkup: Checkup, settings: Settings
) -> list[Finding]:
    """Find a validation bound that rose to the end.

    Compared are the means of the last tenth of the validations and of the tenth before; the rise
    must exceed thrice its standard error, taken from the differences of neighbours, and a twentieth
    of the gain over the mean rate.
    """
    scores = [
        row["val/heldin_elbo"]
        for row in history
        if row["step"] >= settings.ramp_end and "val/heldin_elbo" in row
    ]
    size = max(3, len(scores) // 10)
    gain = checkup.other
    if not settings.by_gradient or gain is None or len(scores) < 2 * size:
        return []
    before, last = scores[-2 * size : -size], scores[-size:]
    rise = (sum(last) - sum(before)) / size
    steps = [(b - a) ** 2 for a, b in pairwise(scores[-2 * size :])]
    error = math.sqrt(sum(steps) / len(steps) / size)  # of each mean: var / size, var = steps / 2
    if rise < max(LEAST_RISE * abs(gain.per_trial), 3 * error):
        return []
    sentence = (
        f"over the last {size} validations the bound rose by {rise:.3g} nats per trial, of "
        f"{gain.per_trial:.4g} gained over the mean rate"
    )
    rate, floor = history[-1].get("train/learning_rate", math.inf), settings.min_rate
    if floor is not None and rate <= floor * 1.001:
        setting = f"raise model.schedule.min_lr, which was {floor:g}, or model.schedule.patience"
        return [Finding("learning_rate_at_floor", sentence, setting)]
    return [Finding("still_improving", sentence, "raise learner.trainer.max_epochs")]


def bound_rising(
    history: Sequence[HistoryRow], checkup: Checkup, settings: Settings
) -> list[Finding]:
    """Find an EM that ended at its last iteration with more to gain.

    Near its end EM converges linearly, so that with rises d and ratio r of neighbouring ones
    d r / (1 - r) is still to come (Aitken; McLachlan & Krishnan 2008, ch. 4.9).
    """
    bounds = [row["bound"] for row in history if "bound" in row]
    most = settings.max_iterations
    if most is None or not history or history[-1]["step"] < most or len(bounds) < 12:
        return []
    rises = [b - a for a, b in pairwise(bounds[-11:])]
    early, late = sum(rises[:5]), sum(rises[5:])
    gain = bounds[-1] - checkup.null.mean * settings.num_trials
    if not early > late > 0:
        rest = math.inf if late > 0 and late >= early else 0.0
    else:
        ratio = late / early  # of five iterations
        rest = late * ratio / (1 - ratio)
    if rest <= LEAST_REST * gain:
        return []
    amount = "about as much for each five" if math.isinf(rest) else f"about {rest:.3g}"
    sentence = (
        f"the last five of {most} iterations raised the bound by {late:.3g} nats, and {amount} is "
        f"still to come, of {gain:.4g} gained over the mean rate"
    )
    return [Finding("bound_still_rising", sentence, "raise learner.max_iterations")]
