"""Posterior predictive checks: does activity drawn from the model vary as the recorded one does?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from seqvae.analysis.posterior import deterministic, trials_per_chunk
from seqvae.data import NeuralData
from seqvae.models import Model

NUM_REPLICATES = 50
_FEWEST_SPIKES = 20
_MAX_ENTRIES = 16_000_000


class Check(NamedTuple):
    """One number of the recorded activity, and of each replicate.

    Attributes:
        recorded: of the activity.
        replicates: of activity drawn from the posterior predictive distribution.
        p_value: two-sided, (1 + number of replicates at least as extreme) / (1 + all).
    """

    recorded: float
    replicates: Float[np.ndarray, " replicate"]
    p_value: float


def predictive_checks(
    model: Model,
    data: NeuralData,
    trials: np.ndarray,
    *,
    num_replicates: int = NUM_REPLICATES,
    seed: int = 0,
) -> dict[str, Check]:
    """Compare how counts vary with how they do in draws of the model [Gelman et al. 1996].

    A replicate has each trial drawn from the posterior predictive distribution given what inference
    saw of it. Entries that are missing are missing in replicates, too.

    Args:
        model: a trained model of counts.
        data: its data.
        trials: of which; at least three.
        num_replicates: how many.
        seed: of the draws.

    Returns:
        ``fano``: mean over neurons of variance by mean of the counts of a trial;
        ``correlation``: root mean square over pairs of neurons of the correlation of these counts;
        ``autocorrelation``: mean over neurons of the correlation of counts in successive bins;
        ``synchrony``: variance over bins and trials of the summed activity by its mean.
        Nothing for data that are no counts, or too few.
    """
    if not model.observation.kind.counts_events or len(trials) < 3:
        return {}
    recorded = data.recording.read(trials).astype(np.float64)
    is_there = np.isfinite(recorded)
    counts = np.where(is_there, recorded, 0.0)
    lively = counts.sum((0, 1)) >= _FEWEST_SPIKES
    if lively.sum() < 2:
        return {}
    replicates = [
        statistics(np.where(is_there, replicate, 0.0)[..., lively])
        for replicate in _replicates(model, data, trials, num_replicates=num_replicates, seed=seed)
    ]
    return {
        name: _check(value, np.array([replicate[name] for replicate in replicates]))
        for name, value in statistics(counts[..., lively]).items()
    }


def _replicates(
    model: Model, data: NeuralData, trials: np.ndarray, *, num_replicates: int, seed: int
) -> Iterator[Float[np.ndarray, "trial time neuron"]]:
    """Yield replicates of all trials, so many at a time that memory is bounded."""
    spec = data.spec
    at_once = max(1, _MAX_ENTRIES // (len(trials) * spec.num_time_bins * spec.num_neurons))
    for first in range(0, num_replicates, at_once):
        number = min(at_once, num_replicates - first)
        size, parts = trials_per_chunk(spec, number), []
        with deterministic(model, seed + first):
            for start in range(0, len(trials), size):
                batch = data.batch(trials[start : start + size]).to(model.null_counts.device)
                parts.append(model(batch, number).emission.sample().float().cpu().numpy())
        yield from np.concatenate(parts, axis=1)


def statistics(counts: Float[np.ndarray, "trial time neuron"]) -> dict[str, float]:
    """Return the numbers that ``predictive_checks`` compares, of neurons that have spikes."""
    whole = counts.sum(1)
    mean, variance = whole.mean(0), whole.var(0, ddof=1)
    fano = variance[mean > 0] / mean[mean > 0]
    varying = whole[:, variance > 0]
    pairs = np.corrcoef(varying.T)[np.triu_indices(varying.shape[1], 1)]
    summed = counts.sum(2)
    numbers = {
        "fano": fano.mean(),
        "correlation": np.sqrt(np.mean(pairs**2)) if len(pairs) else np.nan,
    }
    if counts.shape[1] > 1:
        numbers["autocorrelation"] = _successive(counts)
        numbers["synchrony"] = summed.var() / max(summed.mean(), 1e-12)
    return {name: float(value) for name, value in numbers.items()}


def _successive(counts: Float[np.ndarray, "trial time neuron"]) -> float:
    """Mean over neurons of the correlation of a bin with the next one."""
    before, after = (part.reshape(-1, counts.shape[2]) for part in (counts[:, :-1], counts[:, 1:]))
    before, after = before - before.mean(0), after - after.mean(0)
    spread = np.sqrt((before**2).sum(0) * (after**2).sum(0))
    shared = (before * after).sum(0)
    return float((shared[spread > 0] / spread[spread > 0]).mean()) if (spread > 0).any() else 0.0


def _check(recorded: float, replicates: Float[np.ndarray, " replicate"]) -> Check:
    above = int((replicates >= recorded).sum())
    below = int((replicates <= recorded).sum())
    tail = (1 + min(above, below)) / (1 + len(replicates))
    return Check(recorded, replicates, min(1.0, 2 * tail))
