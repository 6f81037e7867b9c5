"""A generalised linear readout of neurons from the smoothed activity of others, and its choice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from seqvae.baselines.regression import regress
from seqvae.baselines.smoothing import kernel_sums, shrunk, some_trials, widths
from seqvae.compute.progress import progress
from seqvae.distributions.kinds import DataKind

_NUM_COMPONENTS = (4, 8, 12, 16, 24, 32, 64, 128)
_PENALTIES = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0)

Tried = TypeVar("Tried")

PATIENCE = 2
"""Settings in a row that are no better, after which no more are tried."""


@dataclass(frozen=True, eq=False)
class Readout:
    """A GLM with canonical link on principal components of smoothed activity.

    ``mean_n = origin_n + unit_n link^-1(w_n . P^T (x - center) + b_n)``, kept within the range
    that the neuron had in training.

    Attributes:
        kind: of the data.
        width: standard deviation of the smoothing kernel, in bins.
        feature_unit: of each held-in neuron.
        center: mean feature of each held-in neuron.
        projection: P, from features to components.
        coefficients: w, and b in the last row.
        origin: of each held-out neuron; 0 unless any number may occur.
        unit: of each held-out neuron; 1 where the data have none.
        low: smallest training value of each held-out neuron.
        high: largest.
        penalty: of the squared coefficients.
    """

    kind: DataKind
    width: float
    feature_unit: Float[np.ndarray, " heldin"]
    center: Float[np.ndarray, " heldin"]
    projection: Float[np.ndarray, "heldin component"]
    coefficients: Float[np.ndarray, "component_and_one heldout"]
    origin: Float[np.ndarray, " heldout"]
    unit: Float[np.ndarray, " heldout"]
    low: Float[np.ndarray, " heldout"]
    high: Float[np.ndarray, " heldout"]
    penalty: float

    def learned_again(
        self,
        trials: tuple[
            Float[np.ndarray, "trial time heldin"], Float[np.ndarray, "trial time heldout"]
        ],
        *,
        mean: Float[np.ndarray, " heldin"],
        units: tuple[Float[np.ndarray, " heldin"], Float[np.ndarray, " heldout"]],
        origin: Float[np.ndarray, " heldout"],
    ) -> Readout:
        """Return the readout of the same width, size and penalty that other trials teach."""
        lesson = _Lesson.of(
            *trials, mean=mean, units=units, origin=origin, kind=self.kind, width=self.width
        )
        return next(lesson.readouts(self.projection.shape[1], (self.penalty,)))

    def predict(
        self,
        seen: Float[np.ndarray, "trial time heldin"],
        mean: Float[np.ndarray, " heldin"],
    ) -> Float[np.ndarray, "trial time heldout"]:
        """Expected activity of the held-out neurons."""
        unit = self.feature_unit
        return self.expected(_features(seen, self.width, mean=mean, unit=unit, kind=self.kind))

    def expected(
        self, features: Float[np.ndarray, "trial time heldin"]
    ) -> Float[np.ndarray, "trial time heldout"]:
        """Expected activity of the held-out neurons, given the features of the held-in ones."""
        components = (features - self.center) @ self.projection
        predictor = components @ self.coefficients[:-1] + self.coefficients[-1]
        expected = self.origin + self.unit * self.kind.log_partition(predictor)[1]
        return self.kind.inside_support(np.clip(expected, self.low, self.high))


def _features(
    activity: Float[np.ndarray, "trial time neuron"],
    width: float,
    *,
    mean: Float[np.ndarray, " neuron"],
    unit: Float[np.ndarray, " neuron"],
    kind: DataKind,
) -> Float[np.ndarray, "trial time neuron"]:
    """Smoothed activity, shrunk by one bin, as the regression reads its kind."""
    sums = kernel_sums(activity, width, num_bins=activity.shape[1])
    smoothed = shrunk(sums, mean, bins=1.0)
    return kind.features(smoothed, unit)


def choose_readout(
    train: tuple[
        Float[np.ndarray, "train_trial time heldin"], Float[np.ndarray, "train_trial time heldout"]
    ],
    val: tuple[
        Float[np.ndarray, "val_trial time heldin"], Float[np.ndarray, "val_trial time heldout"]
    ],
    *,
    mean: Float[np.ndarray, " heldin"],
    units: tuple[Float[np.ndarray, " heldin"], Float[np.ndarray, " heldout"]],
    origin: Float[np.ndarray, " heldout"],
    kind: DataKind,
) -> Readout:
    """The readout that predicts the held-out neurons of the validation trials best.

    The kernel width is chosen at middling size and penalty, then the size, each at its best
    penalty; sizes and penalties are gone through in order, and left where the score has not risen
    twice. Of many bins some choose, and the readout is then learned on all.
    """
    few, few_val = (tuple(part[some_trials(part)] for part in parts) for parts in (train, val))

    @lru_cache(maxsize=1)
    def features(width: float) -> Float[np.ndarray, "trial time heldin"]:
        return _features(few_val[0], width, mean=mean, unit=units[0], kind=kind)

    def scored(readout: Readout) -> tuple[float, Readout]:
        predicted = readout.expected(features(readout.width))
        advance(1)
        return float(np.nansum(kind.log_likelihood(few_val[1], predicted, unit=units[1]))), readout

    def lesson(width: float) -> _Lesson:
        return _Lesson.of(*few, mean=mean, units=units, origin=origin, kind=kind, width=width)

    with progress(None, work="baselines", unit="readout") as advance:
        tried = (lesson(width).readouts(12, (100.0,)) for width in widths(train[0].shape[1]))
        _, first = max(map(scored, chain.from_iterable(tried)), key=itemgetter(0))
        chosen = lesson(first.width)
        sizes = sorted({min(size, len(mean)) for size in _NUM_COMPONENTS})
        _, best = _best(_best(map(scored, chosen.readouts(size, _PENALTIES))) for size in sizes)
    if len(few[0]) == len(train[0]):
        return best
    return best.learned_again(train, mean=mean, units=units, origin=origin)


def _best(tried: Iterable[tuple[float, Tried]]) -> tuple[float, Tried]:
    """Return the first of the best, trying no more once ``PATIENCE`` in a row were no better."""
    best, waited = None, 0
    for score, one in tried:
        if best is None or score > best[0]:
            best, waited = (score, one), 0
        elif (waited := waited + 1) == PATIENCE:
            break
    assert best is not None
    return best


@dataclass(frozen=True, eq=False)
class _Lesson:
    """What readouts of one kernel width learn from, whatever their size and penalty."""

    features: Float[np.ndarray, "sample heldin"]
    directions: Float[np.ndarray, "heldin heldin"]
    targets: Float[np.ndarray, "sample heldout"]
    common: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        seen: Float[np.ndarray, "trial time heldin"],
        hidden: Float[np.ndarray, "trial time heldout"],
        *,
        mean: Float[np.ndarray, " heldin"],
        units: tuple[Float[np.ndarray, " heldin"], Float[np.ndarray, " heldout"]],
        origin: Float[np.ndarray, " heldout"],
        kind: DataKind,
        width: float,
    ) -> _Lesson:
        """Smooth the activity, and find its principal components."""
        features = _features(seen, width, mean=mean, unit=units[0], kind=kind)
        features = features.reshape(-1, features.shape[-1])
        center = features.mean(0)
        variance, directions = np.linalg.eigh(np.cov(features.T, ddof=0).reshape(len(mean), -1))
        directions = directions[:, ::-1] / np.sqrt(max(variance.mean(), np.finfo(float).tiny))
        hidden = hidden.reshape(-1, hidden.shape[-1])
        low, high = (np.nan_to_num(pick.reduce(hidden)) for pick in (np.fmin, np.fmax))
        common = {
            "kind": kind, "width": width, "feature_unit": units[0], "center": center,
            "origin": origin, "unit": units[1], "low": low, "high": high,
        }  # fmt: skip
        return cls(features - center, directions, (hidden - origin) / units[1], common)

    def readouts(self, size: int, penalties: tuple[float, ...]) -> Iterator[Readout]:
        """Yield the readout of at most so many components for each penalty."""
        projection = self.directions[:, :size]
        components, coefficients = self.features @ projection, None
        for penalty in penalties:
            coefficients = regress(
                components,
                self.targets,
                penalty=penalty,
                kind=self.common["kind"],
                start=coefficients,
            )
            yield Readout(
                projection=projection, coefficients=coefficients, penalty=penalty, **self.common
            )
