"""Scores of whole data sets: sums are kept, in float64, and divided once at the end.

So the score of a set does not depend on how it was cut into batches, nor on how many processes saw
it, and a set with nothing to score answers NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchmetrics import Metric

from seqvae.scores.floors import LEAST_COUNT


class SumMetric(Metric):
    """A score that is a function of sums: float64 states, summed over batches and processes.

    ``compute`` answers for the process that asks, so that one of several may ask alone; with
    ``sync_on_compute = True`` all must, and it answers for them together.
    """

    full_state_update = False
    is_differentiable = False

    def __init__(self) -> None:
        super().__init__(sync_on_compute=False)

    def _add_sum(self, name: str, *shape: int) -> None:
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def totals(self) -> list[float]:
        """Return the sums so far; each must be one number."""
        return [float(getattr(self, name)) for name in self._defaults]

    def add_totals(self, values: Sequence[float]) -> None:
        """Add the sums of another such metric."""
        for name, value in zip(self._defaults, values, strict=True):
            setattr(self, name, getattr(self, name) + value)

    @property
    def update_called(self) -> bool:
        """Always True: the score of the empty set is NaN, so asking for it is no mistake."""
        return True

    def _apply(self, fn: Callable, exclude_state: Sequence[str] = "") -> torch.nn.Module:
        """Follow a module to another device, but never to another precision."""
        device = fn(torch.empty(0, device=self.device)).device
        return super()._apply(lambda tensor: tensor.to(device), exclude_state)


class BitsPerSpike(SumMetric):
    """Poisson log-likelihood gained over the null model, in bits per spike [Pei et al. 2021].

        sum w (x log(m / m0) - (m - m0)) / (ln 2 * sum w x)

    with counts x, predicted mean counts m (of the posterior samples' mean rate), the null model's
    mean counts m0 and weights w (0: not scored); m and m0 are floored at 1e-9 counts per bin.
    NaN for a set without a spike.

    Args:
        null_counts: mean count per bin of each neuron over the training trials.
    """

    higher_is_better = True
    null_counts: Tensor
    gain: Tensor
    num_spikes: Tensor

    def __init__(self, null_counts: Float[Tensor, " neuron"]) -> None:
        super().__init__()
        null = null_counts.detach().double().clamp(min=LEAST_COUNT)
        self.register_buffer("null_counts", null, persistent=False)
        self._add_sum("gain")
        self._add_sum("num_spikes")

    def update(
        self,
        mean_counts: Float[Tensor, "batch time neuron"],
        target: Float[Tensor, "batch time neuron"],
        weight: Float[Tensor, "batch time neuron"],
    ) -> None:
        """Add trials; all in counts per bin."""
        self.gain += _weighted_sum(poisson_gain(mean_counts, target, self.null_counts), weight)
        self.num_spikes += _weighted_sum(target, weight)

    def compute(self) -> Float[Tensor, ""]:
        """Return bits per spike."""
        bits = self.gain / (math.log(2) * self.num_spikes)
        return torch.where(self.num_spikes > 0, bits, torch.nan)


def poisson_gain(
    mean_counts: Float[Tensor, "batch time neuron"],
    target: Float[Tensor, "batch time neuron"],
    null_counts: Float[Tensor, " neuron"],
) -> Float[Tensor, "batch time neuron"]:
    """Return x log(m / m0) - (m - m0) of each entry, in nats; m and m0 are at least 1e-9."""
    mean = mean_counts.to(torch.promote_types(mean_counts.dtype, torch.float32))
    mean = mean.clamp(min=LEAST_COUNT)
    null = null_counts.double().clamp(min=LEAST_COUNT).to(mean)
    return target * (mean / null).log() - (mean - null)


class LogLikelihood(SumMetric):
    """Mean log-likelihood in nats per scored entry: sum w log p / sum w. NaN if none is scored."""

    higher_is_better = True
    total: Tensor
    num_entries: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._add_sum("total")
        self._add_sum("num_entries")

    def update(
        self,
        log_prob: Float[Tensor, "batch time neuron"],
        weight: Float[Tensor, "batch time neuron"],
    ) -> None:
        """Add the log-probability of each entry, in nats."""
        self.total += _weighted_sum(log_prob, weight)
        self.num_entries += _sum(weight)

    def compute(self) -> Float[Tensor, ""]:
        """Return nats per entry."""
        return self.total / self.num_entries


class R2(SumMetric):
    """Variance explained: 1 - sum (y - prediction)^2 / sum (y - mean y)^2, averaged over outputs.

    The sums run over all trials and bins, for each output on its own; an output whose truth is
    constant has no variance to explain and is left out. NaN if none is left.

    Args:
        num_outputs: neurons or behavioural dimensions.
    """

    higher_is_better = True
    num_bins: Tensor
    truth: Tensor
    truth_squared: Tensor
    residual_squared: Tensor

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        for name in ("num_bins", "truth", "truth_squared", "residual_squared"):
            self._add_sum(name, num_outputs)

    def update(
        self,
        prediction: Float[Tensor, "batch time output"],
        truth: Float[Tensor, "batch time output"],
        mask: Bool[Tensor, "batch time"] | Bool[Tensor, "batch time output"],
    ) -> None:
        """Add trials; bins or entries where ``mask`` is False are not scored."""
        mask = (mask if mask.ndim == 3 else mask[..., None]).expand(truth.shape)
        truth = truth.double().where(mask, 0.0)
        residual = (truth - prediction).where(mask, 0.0)
        self.num_bins += mask.sum((0, 1))
        self.truth += truth.sum((0, 1))
        self.truth_squared += truth.square().sum((0, 1))
        self.residual_squared += residual.square().sum((0, 1))

    def compute(self) -> Float[Tensor, ""]:
        """Return the mean R2 over outputs."""
        variation = self.truth_squared - self.truth.square() / self.num_bins
        # what is left of a constant truth is the rounding of these two sums
        varies = variation > 1e-12 * self.truth_squared
        return (1 - self.residual_squared / variation)[varies].mean()


class LatentUse(NamedTuple):
    """How much of a latent a model uses; a number for each dimension stands in a list.

    Attributes:
        active_units: dimensions whose posterior mean varies over the data, variance above 0.01
            [Burda et al. 2016].
        variance_of_mean: that variance.
        kl: KL from the prior in nats per trial; one number where it does not separate.
        aggregate_mean: mean of the aggregate posterior, the mean of q(z | x) over the data.
        aggregate_std: its standard deviation; where learning did well, both are the prior's.
        aggregate_kl: KL, in nats, of the Gaussian with the moments of the aggregate posterior from
            that of the prior, dimension by dimension and summed; for a Gaussian prior the aggregate
            posterior itself is at least as far from it.
    """

    active_units: int
    variance_of_mean: list[float]
    kl: list[float]
    aggregate_mean: list[float]
    aggregate_std: list[float]
    aggregate_kl: float


class AggregatePosterior(SumMetric):
    """Gathers the moments of a latent over all trials, and bins, of a data set.

    Args:
        latent_dim: size of the latent.
        num_separate: dimensions into which its KL separates.
    """

    sums: Tensor
    kl: Tensor
    num_points: Tensor
    num_trials: Tensor

    def __init__(self, latent_dim: int, num_separate: int) -> None:
        super().__init__()
        self._add_sum("sums", 5, latent_dim)
        self._add_sum("kl", num_separate)
        self._add_sum("num_points")
        self._add_sum("num_trials")

    def update(
        self,
        posterior: Float[Tensor, "two point latent"],
        prior: Float[Tensor, "two point latent"],
        kl: Float[Tensor, "batch dimension"],
    ) -> None:
        """Add means and variances of some points, a trial or bin each, and the KL of the trials."""
        mean, variance = posterior.double()
        prior_mean, prior_variance = prior.double()
        prior_square = prior_mean.square() + prior_variance
        parts = (mean, mean.square(), variance, prior_mean, prior_square)
        self.sums += torch.stack([part.sum(dim=0) for part in parts])
        self.kl += kl.sum(dim=0, dtype=torch.float64)
        self.num_points += len(mean)
        self.num_trials += len(kl)

    def compute(self) -> LatentUse:
        """Return how much of the latent is used."""
        mean, square, variance, prior_mean, prior_square = self.sums / self.num_points
        spread = (square - mean.square()).clamp_min(0)
        total, prior_variance = spread + variance, prior_square - prior_mean.square()
        ratio, shift = total / prior_variance, (mean - prior_mean).square() / prior_variance
        return LatentUse(
            int((spread > 0.01).sum()),
            spread.tolist(),
            (self.kl / self.num_trials).tolist(),
            mean.tolist(),
            total.sqrt().tolist(),
            float(0.5 * (ratio - 1 - ratio.log() + shift).sum()),
        )


class MeanPerTrial(SumMetric):
    """Mean over trials of a number each trial has, such as its ELBO or KL in nats."""

    total: Tensor
    num_trials: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._add_sum("total")
        self._add_sum("num_trials")

    def update(self, value: Float[Tensor, " batch"]) -> None:
        """Add the numbers of some trials."""
        self.total += value.sum(dtype=torch.float64)
        self.num_trials += len(value)

    def compute(self) -> Float[Tensor, ""]:
        """Return the mean per trial."""
        return self.total / self.num_trials


def _weighted_sum(
    values: Float[Tensor, "batch time neuron"], weight: Float[Tensor, "batch time neuron"]
) -> Float[Tensor, ""]:
    """Sum what is scored; an entry of weight 0 may hold anything, even NaN."""
    total = _sum(values * weight)
    return total if torch.isfinite(total) else _sum(values.where(weight > 0, 0.0) * weight)


def _sum(values: Float[Tensor, "batch time neuron"]) -> Float[Tensor, ""]:
    """Sum in float64; over the bins of a trial in float32, if the values are no better."""
    by_trial = values.sum(dim=1, dtype=torch.promote_types(values.dtype, torch.float32))
    return by_trial.sum(dtype=torch.float64)
