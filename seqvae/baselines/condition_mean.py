"""The model that knows the condition of a trial and nothing else: its PSTH."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from seqvae.baselines.mean_rate import MeanRate, training_moments
from seqvae.baselines.smoothing import PRIOR_BINS, kernel_sums, shrunk, widths
from seqvae.distributions.kinds import DataKind


class ByCondition(NamedTuple):
    """Some trials.

    Attributes:
        values: activity, NaN = missing.
        condition: of each.
    """

    values: Float[np.ndarray, "trial time neuron"]
    condition: Shaped[np.ndarray, " trial"]


@dataclass(frozen=True, eq=False)
class ConditionMean:
    """Expected activity of each condition: the smoothed mean of its training trials.

        m_ct = (sum_s k(t - s) X_cs + prior_bins mean) / (sum_s k(t - s) N_cs + prior_bins)

    with X_cs the sum over the training trials of condition c in bin s, N_cs how many of them were
    observed, and a Gaussian kernel k. Width and ``prior_bins`` are those that predict the
    validation trials best. It is told the condition of a trial, but sees none of its activity: what
    a model gains over it is what it knows of single trials.

    Attributes:
        labels: of the conditions.
        means: expected activity.
        mean: of each neuron, for a condition that was not seen in training.
        width: standard deviation of the kernel, in bins.
        prior_bins: weight of the mean, in bins.
    """

    labels: Shaped[np.ndarray, " condition"]
    means: Float[np.ndarray, "condition time neuron"]
    mean: Float[np.ndarray, " neuron"]
    width: float
    prior_bins: float

    @classmethod
    def fit(cls, train: ByCondition, val: ByCondition, *, kind: DataKind) -> ConditionMean:
        """Learn it from training trials, choose the width and then the prior on validation trials.

        Args:
            train: of the training trials.
            val: of the validation trials.
            kind: of the data.
        """
        unit = kind.unit(training_moments(train.values)).numpy()

        def score(one: ConditionMean) -> float:
            predicted = one.predict(val.condition, num_time_bins=val.values.shape[1])
            return float(np.nansum(kind.log_likelihood(val.values, predicted, unit=unit)))

        learned = partial(cls.learn, train, kind=kind)
        tried = (learned(width=width, prior_bins=3.0) for width in widths(train.values.shape[1]))
        width = max(tried, key=score).width
        return max((learned(width=width, prior_bins=bins) for bins in PRIOR_BINS), key=score)

    @classmethod
    def learn(
        cls, train: ByCondition, *, kind: DataKind, width: float, prior_bins: float
    ) -> ConditionMean:
        """Learn it from training trials, with a width and prior that are known."""
        activity, num_bins = train.values, train.values.shape[1]
        mean, labels = MeanRate.of(activity, kind).mean, np.unique(train.condition)
        members = [activity[train.condition == label] for label in labels]
        sums = np.stack([np.nansum(one, axis=0, dtype=np.float64) for one in members])
        number = np.stack([np.isfinite(one).sum(axis=0, dtype=np.float64) for one in members])
        total, weight = (kernel_sums(part, width, num_bins=num_bins)[0] for part in (sums, number))
        means = kind.inside_support(shrunk((total, weight), mean, bins=prior_bins))
        return cls(labels, means, mean, width, prior_bins)

    def predict(
        self, condition: Shaped[np.ndarray, " trial"], *, num_time_bins: int
    ) -> Float[np.ndarray, "trial time neuron"]:
        """Expected activity of trials; the mean past the last bin, and in unknown conditions."""
        expected = np.tile(self.mean, (len(condition), num_time_bins, 1))
        known = min(num_time_bins, self.means.shape[1])
        for label, mean in zip(self.labels, self.means, strict=True):
            expected[condition == label, :known] = mean[:known]
        return expected
