"""Baselines any model must beat: the mean rate, and Gaussian smoothing with a GLM readout.

Both see what a model sees (held-in neurons, encoded bins) and answer expected activity for every
trial, bin and neuron, so they are scored by the same metrics on the same entries. NaN marks a
missing entry. Arrays are (trial, time, neuron), in counts per bin or data units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from seqvae.regression import DataKind, inside_support, log_partition, regress

_WIDTHS = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0)
_PRIOR_BINS = (1e9, 100.0, 30.0, 10.0, 3.0, 1.0, 0.3)
_NUM_COMPONENTS = (4, 8, 12, 16, 24, 32, 64, 128)
_PENALTIES = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0)


@dataclass(frozen=True, eq=False)
class MeanRate:
    """Each neuron at its mean over the training trials, whatever the trial and the bin.

    Attributes:
        mean: expected activity of each neuron; at least 1e-9 for counts.
    """

    mean: Float[np.ndarray, " neuron"]

    @classmethod
    def fit(
        cls,
        train: Float[np.ndarray, "train_trial time neuron"],
        val: Float[np.ndarray, "val_trial time neuron"],
        *,
        heldin: Int[np.ndarray, " heldin"],
        num_encoded_bins: int,
        data_kind: DataKind,
    ) -> MeanRate:
        """Average the training trials; only ``train`` and ``data_kind`` are used."""
        return cls(_training_mean(train, data_kind))

    def predict(
        self, activity: Float[np.ndarray, "trial time neuron"]
    ) -> Float[np.ndarray, "trial time neuron"]:
        """Expected activity; nothing of ``activity`` but its shape is used."""
        return np.broadcast_to(self.mean, activity.shape).copy()


@dataclass(frozen=True, eq=False)
class SmoothingGLM:
    """Gaussian smoothing of the held-in neurons and a GLM from them to the held-out ones.

    Held-in: the posterior mean of a rate under a gamma prior worth ``prior_bins`` at the neuron's
    mean, with its neighbourhood weighted by a Gaussian kernel k:
    ``m_t = (sum_s k(t - s) x_s + prior_bins mean) / (sum_s k(t - s) + prior_bins)``.
    Edges and missing entries need no rule of their own; past the last encoded bin the kernel fades
    and the forecast with it, to the mean. Kernel width and ``prior_bins`` are those that predict
    each held-in entry of the validation trials best from the *other* bins. Data without time have
    none, and stay at the mean instead of copying themselves.

    Held-out: a Poisson, logistic or linear regression, according to the data, on the leading
    principal components of the smoothed held-in activity (its square root for counts). Kernel
    width, number of components and ridge penalty are those that score best on the held-out neurons
    of the validation trials. Forecast bins are at the mean.

    Attributes:
        mean: training mean of each neuron.
        width: standard deviation of the kernel for held-in neurons, in bins.
        prior_bins: weight of the mean, in bins.
        readout: from held-in to held-out neurons; None if none is held out.
    """

    heldin: Int[np.ndarray, " heldin"]
    num_encoded_bins: int
    mean: Float[np.ndarray, " neuron"]
    width: float
    prior_bins: float
    readout: Readout | None

    @classmethod
    def fit(
        cls,
        train: Float[np.ndarray, "train_trial time neuron"],
        val: Float[np.ndarray, "val_trial time neuron"],
        *,
        heldin: Int[np.ndarray, " heldin"],
        num_encoded_bins: int,
        data_kind: DataKind,
    ) -> SmoothingGLM:
        """Learn from the training trials, choose the few settings on the validation trials.

        Args:
            train: activity of the training trials, NaN = missing.
            val: activity of the validation trials.
            heldin: indices of the neurons that a prediction may use.
            num_encoded_bins: bins that a prediction may use.
            data_kind: "counts" (Poisson), "binary" (Bernoulli) or "real" (Gaussian).
        """
        mean = _training_mean(train, data_kind)
        train = train[:, :num_encoded_bins].astype(np.float64)
        val = val[:, :num_encoded_bins].astype(np.float64)
        unit = _unit(train, data_kind)
        heldout = np.setdiff1d(np.arange(len(mean)), heldin)
        width, prior_bins = _choose_smoothing(
            val[..., heldin], mean[heldin], unit=unit[heldin], data_kind=data_kind
        )
        readout = None
        if len(heldout):
            readout = _choose_readout(
                (train[..., heldin], train[..., heldout]),
                (val[..., heldin], val[..., heldout]),
                mean=mean[heldin],
                units=(unit[heldin], unit[heldout]),
                data_kind=data_kind,
            )
        return cls(heldin, num_encoded_bins, mean, width, prior_bins, readout)

    def predict(
        self, activity: Float[np.ndarray, "trial time neuron"]
    ) -> Float[np.ndarray, "trial time neuron"]:
        """Expected activity of all neurons and bins, from held-in neurons and encoded bins."""
        seen = activity[:, : self.num_encoded_bins, self.heldin].astype(np.float64)
        mean = self.mean[self.heldin]
        prediction = np.broadcast_to(self.mean, activity.shape).copy()
        sums = _kernel_sums(seen, self.width, num_bins=activity.shape[1])
        prediction[..., self.heldin] = _shrunk(sums, mean, bins=self.prior_bins)
        if self.readout is not None:
            heldout = np.setdiff1d(np.arange(len(self.mean)), self.heldin)
            prediction[:, : self.num_encoded_bins, heldout] = self.readout.predict(seen, mean)
        return prediction


@dataclass(frozen=True, eq=False)
class Readout:
    """A GLM with canonical link on principal components of smoothed activity.

    ``mean_n = unit_n link^-1(w_n . P^T (x - center) + b_n)``, kept within the range that the
    neuron had in training.

    Attributes:
        width: standard deviation of the smoothing kernel, in bins.
        feature_unit: of each held-in neuron.
        center: mean feature of each held-in neuron.
        projection: P, from features to components.
        coefficients: w, and b in the last row.
        unit: of each held-out neuron; 1 unless the data are real.
        low: smallest training value of each held-out neuron.
        high: largest.
    """

    data_kind: DataKind
    width: float
    feature_unit: Float[np.ndarray, " heldin"]
    center: Float[np.ndarray, " heldin"]
    projection: Float[np.ndarray, "heldin component"]
    coefficients: Float[np.ndarray, "component_and_one heldout"]
    unit: Float[np.ndarray, " heldout"]
    low: Float[np.ndarray, " heldout"]
    high: Float[np.ndarray, " heldout"]

    def predict(
        self,
        seen: Float[np.ndarray, "trial time heldin"],
        mean: Float[np.ndarray, " heldin"],
    ) -> Float[np.ndarray, "trial time heldout"]:
        """Expected activity of the held-out neurons."""
        features = _features(
            seen, self.width, mean=mean, unit=self.feature_unit, data_kind=self.data_kind
        )
        components = (features - self.center) @ self.projection
        predictor = components @ self.coefficients[:-1] + self.coefficients[-1]
        expected = self.unit * log_partition(predictor, self.data_kind)[1]
        return inside_support(np.clip(expected, self.low, self.high), self.data_kind)


def _training_mean(
    train: Float[np.ndarray, "trial time neuron"], data_kind: DataKind
) -> Float[np.ndarray, " neuron"]:
    """Mean of the present entries of each neuron; 0 where there is none."""
    present = np.isfinite(train)
    total = np.where(present, train, 0.0).sum((0, 1), dtype=np.float64)
    return inside_support(total / np.maximum(present.sum((0, 1)), 1), data_kind)


def _unit(
    train: Float[np.ndarray, "trial time neuron"], data_kind: DataKind
) -> Float[np.ndarray, " neuron"]:
    """Root mean square about the mean for real data, 1 for counts and binary data."""
    if data_kind != "real":
        return np.ones(train.shape[-1])
    std = np.sqrt(_training_mean((train - _training_mean(train, "real")) ** 2, "real"))
    return np.where(std > 0, std, 1.0)


def _kernel_sums(
    activity: Float[np.ndarray, "trial encoded_time neuron"],
    width: float,
    *,
    num_bins: int,
    leave_out: bool = False,
) -> tuple[Float[np.ndarray, "trial time neuron"], Float[np.ndarray, "trial time neuron"]]:
    """Sums over present entries s of k(t - s) x_s and of k(t - s); k(0) = 1, or 0 if left out."""
    lag = np.arange(num_bins)[:, None] - np.arange(activity.shape[1])
    kernel = np.exp(-0.5 * (lag / width) ** 2)
    if leave_out:
        kernel[lag == 0] = 0.0
    present = np.isfinite(activity)
    return kernel @ np.where(present, activity, 0.0), kernel @ present.astype(np.float64)


def _shrunk(
    sums: tuple[Float[np.ndarray, "trial time neuron"], Float[np.ndarray, "trial time neuron"]],
    mean: Float[np.ndarray, " neuron"],
    *,
    bins: float,
) -> Float[np.ndarray, "trial time neuron"]:
    """Local average, shrunk to ``mean`` as if that had been seen in so many ``bins`` more."""
    total, weight = sums
    return (total + bins * mean) / (weight + bins)


def _features(
    activity: Float[np.ndarray, "trial time neuron"],
    width: float,
    *,
    mean: Float[np.ndarray, " neuron"],
    unit: Float[np.ndarray, " neuron"],
    data_kind: DataKind,
) -> Float[np.ndarray, "trial time neuron"]:
    """Smoothed activity in units, shrunk by one bin; its square root for counts."""
    sums = _kernel_sums(activity, width, num_bins=activity.shape[1])
    smoothed = _shrunk(sums, mean, bins=1.0)
    return np.sqrt(smoothed) if data_kind == "counts" else smoothed / unit


def _log_likelihood(
    target: Float[np.ndarray, "trial time neuron"],
    mean: Float[np.ndarray, "trial time neuron"],
    *,
    unit: Float[np.ndarray, " neuron"],
    data_kind: DataKind,
) -> float:
    """Sum over present entries, up to terms without ``mean``; real data have std ``unit``."""
    if data_kind == "counts":
        terms = target * np.log(mean) - mean
    elif data_kind == "binary":
        terms = target * np.log(mean) + (1 - target) * np.log1p(-mean)
    else:
        terms = -0.5 * ((target - mean) / unit) ** 2
    return float(np.nansum(terms))


def _choose_smoothing(
    activity: Float[np.ndarray, "trial time neuron"],
    mean: Float[np.ndarray, " neuron"],
    *,
    unit: Float[np.ndarray, " neuron"],
    data_kind: DataKind,
) -> tuple[float, float]:
    """Kernel width and prior bins that predict each entry best from the other bins.

    Among equals the strongest prior wins.
    """
    scores = {}
    for width in _widths(activity.shape[1]):
        sums = _kernel_sums(activity, width, num_bins=activity.shape[1], leave_out=True)
        for bins in _PRIOR_BINS:
            predicted = inside_support(_shrunk(sums, mean, bins=bins), data_kind)
            scores[width, bins] = _log_likelihood(
                activity, predicted, unit=unit, data_kind=data_kind
            )
    return max(scores, key=scores.__getitem__)


def _widths(num_bins: int) -> list[float]:
    """Kernel widths worth trying."""
    return [width for width in _WIDTHS if width <= num_bins]


def _choose_readout(
    train: tuple[
        Float[np.ndarray, "train_trial time heldin"], Float[np.ndarray, "train_trial time heldout"]
    ],
    val: tuple[
        Float[np.ndarray, "val_trial time heldin"], Float[np.ndarray, "val_trial time heldout"]
    ],
    *,
    mean: Float[np.ndarray, " heldin"],
    units: tuple[Float[np.ndarray, " heldin"], Float[np.ndarray, " heldout"]],
    data_kind: DataKind,
) -> Readout:
    """The readout that predicts the held-out neurons of the validation trials best.

    The kernel width is chosen at middling size and penalty, then these at that width.
    """

    def score(readout: Readout) -> float:
        predicted = readout.predict(val[0], mean)
        return _log_likelihood(val[1], predicted, unit=units[1], data_kind=data_kind)

    def candidates(
        width: float, sizes: tuple[int, ...], penalties: tuple[float, ...]
    ) -> Iterator[Readout]:
        return _readouts(
            *train,
            mean=mean,
            units=units,
            data_kind=data_kind,
            width=width,
            sizes=sizes,
            penalties=penalties,
        )

    widths = _widths(train[0].shape[1])
    first = max((r for w in widths for r in candidates(w, (12,), (100.0,))), key=score)
    return max(candidates(first.width, _NUM_COMPONENTS, _PENALTIES), key=score)


def _readouts(
    seen: Float[np.ndarray, "trial time heldin"],
    hidden: Float[np.ndarray, "trial time heldout"],
    *,
    mean: Float[np.ndarray, " heldin"],
    units: tuple[Float[np.ndarray, " heldin"], Float[np.ndarray, " heldout"]],
    data_kind: DataKind,
    width: float,
    sizes: tuple[int, ...],
    penalties: tuple[float, ...],
) -> Iterator[Readout]:
    """One readout for each number of components (at most the neurons there are) and penalty."""
    features = _features(seen, width, mean=mean, unit=units[0], data_kind=data_kind)
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
                targets / units[1],
                penalty=penalty,
                data_kind=data_kind,
                start=coefficients,
            )
            yield Readout(
                data_kind, width, units[0], center, projection, coefficients, units[1], low, high
            )
