"""How well behaviour can be read from what a model, or a baseline, says of trials."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from seqvae.analysis.posterior import posterior_dataset
from seqvae.analysis.training import Training
from seqvae.data import NeuralData
from seqvae.models import Model
from seqvae.scores.benchmark import benchmark_behavior_r2, mean_r2
from seqvae.scores.decoding import behavior_r2

FROM_RATES = "nlb_behavior_r2"
"""The score of behaviour that is read from rates, of the model and of the baselines alike."""

TEACHING_BINS = 50_000
"""Training bins, at most twice as many, that teach to read behaviour, in trials evenly spread."""

Predict = Callable[[NeuralData, np.ndarray], np.ndarray]
"""From data and indices of trials to the expected activity of all neurons, per bin."""


def decoded_by_model(
    model: Model,
    data: NeuralData,
    split: str,
    training: Training,
    *,
    num_samples: int,
    seed: int,
) -> dict[str, Any]:
    """Return how well behaviour is read from the factors of a model, and from its rates."""
    seen = _decodable(data, split, training)
    if seen is None:
        return {}
    rates: dict[tuple[int, str], np.ndarray] = {}

    def factors(which: NeuralData, word: str) -> np.ndarray:
        def posterior(trials: np.ndarray, *variables: str) -> Any:
            return posterior_dataset(
                model if which is data else training.model,
                which,
                trials,
                num_samples=num_samples,
                seed=seed,
                work=f"factors ({word})",
                variables=variables,
            )

        has_rates = model.observation.kind.counts_events and which.spec.bin_width is not None
        name, unit = ("rates", which.spec.bin_width) if has_rates else ("mean", 1.0)
        some = _some(which, word)
        trials = some if word == "train" else which.trials(word)
        is_all = len(some) == len(trials)
        answer = posterior(trials, "factors", name) if is_all else posterior(trials, "factors")
        rates[id(which), word] = (answer if is_all else posterior(some, name))[name].values * unit
        return answer["factors"].values

    behavior, learned = data.recording.behavior, seen.recording.behavior
    assert behavior is not None
    assert learned is not None
    r2 = behavior_r2(
        factors(seen, "train"),
        learned[_some(seen, "train")],
        factors_test=factors(data, split),
        behavior_test=behavior[data.trials(split)],
    )
    from_rates = _from_rates(data, split, seen, lambda which, word: rates[id(which), word])
    return {"behavior_r2": [float(value) for value in r2], FROM_RATES: from_rates}


def decoded_by_baseline(
    predict: Predict, data: NeuralData, split: str, training: Training
) -> dict[str, float]:
    """Return how well behaviour is read from the rates of a baseline, as from those of a model."""
    seen = _decodable(data, split, training)
    if seen is None:
        return {}
    score = _from_rates(data, split, seen, lambda which, word: predict(which, _some(which, word)))
    return {FROM_RATES: score}


def behavior_of_condition(data: NeuralData, split: str, training: Training) -> dict[str, float]:
    """Return how well the mean behaviour of its condition in training tells that of a trial.

    No activity is asked: a model whose rates tell less has lost what the condition alone would say.
    """
    seen = _decodable(data, split, training)
    if seen is None:
        return {}
    learned, train, trials = seen.recording, _held(seen, "train"), _some(data, split)
    behavior, condition = learned.behavior, learned.condition
    assert behavior is not None
    assert condition is not None
    assert data.recording.behavior is not None
    assert data.recording.condition is not None
    truth, asked = data.recording.behavior[trials], data.recording.condition[trials]
    predicted = np.full(truth.shape, np.nan)
    bins = min(truth.shape[1], behavior.shape[1], data.spec.num_encoded_bins)
    for label in np.unique(condition[train]):
        members = behavior[train[condition[train] == label], :bins]
        number = np.isfinite(members).sum(axis=0)
        mean = np.nansum(members, axis=0) / np.where(number > 0, number, np.nan)
        predicted[asked == label, :bins] = mean
    is_there = np.isfinite(predicted).all(-1) & np.isfinite(truth).all(-1)
    return {"condition_behavior_r2": mean_r2(truth[is_there], predicted[is_there])}


def _decodable(data: NeuralData, split: str, training: Training) -> NeuralData | None:
    """Return the data whose training trials teach to read behaviour from activity, if any do."""
    behavior, seen = data.recording.behavior, training.learned
    if behavior is None or seen is None or "train" not in seen.split:
        return None
    is_own = seen.recording is data.recording
    if is_own and np.isin(data.trials(split), seen.trials("train")).any():
        return None
    learned = seen.recording.behavior
    return None if learned is None or learned.shape[2] != behavior.shape[2] else seen


def _from_rates(
    data: NeuralData,
    split: str,
    seen: NeuralData,
    rates: Callable[[NeuralData, str], np.ndarray],
) -> float:
    """Read behaviour from rates in the bins that inference encoded, as the benchmark does."""

    def samples(which: NeuralData, word: str) -> tuple[np.ndarray, np.ndarray]:
        behavior, bins = which.recording.behavior, slice(which.spec.num_encoded_bins)
        assert behavior is not None
        return rates(which, word)[:, bins], behavior[_some(which, word), bins]

    rates_test, behavior_test = samples(data, split)
    return benchmark_behavior_r2(
        *samples(seen, "train"), rates_test=rates_test, behavior_test=behavior_test
    )


def _some(which: NeuralData, word: str) -> np.ndarray:
    """Return the trials of a split that are read at once; of training trials enough to teach."""
    trials = _held(which, word)
    if word != "train":
        return trials
    return trials[:: max(1, len(trials) * which.spec.num_time_bins // TEACHING_BINS)]


def _held(which: NeuralData, word: str) -> np.ndarray:
    """Return the trials of a split, of a recording that is not held evenly spread ones."""
    with warnings.catch_warnings():  # the baselines have told it
        warnings.filterwarnings("ignore", message=".*evenly spread", category=UserWarning)
        return which.at_once(word)
