"""The score of a model on what it did not see, as sums that add over cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.analysis.posterior import deterministic, trials_per_chunk
from seqvae.baselines.mean_rate import MeanRate
from seqvae.baselines.regression import regress
from seqvae.crossvalidation.division import Holdout
from seqvae.data import NeuralData, Recording
from seqvae.data.sources import Arrays
from seqvae.distributions.kinds import DataKind
from seqvae.models import Model
from seqvae.models.scores import log_predictive
from seqvae.types import Batch

K_SHOT_REPEATS = 8
K_SHOT_PENALTY = 1.0


@dataclass(frozen=True)
class Sums:
    """Sums over the scored entries.

    Attributes:
        log_likelihood: of what was held out, in nats; of counts, Poisson at the predicted mean.
        gain: the same less that of the mean-rate model (the mean, and for real data the standard
            deviation, of each neuron over the training rows).
        spikes: counts that were scored, 0 for other data.
        entries: entries that were scored.
        left_out: neurons that are not scored because training has no spike (no value) of them.
    """

    log_likelihood: float
    gain: float
    spikes: float
    entries: int
    left_out: int


def mean_rate_of(train: Recording, kind: DataKind) -> MeanRate:
    """Return the mean-rate model of the training rows."""
    return MeanRate.of(train.read(), kind)


def sums(
    null: MeanRate, truth: Float[np.ndarray, "trial time neuron"], log_prob: Tensor | None
) -> Sums:
    """Add up log-probabilities of the entries of ``truth``; None: those of the mean rate."""
    scored = np.isfinite(truth) & null.is_known
    target = torch.from_numpy(np.where(scored, truth, 0.0)).double()
    mask = torch.from_numpy(scored)
    own = null.distribution().log_prob(target)[mask].sum()
    total = own if log_prob is None else log_prob.double()[mask].sum()
    asked = np.isfinite(truth).any(axis=(0, 1))
    return Sums(
        log_likelihood=float(total),
        gain=float(total - own),
        spikes=float(target.sum()) if null.kind.counts_events else 0.0,
        entries=int(scored.sum()),
        left_out=int((asked & ~null.is_known).sum()),
    )


def score(
    model: Model, part: Holdout, null: MeanRate, *, num_samples: int, settings: dict[str, Any]
) -> Sums:
    """Score a model on what is held out of a part.

    Counts are scored by the Poisson likelihood at the posterior mean of the rate, as bits per spike
    are; other data by the posterior mean of the model's own likelihood.

    Args:
        model: learned, and built for the part's held-in neurons.
        part: what it may see, and the truth.
        null: the mean-rate model of the same training rows.
        num_samples: posterior samples.
        settings: of ``NeuralData``.
    """
    chunks = []
    data = seen_data(part, settings)
    kind = model.observation.kind
    with deterministic(model, model.seed):
        for batch in data.batches("all", trials_per_chunk(data.spec, num_samples)):
            batch = batch.to(model.null_counts.device)
            output = model(batch, num_samples)
            rows = part.truth[batch.trial.cpu().numpy()]
            target = torch.from_numpy(np.nan_to_num(rows)).to(model.null_counts.device)
            expectations = model.expectations(output, replace(batch, target=target))
            if kind.counts_events:
                mean = kind.clamp(
                    output.emission.mean.double().mean(dim=0)
                    if expectations is None
                    else expectations.mean
                )
                chunks.append(null.around(mean).log_prob(target).cpu())
            else:
                log_probs = output.emission.log_prob(target).double()
                chunks.append(log_predictive(log_probs, expectations).cpu())
    return sums(null, part.truth, torch.cat(chunks))


def k_shot_gain(
    model: Model,
    part: Holdout,
    train: Holdout,
    null: MeanRate,
    *,
    shots: int,
    settings: dict[str, Any],
) -> float:
    """Score a readout of the held-out neurons that is learned from ``shots`` trials only.

    A model may carry dynamics that the data do not need and still predict as well. Few trials
    suffice to read neurons from latents that hold little else, and do not from others [Dabholkar &
    Barak 2024, arXiv:2408.14442]. The readout is a ridge-penalised GLM from the posterior mean of
    the factors, inferred from held-in neurons; the answer is the mean over random draws of the
    trials.

    Args:
        model: learned, and built for the part's held-in neurons.
        part: what is scored.
        train: the training rows, held-out neurons hidden, and their values as truth.
        null: the mean-rate model.
        shots: trials to learn the readout from.
        settings: of ``NeuralData``.

    Returns:
        Gain over the mean-rate model in nats, over the entries that ``score`` sums.
    """
    features = [_factors(model, one, settings) for one in (train, part)]
    inside = np.isfinite(train.seen.read()).any(axis=2)
    generator = np.random.default_rng(model.seed)
    heldout = np.flatnonzero(np.isfinite(part.truth).any(axis=(0, 1)) & null.is_known)
    kind, gains = null.kind, []
    offset, scale = (place(null.moments).numpy()[heldout] for place in (kind.origin, kind.unit))
    limits = [pick(train.truth[..., heldout], axis=(0, 1)) for pick in (np.nanmin, np.nanmax)]
    for _ in range(K_SHOT_REPEATS):
        trials = generator.permutation(len(inside))[:shots]
        chosen, targets = features[0][trials][inside[trials]], train.truth[trials][inside[trials]]
        center, unit = chosen.mean(axis=0), chosen.std(axis=0)
        unit = np.where(unit > 1e-9, unit, np.inf)
        weights = regress(
            (chosen - center) / unit,
            (targets[:, heldout].astype(np.float64) - offset) / scale,
            penalty=K_SHOT_PENALTY,
            kind=kind,
        )
        predictor = (features[1] - center) / unit @ weights[:-1] + weights[-1]
        expected = offset + scale * kind.log_partition(predictor)[1]
        mean = null.predict(part.truth)
        mean[..., heldout] = kind.inside_support(np.clip(expected, *limits))
        target = torch.from_numpy(np.nan_to_num(part.truth)).double()
        log_prob = null.around(torch.from_numpy(mean)).log_prob(target)
        gains.append(sums(null, part.truth, log_prob).gain)
    return float(np.mean(gains))


def seen_data(part: Holdout, settings: dict[str, Any]) -> NeuralData:
    """Return what inference gets."""
    heldout = sorted(set(range(part.truth.shape[2])) - set(part.heldin))
    size = settings["eval_batch_size"]
    return NeuralData(Arrays(part.seen), val_fraction=0.0, heldout=heldout, eval_batch_size=size)


def _factors(
    model: Model, part: Holdout, settings: dict[str, Any]
) -> Float[np.ndarray, "trial time factor"]:
    data, chunks = seen_data(part, settings), []
    samples = 10
    with deterministic(model, model.seed):
        for batch in data.batches("all", trials_per_chunk(data.spec, samples)):
            batch: Batch = batch.to(model.null_counts.device)  # type: ignore[no-redef]
            output = model(batch, samples)
            expectations = model.expectations(output, batch)
            factors = (
                output.factors.double().mean(dim=0)
                if expectations is None
                else expectations.factors
            )
            chunks.append(factors.cpu())
    return torch.cat(chunks).numpy()
