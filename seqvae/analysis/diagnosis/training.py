"""What the history of a fit tells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from seqvae.analysis.diagnosis.cures import Cure, higher, lower
from seqvae.analysis.diagnosis.facts import FEWEST_TRIALS, Checkup, Finding, Settings, Spread

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


def passes(history: Sequence[HistoryRow]) -> tuple[list[HistoryRow], list[HistoryRow]]:
    """Return the rows of a fit, and those of its second pass, where it was refitted."""
    first = [row for row in history if not row.get("refit")]
    return first, [row for row in history if row.get("refit")]


def learning_rate(history: Sequence[HistoryRow], null: Spread, settings: Settings) -> list[Finding]:
    """Find training that exploded: likelihood far below a constant's, ground lost, or no number.

    The bound, with its own beta if that is below 1, counts after the warm-ups only; the likelihood
    counts from the first epoch on. Ground is lost by more than half of what had been gained over
    the mean rate, and by more than the deviation between single trials.
    """
    if not settings.by_gradient or not history:
        return []
    cures, otherwise = (lower("model.optimizer.lr"),), "take smaller steps"
    clipped = max(row.get("train/clipped", 0.0) for row in history)
    beside = f", {clipped:.0%} of an epoch's steps clipped" if clipped > 0.5 else ""

    def finding(words: str) -> list[Finding]:
        return [Finding("learning_rate_too_high", words + beside, cures, otherwise)]

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
        value = likelihood - min(1.0, row.get("train/beta", settings.beta)) * (likelihood - elbo)
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
    if settings.num_trials < FEWEST_TRIALS:
        return []
    sentence = f"in the last {len(rows)} validations the KL was at most {most:.2g} nats per trial"
    otherwise = "neurons may have nothing in common"
    return [Finding("posterior_collapse", sentence, softer_kl(), otherwise)]


def ramps(history: Sequence[HistoryRow], settings: Settings) -> list[Finding]:
    """Find a training that ended before the weights of the bound had their final values."""
    if not settings.by_gradient or not history or history[-1]["step"] >= settings.ramp_end:
        return []
    step, end = history[-1]["step"], settings.ramp_end
    sentence = f"training ended at step {step:.0f}, the warm-ups end at step {end}"
    late = [name for name, end in settings.ramp_ends.items() if end > step]
    starts = [name.replace("steps", "start") for name in late]  # kl_target has none
    cures = tuple(lower(f"model.objective.{name}") for name in late + starts)
    cures = longer(history, settings) + cures
    return [Finding("ramps_unfinished", sentence, cures, "train longer")]


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
    gain = checkup.other or checkup.train  # of a refitted model there may be the latter only
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
        cures = (higher("model.schedule.min_lr"), higher("model.schedule.patience"))
        return [
            Finding("learning_rate_at_floor", sentence, cures, "let the learning rate fall less")
        ]
    return [Finding("still_improving", sentence, longer(history, settings), "train longer")]


def bound_rising(
    history: Sequence[HistoryRow], checkup: Checkup, settings: Settings
) -> list[Finding]:
    """Find an EM that ended at its last iteration with more to gain.

    Near its end EM converges linearly, so that with rises d and ratio r of neighbouring ones
    d r / (1 - r) is still to come (Aitken; McLachlan & Krishnan 2008, ch. 4.9).
    """
    bounds = [row["bound"] for row in history if "bound" in row]
    most = settings.max_iterations
    if most is None or not history or history[-1]["step"] < most or len(bounds) < 5:
        return []
    half = min(5, (len(bounds) - 1) // 2)
    rises = [b - a for a, b in pairwise(bounds[-2 * half - 1 :])]
    early, late = sum(rises[:half]), sum(rises[half:])
    gain = bounds[-1] - checkup.null.mean * settings.num_trials
    if not early > late > 0:
        rest = math.inf if late > 0 and late >= early else 0.0
    else:
        ratio = late / early  # of so many iterations
        rest = late * ratio / (1 - ratio)
    if rest <= LEAST_REST * gain:
        return []
    amount = "about as much again and again" if math.isinf(rest) else f"about {rest:.3g}"
    sentence = (
        f"the last {half} of {most} iterations raised the bound by {late:.3g} nats, and {amount} "
        f"is still to come, of {gain:.4g} gained over the mean rate"
    )
    return [Finding("bound_still_rising", sentence, longer(history, settings), "learn longer")]


def longer(history: Sequence[HistoryRow], settings: Settings) -> tuple[Cure, ...]:
    """Return the setting that ended the learning, to be raised."""
    step = history[-1]["step"] if history else 0
    if not settings.by_gradient:
        most = settings.max_iterations
        return (higher("learner.max_iterations"),) if most is not None and step >= most else ()
    if settings.max_steps is not None and 0 < settings.max_steps <= step:
        return (higher("learner.trainer.max_steps"),)
    epochs = [row["epoch"] for row in history if "epoch" in row][-2:]
    if settings.max_epochs is not None and len(epochs) == 2:
        between = epochs[1] - epochs[0]
        if epochs[1] + 1 + between <= settings.max_epochs:  # another validation was to come
            return (higher("learner.patience"),)
    return (higher("learner.trainer.max_epochs"),)


def softer_kl() -> tuple[Cure, ...]:
    """Return the settings by which the KL costs less."""
    return (
        lower("model.objective.beta"),
        higher("model.objective.beta_steps", start=300),
        higher("model.objective.free_bits", start=0.1),
        higher("model.objective.kl_target"),
    )
