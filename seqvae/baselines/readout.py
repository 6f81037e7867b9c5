"""A generalised linear readout of neurons from the smoothed activity of others, and its choice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np
from jaxtyping import Float

from seqvae.baselines.regression import regress
from seqvae.baselines.smoothing import kernel_sums, shrunk, some_trials, widths
from seqvae.compute.progress import progress
from seqvae.distributions.kinds import DataKind

_NUM_COMPONENTS = (4, 8, 12, 16, 24, 32, 64, 128)
_PENALTIES = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0)


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
        (readout,) = _readouts(
            *trials,
            mean=mean,
            units=units,
            origin=origin,
            kind=self.kind,
            width=self.width,
            sizes=(self.projection.shape[1],),
            penalties=(self.penalty,),
        )
        return readout

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

    The kernel width is chosen at middling size and penalty, then these at that width; of many bins
    by some, the readout then being learned on all.
    """
    few, few_val = (tuple(part[some_trials(part)] for part in parts) for parts in (train, val))

    @lru_cache(maxsize=1)
    def features(width: float) -> Float[np.ndarray, "trial time heldin"]:
        return _features(few_val[0], width, mean=mean, unit=units[0], kind=kind)

    def score(readout: Readout) -> float:
        predicted = readout.expected(features(readout.width))
        advance(1)
        return float(np.nansum(kind.log_likelihood(few_val[1], predicted, unit=units[1])))

    def candidates(
        width: float, sizes: tuple[int, ...], penalties: tuple[float, ...]
    ) -> Iterator[Readout]:
        return _readouts(
            *few,
            mean=mean,
            units=units,
            origin=origin,
            kind=kind,
            width=width,
            sizes=sizes,
            penalties=penalties,
        )

    first_widths = widths(train[0].shape[1])
    sizes = {min(size, len(mean)) for size in _NUM_COMPONENTS}
    number = len(first_widths) + len(sizes) * len(_PENALTIES)
    with progress(number, work="baselines", unit="readout") as advance:
        tried = (candidates(width, (12,), (100.0,)) for width in first_widths)
        first = max(chain.from_iterable(tried), key=score)
        best = max(candidates(first.width, _NUM_COMPONENTS, _PENALTIES), key=score)
    if len(few[0]) == len(train[0]):
        return best
    return best.learned_again(train, mean=mean, units=units, origin=origin)


def _readouts(
    seen: Float[np.ndarray, "trial time heldin"],
    hidden: Float[np.ndarray, "trial time heldout"],
    *,
    mean: Float[np.ndarray, " heldin"],
    units: tuple[Float[np.ndarray, " heldin"], Float[np.ndarray, " heldout"]],
    origin: Float[np.ndarray, " heldout"],
    kind: DataKind,
    width: float,
    sizes: tuple[int, ...],
    penalties: tuple[float, ...],
) -> Iterator[Readout]:
    """One readout for each number of components (at most the neurons there are) and penalty."""
    features = _features(seen, width, mean=mean, unit=units[0], kind=kind)
    features = features.reshape(-1, features.shape[-1])
    center = features.mean(0)
    variance, directions = np.linalg.eigh(np.cov(features.T, ddof=0).reshape(len(mean), -1))
    directions = directions[:, ::-1] / np.sqrt(max(variance.mean(), np.finfo(float).tiny))
    targets = hidden.reshape(-1, hidden.shape[-1])
    low, high = (np.nan_to_num(pick.reduce(targets)) for pick in (np.fmin, np.fmax))
    for size in sorted({min(size, len(mean)) for size in sizes}):
        projection = directions[:, :size]
        coefficients = None
        for penalty in penalties:
            coefficients = regress(
                (features - center) @ projection,
                (targets - origin) / units[1],
                penalty=penalty,
                kind=kind,
                start=coefficients,
            )
            yield Readout(
                kind=kind,
                width=width,
                feature_unit=units[0],
                center=center,
                projection=projection,
                coefficients=coefficients,
                origin=origin,
                unit=units[1],
                low=low,
                high=high,
                penalty=penalty,
            )
