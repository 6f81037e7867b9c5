"""Baselines any model must beat: the mean rate, and Gaussian smoothing with a GLM readout.

Both see what a model sees (held-in neurons, encoded bins) and answer expected activity for every
trial, bin and neuron, so they are scored by the same metrics on the same entries. NaN marks a
missing entry. Arrays are (trial, time, neuron), in counts per bin or data units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from seqvae.baselines.readout import Readout, choose_readout
from seqvae.baselines.regression import DataKind, inside_support
from seqvae.baselines.smoothing import choose_smoothing, kernel_sums, shrunk


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
        width, prior_bins = choose_smoothing(
            val[..., heldin], mean[heldin], unit=unit[heldin], data_kind=data_kind
        )
        readout = None
        if len(heldout):
            readout = choose_readout(
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
        sums = kernel_sums(seen, self.width, num_bins=activity.shape[1])
        prediction[..., self.heldin] = shrunk(sums, mean, bins=self.prior_bins)
        if self.readout is not None:
            heldout = np.setdiff1d(np.arange(len(self.mean)), self.heldin)
            prediction[:, : self.num_encoded_bins, heldout] = self.readout.predict(seen, mean)
        return prediction


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
