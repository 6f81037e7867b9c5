"""The baseline that any model of time series must beat: Gaussian smoothing with a GLM readout.

It sees what a model sees (held-in neurons, encoded bins) and answers expected activity for every
trial, bin and neuron, so it is scored by the same metrics on the same entries. NaN marks a missing
entry. Arrays are (trial, time, neuron), in counts per bin or data units.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from seqvae.baselines.mean_rate import MeanRate, training_moments
from seqvae.baselines.readout import Readout, choose_readout
from seqvae.baselines.smoothing import choose_smoothing, kernel_sums, shrunk
from seqvae.compute.threads import one_numpy_thread
from seqvae.distributions.kinds import DataKind


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

    Held-out: a GLM with the link of the data's kind on the leading principal components of the
    smoothed held-in activity (its square root for counts and nonnegative data). Kernel
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
    @one_numpy_thread()
    def fit(
        cls,
        train: Float[np.ndarray, "train_trial time neuron"],
        val: Float[np.ndarray, "val_trial time neuron"],
        *,
        heldin: Int[np.ndarray, " heldin"],
        num_encoded_bins: int,
        kind: DataKind,
        refit: bool = False,
    ) -> SmoothingGLM:
        """Learn from the training trials, choose the few settings on the validation trials.

        Args:
            train: activity of the training trials, NaN = missing.
            val: activity of the validation trials.
            heldin: indices of the neurons that a prediction may use.
            num_encoded_bins: bins that a prediction may use.
            kind: of the data: Poisson, Bernoulli, Gaussian or quasi-Poisson regression.
            refit: whether to learn again from both, with the settings chosen.
        """
        if refit:
            sizes: dict[str, Any] = {"heldin": heldin, "num_encoded_bins": num_encoded_bins}
            chosen = cls.fit(train, val, **sizes, kind=kind)
            return chosen._learned_again(np.concatenate([train, val]), kind=kind)
        mean = MeanRate.of(train, kind).mean
        train = train[:, :num_encoded_bins].astype(np.float64)
        val = val[:, :num_encoded_bins].astype(np.float64)
        moments = training_moments(train)
        origin, unit = kind.origin(moments).numpy(), kind.unit(moments).numpy()
        heldout = np.setdiff1d(np.arange(len(mean)), heldin)
        width, prior_bins = choose_smoothing(
            val[..., heldin], mean[heldin], unit=unit[heldin], kind=kind
        )
        readout = None
        if len(heldout):
            readout = choose_readout(
                (train[..., heldin], train[..., heldout]),
                (val[..., heldin], val[..., heldout]),
                mean=mean[heldin],
                units=(unit[heldin], unit[heldout]),
                origin=origin[heldout],
                kind=kind,
            )
        return cls(heldin, num_encoded_bins, mean, width, prior_bins, readout)

    def _learned_again(
        self, activity: Float[np.ndarray, "trial time neuron"], *, kind: DataKind
    ) -> SmoothingGLM:
        """Return what these trials teach with the same settings."""
        mean = MeanRate.of(activity, kind).mean
        activity = activity[:, : self.num_encoded_bins].astype(np.float64)
        moments, readout = training_moments(activity), self.readout
        origin, unit = kind.origin(moments).numpy(), kind.unit(moments).numpy()
        heldout = np.setdiff1d(np.arange(len(mean)), self.heldin)
        if readout is not None:
            readout = readout.learned_again(
                (activity[..., self.heldin], activity[..., heldout]),
                mean=mean[self.heldin],
                units=(unit[self.heldin], unit[heldout]),
                origin=origin[heldout],
            )
        return replace(self, mean=mean, readout=readout)

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
