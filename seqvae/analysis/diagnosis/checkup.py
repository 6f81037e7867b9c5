"""The check-up of a fitted model: what a diagnosis asks of it, by inference on some trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Distribution

from seqvae.analysis.diagnosis import (
    FEWEST_TRIALS,
    Checkup,
    Finding,
    FitConfig,
    Gain,
    Settings,
    Spread,
    Use,
    diagnose,
)
from seqvae.analysis.diagnosis.activity import Values, odd_channels
from seqvae.analysis.posterior import deterministic, trials_per_chunk
from seqvae.baselines.mean_rate import MeanRate
from seqvae.data import NeuralData
from seqvae.data.pieces import pieces
from seqvae.distributions import DiscreteMarkovChain, kl_by_dimension
from seqvae.distributions.kinds import Counts, kind_of
from seqvae.models import LatentVariableModel, Model
from seqvae.objectives import bound, has_elbo
from seqvae.scores.metrics import BitsPerSpike
from seqvae.types import Batch, DataSpec, Moments, Output

CHECKUP_SAMPLES = 10
CHECKUP_TRIALS = 200
LEAST_NATS = 0.005
"""Information that a dimension in use carries at least; see ``diagnosis.fit.latents``."""


def findings(
    model: Model,
    data: NeuralData,
    history: Sequence[Mapping[str, float | int]],
    *,
    config: FitConfig,
    scores: Mapping[str, Any] | None = None,
) -> list[Finding]:
    """Return what is wrong with a fit.

    Args:
        model: the fitted model.
        data: the data that it was fitted to.
        history: the rows of the fit's history.
        config: the settings of the fit.
        scores: what ``evaluate`` answers, if known.
    """
    settings = Settings(
        by_gradient=isinstance(model, LatentVariableModel),
        max_iterations=config.number("learner.max_iterations"),
        max_epochs=config.number("learner.trainer.max_epochs"),
        max_steps=config.number("learner.trainer.max_steps"),
        num_trials=len(data.trials("train")),
    )
    if isinstance(model, LatentVariableModel):
        settings = settings._replace(
            ramp_ends=model.objective.ramp_ends,
            beta=model.objective.beta,
            min_rate=config.number("model.schedule.min_lr"),
        )
    checkup = check_up(model, data, seed=model.seed)
    found = diagnose(history, checkup, settings, scores)
    return [finding.fitting(config) for finding in found]


def check_up(model: Model, data: NeuralData, *, seed: int = 0) -> Checkup:
    """Infer some training trials, and some that were not trained on, and tell what comes of it.

    At most ``MAX_TRIALS`` of each, validation trials (else test trials) for the latter, at beta = 1
    and without dropout.

    Args:
        model: a fitted model.
        data: the data that it was fitted to.
        seed: of the posterior samples.
    """
    words = [word for word in ("val", "test") if word in data.split and not model.keeps_trials]
    train = _SplitCheckup(model, data, "train", seed)
    other = _SplitCheckup(model, data, words[0], seed) if words else None
    seen = train if other is None else other
    recording, counts = data.recording, model.observation.kind.counts_events
    values = Values.of(recording)
    dispersion, error = seen.dispersion() if counts else ([], [])
    parts = (piece.values for piece in pieces(recording))
    return Checkup(
        null=null_score(model, data),
        train=train.gain(),
        other=None if other is None else other.gain(),
        latents=seen.uses(),
        heldin_bits=float(seen.heldin_bits.compute()) if counts else math.nan,
        heldout_bits=float(seen.heldout_bits.compute()) if counts else math.nan,
        dispersion=dispersion,
        dispersion_error=error,
        observation=type(model.observation).__name__,
        kind=model.observation.kind,
        are_counts=kind_of(parts) == Counts(),
        mean=values.mean,
        zeros=values.zeros,
        least=values.least,
        radius=_radius(model),
        num_time_bins=data.spec.num_time_bins,
        num_trials=seen.num_trials,
        dimension=model.dimension_argument,
        channels=odd_channels(data, model.observation.kind),
        occupancy=seen.occupancy(),
    )


def null_score(model: Model, data: NeuralData) -> Spread:
    """Return the log-likelihood of the mean rate, in nats per training trial."""
    scores = []
    for batch in data.compact_batches("train"):
        log_prob = _null(model, data, batch.neurons).log_prob(batch.target)
        weight = model.scored(batch.to(model.null_counts.device)).weight.cpu()
        scores.append((weight * log_prob).sum((1, 2)).double())
    score = torch.cat(scores)
    return Spread(
        float(score.mean()), float(score.std()) if len(score) >= FEWEST_TRIALS else math.inf
    )


def _null(model: Model, data: NeuralData, neurons: tuple[int, ...] | None) -> Distribution:
    """Return what the training moments alone say of some neurons; None: of all."""
    moments = data.train_moments
    if neurons is not None:
        moments = Moments(*(part[list(neurons)] for part in moments))
    return MeanRate(model.observation.kind, moments).distribution()


class _TrialSums(NamedTuple):
    """Sums over each of some trials.

    Attributes:
        gain: bound less the mean rate's log-likelihood, in nats; NaN if there is no bound.
        size: entries that it is of.
        excess: residual variance of each neuron less that of the emission.
        variance: of the emission.
    """

    gain: Float[Tensor, " batch"]
    size: Float[Tensor, " batch"]
    excess: Float[Tensor, "batch neuron"]
    variance: Float[Tensor, "batch neuron"]


class _SplitCheckup:
    """What a model says of some trials of a split."""

    def __init__(self, model: Model, data: NeuralData, split: str, seed: int) -> None:
        self.spec = spec = data.spec
        self.has_bound = True
        self.heldin_bits, self.heldout_bits = (
            BitsPerSpike(data.train_mean[list(some)]) for some in (spec.heldin, spec.heldout)
        )
        self.mean = data.train_mean
        self.kl: dict[str, Tensor] = {}
        self.num_steps: dict[str, int] = {}
        self.state_bins: dict[str, Tensor] = {}
        self.trials: list[_TrialSums] = []
        trials = data.trials(split)
        if len(trials) > CHECKUP_TRIALS:
            trials = trials[np.linspace(0, len(trials) - 1, CHECKUP_TRIALS).astype(int)]
        with deterministic(model, seed):
            for own, neurons in data.each_session(trials):
                facts = replace(spec, heldin=(), num_neurons=len(neurons))
                for batch in data.compact_batches(
                    trials[own], trials_per_chunk(facts, CHECKUP_SAMPLES)
                ):
                    null = _null(model, data, batch.neurons).log_prob(batch.target)
                    there = model.scored(batch.to(model.null_counts.device))
                    narrow, seen = model.narrowed(there)
                    output = narrow(seen, CHECKUP_SAMPLES)
                    self._add(output, seen, null, model=narrow, neurons=neurons)
        self.num_trials = len(trials)

    def _add(
        self,
        output: Output,
        batch: Batch,
        null: Float[Tensor, "batch time neuron"],
        *,
        model: Model,
        neurons: Int[np.ndarray, " neuron"],
    ) -> None:
        heldin, heldout = list(model.spec.heldin), list(model.spec.heldout)
        encoded = model.spec.num_encoded_bins
        seen = batch.weight[:, : batch.observed.shape[1]][..., heldin]
        log_probs = output.emission.log_prob(batch.target)
        seen_log_probs = log_probs[..., :encoded, :][..., heldin] * seen
        self.has_bound = has_elbo(output)
        terms = bound(output, batch, likelihood=seen_log_probs.sum((2, 3)))
        seen_null = null[..., :encoded, :][..., heldin]
        gain = terms.elbo().cpu() - (seen_null * seen.cpu()).sum((1, 2))
        gain = gain.double() if self.has_bound else torch.full_like(gain.double(), math.nan)
        means, variance = output.emission.mean, output.emission.variance
        excess = _excess(means, variance, batch, heldin=heldin)
        width = batch.observed.shape[1]
        weight = batch.weight[:, :width]
        variances = (variance.mean(dim=0)[:, :width] * weight).sum(dim=1).double()
        self.trials.append(
            _TrialSums(
                gain,
                seen.sum((1, 2)).double().cpu(),
                *(_among_all(part.cpu(), neurons, self.spec) for part in (excess, variances)),
            )
        )
        mean, target = means.mean(dim=0)[:, :width].cpu(), batch.target[:, :width].cpu()
        for bits, some in ((self.heldin_bits, heldin), (self.heldout_bits, heldout)):
            own = BitsPerSpike(self.mean[neurons[some]])
            own.update(*(part[..., some] for part in (mean, target, weight.cpu())))
            bits.add_totals(own.totals())
        for name, latent in output.latents.items():
            total = kl_by_dimension(latent).mean(dim=0).double().sum(dim=0).cpu()
            self.kl[name] = self.kl.get(name, 0.0) + total
            # a time course has a value in each bin
            self.num_steps[name] = latent.sample.shape[2] if latent.sample.ndim > 3 else 1
            if isinstance(latent.posterior, DiscreteMarkovChain) and latent.mask is not None:
                bins = (latent.sample.mean(dim=0) * latent.mask[..., None]).sum((0, 1)).cpu()
                self.state_bins[name] = self.state_bins.get(name, 0.0) + bins

    def gain(self) -> Gain | None:
        """Return how far the bound lies above the mean rate, per entry."""
        gain = torch.cat([trials.gain for trials in self.trials])
        size = torch.cat([trials.size for trials in self.trials])
        if bool(gain.isnan().any()) or float(size.sum()) == 0:
            return None
        mean, error = _ratio(gain[:, None], size[:, None])
        return Gain(float(mean), float(error), float(gain.mean()))

    def occupancy(self) -> dict[str, list[float]]:
        """Return the share of the bins that each discrete state holds in."""
        return {name: (bins / bins.sum()).tolist() for name, bins in self.state_bins.items()}

    def dispersion(self) -> tuple[list[float], list[float]]:
        """Return the dispersion of each neuron, and its standard error."""
        excess = torch.cat([trials.excess for trials in self.trials])
        variance = torch.cat([trials.variance for trials in self.trials])
        ratio, error = _ratio(excess, variance)
        return (1 + ratio).tolist(), error.tolist()

    def uses(self) -> dict[str, Use]:
        """Return how much of each latent is used; a posterior that is a point does not tell."""
        uses: dict[str, Use] = {}
        if not self.has_bound:
            return uses
        for name, total in self.kl.items():
            kl = total / self.num_trials
            least = LEAST_NATS * self.num_steps[name]
            uses[name] = Use(float(kl.sum()), int((kl > least).sum()), len(kl))
        return uses


def _among_all(
    values: Float[Tensor, "batch some"], neurons: Int[np.ndarray, " some"], spec: DataSpec
) -> Float[Tensor, "batch neuron"]:
    """Return values of some neurons among those of all, 0 of the others."""
    whole = values.new_zeros(len(values), spec.num_neurons)
    whole[:, neurons] = values
    return whole


def _excess(
    means: Float[Tensor, "sample batch time neuron"],
    variance: Float[Tensor, "sample batch time neuron"],
    batch: Batch,
    *,
    heldin: list[int],
) -> Float[Tensor, "batch neuron"]:
    """Return how much more each neuron varies about its rate than the emission does, per trial.

        sum_t (x_t - m_t)^2 - v_t, less as much as is shared by neighbouring bins

    If the model is right and z ~ p(z | x), then E (x - m(z))^2 = E v(z) for what the posterior has
    seen, so the samples' spread about their mean m_t counts with the residual; for held-out neurons
    it counts against it. Rates that the model misses vary slowly; their share in the residuals is
    that of neighbouring bins, E (x_t - m_t) (x_t+1 - m_t+1), and is taken off, so that what is left
    is noise of single bins, for a right likelihood 0 on average.
    """
    width = batch.observed.shape[1]
    means, variance = means[:, :, :width].double(), variance[:, :, :width].double()
    weight, target = batch.weight[:, :width].double(), batch.target[:, :width].double()
    sign = -torch.ones(means.shape[-1], dtype=torch.float64, device=means.device)
    sign[heldin] = 1
    mean, freedom = means.mean(dim=0), max(1, len(means) - 1)
    residual, spread = target - mean, means - mean
    excess = residual.square() + sign * spread.square().sum(dim=0) / freedom - variance.mean(dim=0)
    total = (weight * excess).sum(dim=1)
    if width < 2:
        return total
    pairs = weight[:, 1:] * weight[:, :-1]
    shared = residual[:, 1:] * residual[:, :-1]
    shared = shared + sign * (spread[:, :, 1:] * spread[:, :, :-1]).sum(dim=0) / freedom
    scale = weight.sum(dim=1) / pairs.sum(dim=1).clamp_min(1)
    return total - scale * (pairs * shared).sum(dim=1)


def _ratio(
    value: Float[Tensor, "trial neuron"], size: Float[Tensor, "trial neuron"]
) -> tuple[Float[Tensor, " neuron"], Float[Tensor, " neuron"]]:
    """Return ratios of sums, and their standard errors over trials [Cochran 1977, ch. 6].

    Few trials do not tell how they differ: then the error is infinite.
    """
    total = size.sum(dim=0).clamp_min(1e-12)
    ratio = value.sum(dim=0) / total
    if len(value) < FEWEST_TRIALS:
        return ratio, torch.full_like(ratio, math.inf)
    spread = (value - ratio * size).square().sum(dim=0) * len(value) / max(1, len(value) - 1)
    return ratio, spread.sqrt() / total


def _radius(model: Model) -> float | None:
    """Return the spectral radius of a model's one linear transition, if that is all there is."""
    transition = getattr(model, "transition", None)
    if getattr(model, "residual", None) is not None:  # grows, or does not, with more than this
        return None
    if not isinstance(transition, Tensor) or transition.ndim != 2:
        return None
    return float(torch.linalg.eigvals(transition.detach().cpu().double()).abs().max())
