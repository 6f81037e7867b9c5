"""The rows of the table of ``evaluate`` beside the model: baselines, and the true rates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.analysis.decoded import Predict, behavior_of_condition, decoded_by_baseline
from seqvae.analysis.paired_scores import PairedScores, condition_indices
from seqvae.analysis.training import Training
from seqvae.baselines.condition_mean import ByCondition, ConditionMean
from seqvae.baselines.mean_rate import MeanRate
from seqvae.baselines.smoothing_glm import SmoothingGLM
from seqvae.data import NeuralData
from seqvae.distributions import PoissonLogRate
from seqvae.distributions.kinds import DataKind
from seqvae.models import Model
from seqvae.scores.floors import LEAST_COUNT

Row = tuple[PairedScores, dict[str, Any]]


def baseline_rows(model: Model, data: NeuralData, split: str, training: Training) -> dict[str, Row]:
    """Score the baselines, as far as there is something to learn them on, and the true rates."""
    recording, spec = data.recording, data.spec
    rates, kind = recording.rates, model.observation.kind
    rows: dict[str, Row] = {}
    seen, learned = training.data, training.learned

    def row(mean_rate: MeanRate, predict: Predict, spread: Float[Tensor, " neuron"]) -> Row:
        return _row(model, data, split, mean_rate, predict, spread)

    def decodable_row(*row_of: Any) -> Row:
        paired, scores = row(*row_of)
        return paired, scores | decoded_by_baseline(row_of[1], data, split, training)

    if seen is not None and learned is not None and "train" in seen.split:
        trials = learned.at_once("train")
        train = learned.recording.read(trials)
        mean_rate = MeanRate.of(train, kind)
        predict = _of_activity(mean_rate.predict)
        rows["mean_rate"] = row(mean_rate, predict, _spread(kind, train, mean_rate.predict))
        chosen_on = ("train", "val" if "val" in seen.split else "train")
        parts = [seen.at_once(word) for word in chosen_on]
        smoothing = SmoothingGLM.fit(
            *(seen.recording.read(part) for part in parts),
            heldin=np.array(spec.heldin),
            num_encoded_bins=seen.spec.num_encoded_bins,
            kind=kind,
            refit=seen is not learned,
        )
        spread = _spread(kind, train, smoothing.predict)
        smoothing = replace(smoothing, num_encoded_bins=spec.num_encoded_bins)
        rows["smoothing_glm"] = decodable_row(mean_rate, _of_activity(smoothing.predict), spread)
        if share_conditions(data, seen):
            conditions = ConditionMean.fit(
                *(_by_condition(seen, part) for part in parts), kind=kind
            )
            if seen is not learned:
                conditions = ConditionMean.learn(
                    _by_condition(learned, trials),
                    kind=kind,
                    width=conditions.width,
                    prior_bins=conditions.prior_bins,
                )
            predict = _of_condition(conditions)
            spread = _spread(kind, train, lambda _: predict(learned, trials))
            paired, scores = decodable_row(mean_rate, predict, spread)
            scores |= behavior_of_condition(data, split, training)
            rows["condition_mean"] = paired, scores
    elif training.moments is not None:
        mean_rate = MeanRate(kind, training.moments)
        spread = training.moments.std
        rows["mean_rate"] = row(mean_rate, _of_activity(mean_rate.predict), spread)
    trials = data.trials(split)
    has_truth = rates is not None and bool(
        (np.isfinite(rates[trials]) | np.isnan(recording.read(trials))).all()
    )
    if rates is not None and has_truth and kind.counts_events and spec.bin_width is not None:
        rows["true_rates"] = _true_row(model, data, split)
    return rows


def _true_row(model: Model, data: NeuralData, split: str) -> Row:
    """Score the true rates as if they were predicted."""
    rates, bin_width = data.recording.rates, data.spec.bin_width
    assert rates is not None
    assert bin_width is not None
    row = PairedScores(model, data)
    for batch in data.batches(split):
        truth = np.nan_to_num(rates[batch.trial.numpy()] * bin_width)
        mean = torch.from_numpy(truth).float().clamp_min(LEAST_COUNT)
        log_prob = PoissonLogRate(mean.log(), validate_args=False).log_prob(batch.target)
        row.scores.update_mean(mean, log_prob, batch)
        row.add_mean(mean, log_prob, batch)
    return row, row.compute()


def _row(
    model: Model,
    data: NeuralData,
    split: str,
    mean_rate: MeanRate,
    predict: Predict,
    spread: Float[Tensor, " neuron"],
) -> Row:
    """Score expected activity, with the spread about it."""
    row = PairedScores(model, data)
    for batch in data.batches(split):
        batch = model.scored(batch.to(model.null_counts.device)).to("cpu")
        mean = torch.from_numpy(predict(data, batch.trial.numpy())).float()
        log_prob = mean_rate.around(mean, spread).log_prob(batch.target)
        row.scores.update_mean(mean, log_prob, batch)
        row.add_mean(mean, log_prob, batch)
    return row, row.compute()


def share_conditions(data: NeuralData, seen: NeuralData) -> bool:
    """Return whether both have conditions, and some of the labels are the same."""
    if condition_indices(data) is None or condition_indices(seen) is None:
        return False
    asked, learned = (set(np.asarray(each.recording.condition).tolist()) for each in (data, seen))
    return not asked.isdisjoint(learned)


def _of_activity(predict: Callable[[np.ndarray], np.ndarray]) -> Predict:
    return lambda which, trials: predict(which.recording.read(trials))


def _of_condition(conditions: ConditionMean) -> Predict:
    def predict(which: NeuralData, trials: np.ndarray) -> np.ndarray:
        recording = which.recording
        assert recording.condition is not None
        return conditions.predict(
            recording.condition[trials], num_time_bins=recording.num_time_bins
        )

    return predict


def _by_condition(which: NeuralData, trials: np.ndarray) -> ByCondition:
    condition = which.recording.condition
    assert condition is not None
    return ByCondition(which.recording.read(trials), condition[trials])


def _spread(
    kind: DataKind,
    train: Float[np.ndarray, "trial time neuron"],
    predict: Callable[[np.ndarray], np.ndarray],
) -> Float[Tensor, " neuron"]:
    """Return the standard deviation of the training entries of each neuron about a prediction.

    Of counts, whose likelihood knows none, 1.
    """
    if kind.counts_events:
        return torch.ones(train.shape[2])
    residual = np.where(np.isfinite(train), train - predict(train), np.nan)
    is_observed = np.isfinite(residual).any(axis=(0, 1))
    spread = np.where(
        is_observed, np.nanstd(np.where(is_observed, residual, 0.0), axis=(0, 1)), 1.0
    )
    return torch.from_numpy(spread).float()
