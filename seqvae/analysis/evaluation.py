"""Every score of a model on some trials, with the baselines beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

from seqvae.analysis import refine
from seqvae.analysis.posterior import (
    deterministic,
    latent_moments,
    posterior_dataset,
    trials_per_chunk,
)
from seqvae.analysis.refinement import check_refinable
from seqvae.baselines.mean_rate import MeanRate
from seqvae.baselines.smoothing_glm import SmoothingGLM
from seqvae.compute import noise
from seqvae.data import NeuralData
from seqvae.distributions import (
    Delta,
    GaussianAR1,
    PathGaussian,
    PoissonLogRate,
    kl_by_dimension,
)
from seqvae.distributions.divergence import Joint, bare
from seqvae.models import AmortisedModel, Model
from seqvae.models.scores import Scores, predictive_mean
from seqvae.scores.decoding import behavior_r2
from seqvae.scores.floors import LEAST_COUNT
from seqvae.scores.metrics import R2, AggregatePosterior
from seqvae.types import Batch, Latent

DECODING_SAMPLES = 20


def evaluate_model(
    model: Model,
    data: NeuralData,
    *,
    split: str,
    num_samples: int,
    seed: int,
    refine_steps: int = 0,
) -> dict[str, Any]:
    """Score a model, and the mean rate and smoothing + GLM on the same trials.

    Args:
        model: a trained model.
        data: data that answer to the model's spec.
        split: the trials to score.
        num_samples: posterior samples.
        seed: of the posterior samples.
        refine_steps: steps of ``refine`` for each trial; 0: none.

    Returns:
        ``elbo``, ``iwae``, ``kl/<latent>`` (nats per trial), ``log_evidence`` or
        ``laplace_evidence`` where the model knows them, ``log_likelihood`` (nats per entry),
        ``bits_per_spike``, ``co_bps``, ``fp_bps``, ``rates_r2``, ``behavior_r2``, as far as the
        data allow. Under ``baselines`` the same for the mean rate and smoothing + GLM, and, where
        the truth is known, for the true rates. Under ``gain``, for counts, how much better than
        each baseline the model predicts what it did not see, paired over trials: ``mean`` and
        ``standard_error`` in bits per spike. Under ``latents``, for each Gaussian latent, how much
        of it is used, the fields of ``LatentUse``, and of these also ``active_units/<latent>``.
        With ``refine_steps`` ``elbo_refined``, which is to ``heldin_elbo`` what the refined
        posterior is to the encoder's, their difference by the same noise, ``amortisation_gap``
        (nats per trial), and all scores of the refined posterior under ``refined``.

    Raises:
        InputError: if the model cannot be refined.
    """
    if refine_steps > 0:
        check_refinable(model)
    trials = data.trials(split)
    row, refined, uses = (
        _PairedScores(model, data),
        _PairedScores(model, data),
        dict[str, AggregatePosterior](),
    )
    with deterministic(model, seed):
        for batch in data.batches(trials, trials_per_chunk(data.spec, num_samples)):
            batch = model.scored(batch.to(model.null_counts.device))
            output = model(batch, num_samples)
            expectations = model.expectations(output, batch)
            row.scores.update(output, batch, expectations)
            for name, value in model.evidence(batch).items():
                row.scores.add(name, value)
            row.add_mean(predictive_mean(output, expectations), batch)
            for name, latent in output.latents.items():
                _add_use(uses, name, latent, num_encoded=batch.observed.shape[1])
            if refine_steps > 0:
                assert isinstance(model, AmortisedModel)
                refinement = refine(model, batch, num_steps=refine_steps, seed=seed)
                row.scores.add("elbo_refined", refinement.elbo)
                row.scores.add("amortisation_gap", refinement.amortisation_gap)
                with noise.apart(seed), noise.of_trials(batch.trial):
                    output = model.answer(refinement.encoding, batch, num_samples)
                refined.scores.update(output, batch)
                refined.add_mean(output.emission.mean.mean(dim=0), batch)
    metrics: dict[str, Any] = {"split": split, "num_trials": len(trials)} | row.compute()
    metrics |= {"refined": refined.compute()} if refine_steps > 0 else {}
    used = {name: use.compute() for name, use in uses.items()}
    metrics |= {f"active_units/{name}": use.active_units for name, use in used.items()}
    metrics["latents"] = {name: use._asdict() for name, use in used.items()}

    def factors(word: str) -> np.ndarray:
        samples = min(num_samples, DECODING_SAMPLES)
        dataset = posterior_dataset(model, data, data.trials(word), num_samples=samples, seed=seed)
        return dataset["factors"].values

    metrics |= _decoded(data, split, factors)
    baselines = _baselines(model, data, split)
    metrics["baselines"] = {name: scores for name, (_, scores) in baselines.items()}
    gains = {name: row.gain_over(other) for name, (other, _) in baselines.items()}
    metrics["gain"] = {name: gain._asdict() for name, gain in gains.items() if gain is not None}
    return metrics


def _add_use(
    uses: dict[str, AggregatePosterior], name: str, latent: Latent, *, num_encoded: int
) -> None:
    """Add a batch to the use of a latent, if it is a Gaussian one, or a point, of trials or bins.

    Forecast bins, where the posterior is the prior, and padding do not count.
    """
    posterior, prior = bare(latent.posterior), bare(latent.prior)
    if not isinstance(posterior, Normal | PathGaussian | Joint | Delta):
        return
    if not isinstance(prior, Normal | GaussianAR1):
        return
    moments = latent_moments(latent)
    inferred = torch.stack([moments.mean, moments.sd.square()])
    expected = torch.stack([prior.mean, prior.variance])[:, None].expand_as(inferred)
    if latent.mask is not None:
        counted = latent.mask[:, :num_encoded]
        inferred, expected = (part[:, :, :num_encoded][:, counted] for part in (inferred, expected))
    divergence = kl_by_dimension(latent).mean(dim=0)
    if name not in uses:
        uses[name] = AggregatePosterior(inferred.shape[-1], divergence.shape[-1]).to(
            inferred.device
        )
    uses[name].update(inferred, expected, divergence)


class PairedGain(NamedTuple):
    """A paired difference over trials: ratio of sums, and its standard error."""

    mean: float
    standard_error: float


class _PairedScores:
    """The scores of one row of the table, and what it takes to pair rows over trials."""

    def __init__(self, model: Model, data: NeuralData) -> None:
        session = model.session()
        self.counts = session.observation.kind.counts_events
        self.scores = Scores(data.spec, session.null_counts, counts=self.counts)
        self.spec = data.spec
        self.rates = data.recording.rates
        self.scale = 1.0 if data.spec.bin_width is None else 1.0 / data.spec.bin_width
        self.r2 = R2(data.spec.num_neurons)
        self._unseen: list[tuple[Tensor, Tensor]] = []

    def add_mean(self, mean: Float[Tensor, "batch time neuron"], batch: Batch) -> None:
        """Compare rates with the truth, where it is known, and keep the score of each trial."""
        if self.counts:
            mean = mean.clamp_min(LEAST_COUNT)
            gain = batch.target * mean.log() - mean
            unseen = batch.weight.clone()  # held-out neurons and forecast bins
            unseen[:, : batch.observed.shape[1], list(self.spec.heldin)] = 0
            size = (unseen * batch.target).sum((1, 2)) * math.log(2)
            self._unseen.append(((unseen * gain).sum((1, 2)).double().cpu(), size.double().cpu()))
        if self.rates is not None:
            truth = torch.from_numpy(self.rates[batch.trial.cpu().numpy()])
            mask = batch.time_mask[..., None].cpu() & torch.isfinite(truth)
            self.r2.update(mean.cpu() * self.scale, truth.nan_to_num(), mask)

    def compute(self) -> dict[str, float]:
        """Return the scores by name."""
        scores = self.scores.compute()
        if bool(self.r2.num_bins.any()):
            scores["rates_r2"] = float(self.r2.compute())
        return scores

    def gain_over(self, other: _PairedScores) -> PairedGain | None:
        """Return the bits per spike gained over another row on what inference did not see."""
        if not self._unseen or not other._unseen:
            return None
        gains, size = (torch.cat(part) for part in zip(*self._unseen, strict=True))
        other_gains, _ = (torch.cat(part) for part in zip(*other._unseen, strict=True))
        return paired_gain(gains - other_gains, size)


def paired_gain(
    difference: Float[Tensor, " trial"], size: Float[Tensor, " trial"]
) -> PairedGain | None:
    """Return the ratio of sums g = sum_i d_i / sum_i n_i and its standard error over trials.

    By linearisation se(g) = sqrt(N / (N - 1) sum_i (d_i - g n_i)^2) / sum_i n_i for N independent
    trials [Cochran 1977, ch. 6]; where all n_i are equal it is that of the mean of d_i / n_i.

    Args:
        difference: d_i, what one row gains over another in trial i, in nats.
        size: n_i, spikes times ln 2, so that g is in bits per spike.

    Returns:
        None for fewer than two trials, or none with a spike.
    """
    num_trials, total = len(size), float(size.sum())
    if num_trials < 2 or total == 0:
        return None
    mean = float(difference.sum()) / total
    residual = float((difference - mean * size).square().sum())
    return PairedGain(mean, math.sqrt(residual * num_trials / (num_trials - 1)) / total)


def _decoded(
    data: NeuralData, split: str, features: Callable[[str], np.ndarray]
) -> dict[str, list[float]]:
    """Return how well ridge regression reads behaviour from features of a split's trials."""
    behavior = data.recording.behavior
    if behavior is None or split in ("train", "all") or "train" not in data.split:
        return {}
    r2 = behavior_r2(
        features("train"),
        behavior[data.trials("train")],
        factors_test=features(split),
        behavior_test=behavior[data.trials(split)],
    )
    return {"behavior_r2": [float(value) for value in r2]}


def _baselines(
    model: Model, data: NeuralData, split: str
) -> dict[str, tuple[_PairedScores, dict[str, Any]]]:
    """Score the baselines, learned on the training trials of ``data``, and the true rates."""
    recording, spec = data.recording, data.spec
    rates = recording.rates
    kind = model.observation.kind
    heldin = np.array(spec.heldin)
    rows: dict[str, tuple[_PairedScores, dict[str, Any]]] = {}
    if "train" in data.split:
        train = recording.read(data.trials("train"))
        val = recording.read(data.trials("val" if "val" in data.split else "train"))
        mean_rate = MeanRate.of(train, kind)
        rows["mean_rate"] = _baseline_row(model, data, split, mean_rate, mean_rate.predict)
        smoothing = SmoothingGLM.fit(
            train, val, heldin=heldin, num_encoded_bins=spec.num_encoded_bins, kind=kind
        )
        row, scores = _baseline_row(model, data, split, mean_rate, smoothing.predict)
        scores |= _decoded(
            data,
            split,
            lambda word: smoothing.predict(recording.read(data.trials(word)))[..., heldin],
        )
        rows["smoothing_glm"] = (row, scores)
    trials = data.trials(split)
    has_truth = rates is not None and bool(
        (np.isfinite(rates[trials]) | np.isnan(recording.read(trials))).all()
    )
    if rates is not None and has_truth and kind.counts_events and spec.bin_width is not None:
        row = _PairedScores(model, data)
        for batch in data.batches(split):
            truth = np.nan_to_num(rates[batch.trial.numpy()] * spec.bin_width)
            mean = torch.from_numpy(truth).float().clamp_min(LEAST_COUNT)
            log_prob = PoissonLogRate(mean.log(), validate_args=False).log_prob(batch.target)
            row.scores.update_mean(mean, log_prob, batch)
            row.add_mean(mean, batch)
        rows["true_rates"] = (row, row.compute())
    return rows


def _baseline_row(
    model: Model,
    data: NeuralData,
    split: str,
    mean_rate: MeanRate,
    predict: Callable[[np.ndarray], np.ndarray],
) -> tuple[_PairedScores, dict[str, Any]]:
    """Score a function from activity to expected activity."""
    recording = data.recording
    train = recording.read(data.trials("train"))
    residual = np.where(np.isfinite(train), train - predict(train), np.nan)
    is_observed = np.isfinite(residual).any(axis=(0, 1))
    spread = np.where(
        is_observed, np.nanstd(np.where(is_observed, residual, 0.0), axis=(0, 1)), 1.0
    )
    row = _PairedScores(model, data)
    for batch in data.batches(split):
        batch = model.scored(batch.to(model.null_counts.device)).to("cpu")
        mean = torch.from_numpy(predict(recording.read(batch.trial.numpy()))).float()
        emission = mean_rate.around(mean, torch.from_numpy(spread).float())
        row.scores.update_mean(mean, emission.log_prob(batch.target), batch)
        row.add_mean(mean, batch)
    return row, row.compute()
