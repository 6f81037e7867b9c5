"""Scores as the Neural Latents Benchmark defines them, beside the project's own.

Pei et al. 2021, "Neural Latents Benchmark '21", arXiv:2109.04463. All rates are expected counts per
bin, as in a submission.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqvae.scores.floors import LEAST_COUNT
from seqvae.scores.metrics import R2, SumMetric

PSTH_WIDTH = 0.07
"""Standard deviation, in seconds, of the kernel that smooths spikes for a PSTH."""
NULLS = (
    "Null model: of bits_per_spike, co_bps and fp_bps each neuron's mean rate in training, of "
    "nlb_co_bps and nlb_fp_bps that in the scored trials (Neural Latents Benchmark)."
)
"""What scores in bits per spike are gained over."""
_PENALTIES = np.logspace(-4, 0, 9)
_LEAST_SAMPLES = 10


class BenchmarkBits(SumMetric):
    """Bits per spike over a null model that knows the evaluated spikes [Pei et al. 2021].

        [sum w (x log m - m) - sum_n (X_n log(X_n / W_n) - X_n)] / (ln 2 sum_n X_n)

    with counts x, predicted mean counts m and weights w (0: not scored), X_n = sum w x and W_n =
    sum w of each neuron: the null model is its mean over the very entries that are scored, not over
    training trials as in ``BitsPerSpike``. No constant predicts these better, so this score is the
    lower one of the two. m is floored at 1e-9 counts per bin. NaN for a set without a spike.

    Args:
        num_neurons: that are scored.
    """

    higher_is_better = True
    log_likelihood: Tensor
    num_spikes: Tensor
    num_entries: Tensor

    def __init__(self, num_neurons: int) -> None:
        super().__init__()
        self._add_sum("log_likelihood")
        self._add_sum("num_spikes", num_neurons)
        self._add_sum("num_entries", num_neurons)

    def update(
        self,
        mean_counts: Float[Tensor, "batch time neuron"],
        target: Float[Tensor, "batch time neuron"],
        weight: Float[Tensor, "batch time neuron"],
    ) -> None:
        """Add trials; all in counts per bin."""
        mean, target, weight = mean_counts.double(), target.double(), weight.double()
        mean = mean.where(weight > 0, 1.0).clamp(min=LEAST_COUNT)
        spikes = weight * target.where(weight > 0, 0.0)
        self.log_likelihood += (spikes * mean.log() - weight * mean).sum()
        self.num_spikes += spikes.sum((0, 1))
        self.num_entries += weight.sum((0, 1))

    def compute(self) -> Float[Tensor, ""]:
        """Return bits per spike."""
        spikes = self.num_spikes
        rate = spikes / self.num_entries.clamp(min=1e-300)
        null = (torch.xlogy(spikes, rate) - spikes).sum()
        bits = (self.log_likelihood - null) / (math.log(2) * spikes.sum())
        return torch.where(spikes.sum() > 0, bits, torch.nan)


class PSTHMatch(SumMetric):
    """How well predictions, averaged over the trials of a condition, match the PSTH there.

    R2 of each neuron over all conditions and bins, averaged over neurons [Pei et al. 2021]; a
    neuron whose PSTH does not vary is left out. The PSTH is the mean of the smoothed spikes of the
    evaluated trials; predictions are not smoothed.

    Args:
        kernel: weights of the bins of a trial (columns) in each of its smoothed bins (rows).
        num_conditions: into which trials fall.
        num_neurons: that are predicted.
    """

    higher_is_better = True
    kernel: Tensor
    predicted: Tensor
    spikes: Tensor
    num_trials: Tensor

    def __init__(
        self, kernel: Float[Tensor, "time time"], *, num_conditions: int, num_neurons: int
    ) -> None:
        super().__init__()
        self.register_buffer("kernel", kernel.double(), persistent=False)
        for name in ("predicted", "spikes", "num_trials"):
            self._add_sum(name, num_conditions, len(kernel), num_neurons)

    def update(
        self,
        mean_counts: Float[Tensor, "batch time neuron"],
        target: Float[Tensor, "batch time neuron"],
        weight: Float[Tensor, "batch time neuron"],
        *,
        condition: Int[Tensor, " batch"],
    ) -> None:
        """Add trials; ``condition`` counts from 0."""
        is_there = weight > 0
        parts = {"predicted": mean_counts, "spikes": target, "num_trials": torch.ones_like(target)}
        for name, values in parts.items():
            values = values.double().where(is_there, 0.0)
            getattr(self, name).index_add_(0, condition, values)

    def compute(self) -> Float[Tensor, ""]:
        """Return the mean R2 over neurons; NaN if nothing varies."""
        is_there = self.num_trials > 0
        predicted = self.predicted / self.num_trials.clamp(min=1)
        weight = self.kernel @ self.num_trials
        psth = self.kernel @ self.spikes / weight.where(weight > 0, 1.0)
        r2 = R2(self.spikes.shape[-1])
        r2.update(predicted, psth, is_there)
        return r2.compute()


def benchmark_kernel(num_time_bins: int, bin_width: float) -> Float[Tensor, "time time"]:
    """Return the Gaussian kernel of 70 ms that smooths the spikes of a PSTH.

    Args:
        num_time_bins: of a trial.
        bin_width: seconds.
    """
    time = torch.arange(num_time_bins, dtype=torch.float64) * bin_width
    return torch.exp(-0.5 * ((time[:, None] - time) / PSTH_WIDTH).square())


def benchmark_behavior_r2(
    rates_train: Float[np.ndarray, "train_trial time neuron"],
    behavior_train: Float[np.ndarray, "train_trial time dimension"],
    *,
    rates_test: Float[np.ndarray, "test_trial test_time neuron"],
    behavior_test: Float[np.ndarray, "test_trial test_time dimension"],
) -> float:
    """R2 of behaviour (of a reach: hand velocity) read from rates, the mean over its dimensions.

    Ridge regression from the rates of all neurons in a bin to behaviour in it, with one penalty for
    all dimensions out of ``logspace(-4, 0, 9)``, chosen by five-fold cross-validation of the
    training bins in their order, as ``GridSearchCV`` of scikit-learn does [Pei et al. 2021].

    Args:
        rates_train: expected counts per bin of the training trials; a bin with a NaN is left out.
        behavior_train: behaviour in the same bins; so is one with a NaN here.
        rates_test: of the trials to score.
        behavior_test: behaviour to predict; dimensions that do not vary are left out.

    Returns:
        NaN where fewer than ten bins are there to learn from, or nothing varies.
    """
    x_train, y_train = _samples(rates_train, behavior_train)
    x_test, y_test = _samples(rates_test, behavior_test)
    if len(x_train) < _LEAST_SAMPLES or not len(x_test):
        return math.nan
    about = x_train.mean(0), y_train.mean(0)
    x_train, x_test = x_train - about[0], x_test - about[0]
    y_train, y_test = y_train - about[1], y_test - about[1]
    parts = [np.array_split(samples, 5) for samples in (x_train, y_train)]
    folds = [_Sums.of(*part) for part in zip(*parts, strict=True)]
    whole = reduce(_Sums.plus, folds)
    scores = np.zeros(len(_PENALTIES))
    for x_fold, y_fold, fold in zip(*parts, folds, strict=True):
        scores += [_r2(y_fold, one).mean() for one in whole.plus(fold, times=-1).ridge(x_fold)]
    return mean_r2(y_test, whole.ridge(x_test)[int(np.argmax(scores))])


def mean_r2(
    truth: Float[np.ndarray, "sample dimension"], predicted: Float[np.ndarray, "sample dimension"]
) -> float:
    """R2, averaged over the dimensions that vary; NaN if none does."""
    varies = np.ptp(truth, axis=0) > 0 if len(truth) else np.zeros(truth.shape[1], dtype=bool)
    return float(_r2(truth[:, varies], predicted[:, varies]).mean()) if varies.any() else math.nan


class _Sums(NamedTuple):
    """Sums over samples that ridge regression learns from; of x and y near their means."""

    number: float
    x: Float[np.ndarray, " neuron"]
    y: Float[np.ndarray, " dimension"]
    xx: Float[np.ndarray, "neuron neuron"]
    xy: Float[np.ndarray, "neuron dimension"]

    @classmethod
    def of(
        cls, x: Float[np.ndarray, "sample neuron"], y: Float[np.ndarray, "sample dimension"]
    ) -> _Sums:
        """Sum over some samples."""
        return cls(len(x), x.sum(0), y.sum(0), x.T @ x, x.T @ y)

    def plus(self, other: _Sums, *, times: int = 1) -> _Sums:
        """Return the sums with others added to them, or taken away by ``times`` -1."""
        return _Sums(
            self.number + times * other.number,
            self.x + times * other.x,
            self.y + times * other.y,
            self.xx + times * other.xx,
            self.xy + times * other.xy,
        )

    def ridge(
        self, x: Float[np.ndarray, "sample neuron"]
    ) -> Float[np.ndarray, "penalty sample dimension"]:
        """Predictions of ridge regression with an intercept, for every penalty at once."""
        x_mean, y_mean = self.x / self.number, self.y / self.number
        curvature, directions = np.linalg.eigh(self.xx - np.outer(self.x, x_mean))
        moment = directions.T @ (self.xy - np.outer(self.x, y_mean))
        shrinkage = np.maximum(curvature, 0.0) + _PENALTIES[:, None]
        return y_mean + (x - x_mean) @ directions @ (moment / shrinkage[:, :, None])


def _r2(
    truth: Float[np.ndarray, "sample dimension"], predicted: Float[np.ndarray, "sample dimension"]
) -> Float[np.ndarray, " dimension"]:
    """R2 of each dimension; 0 of one that does not vary."""
    total = ((truth - truth.mean(0)) ** 2).sum(0)
    residual = ((truth - predicted) ** 2).sum(0)
    return np.where(total > 0, 1.0 - residual / np.where(total > 0, total, 1.0), 0.0)


def _samples(
    rates: Float[np.ndarray, "trial time neuron"],
    behavior: Float[np.ndarray, "trial time dimension"],
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bins in which all is there, in double precision."""
    is_there = np.isfinite(rates).all(-1) & np.isfinite(behavior).all(-1)
    return rates[is_there].astype(np.float64), behavior[is_there].astype(np.float64)
