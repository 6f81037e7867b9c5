"""Every score of a model on some trials, with the baselines beside it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Normal

from seqvae.data import NeuralData
from seqvae.decoding import behavior_r2
from seqvae.distributions import PoissonLogRate
from seqvae.inference import deterministic, posterior_dataset, trials_per_chunk
from seqvae.metrics import R2
from seqvae.models import LatentVariableModel
from seqvae.models.baselines import MeanRate, SmoothingGLM
from seqvae.models.scores import Scores
from seqvae.types import Batch


def evaluate_model(
    model: LatentVariableModel, data: NeuralData, *, split: str, num_samples: int, seed: int
) -> dict[str, Any]:
    """Score a model, and the mean rate and smoothing + GLM on the same trials.

    Args:
        model: a trained model.
        data: data that answer to the model's spec.
        split: the trials to score.
        num_samples: posterior samples.
        seed: of the posterior samples.

    Returns:
        The scores of design: ``elbo``, ``iwae``, ``kl/<latent>`` (nats per trial),
        ``log_likelihood`` (nats per entry), ``bits_per_spike``, ``co_bps``, ``fp_bps``,
        ``rates_r2``, ``behavior_r2``; under ``baselines`` the same for each baseline.
    """
    trials = data.trials(split)
    scores = _Evaluation(model, data)
    with deterministic(model, seed):
        for batch in data.batches(trials, trials_per_chunk(data.spec, num_samples)):
            batch = batch.to(model.null_counts.device)
            output = model(batch, num_samples)
            scores.scores.update(output, batch)
            scores.add_rates(output.emission.mean.mean(dim=0), batch)
    metrics: dict[str, Any] = {"split": split, "num_trials": len(trials)}
    metrics |= scores.compute()
    metrics |= _decoded(model, data, split=split, num_samples=num_samples, seed=seed)
    metrics["baselines"] = _baselines(model, data, trials)
    return metrics


class _Evaluation:
    """The scores of one row of the table."""

    def __init__(self, model: LatentVariableModel, data: NeuralData) -> None:
        counts = model.observation.data_kind == "counts"
        self.scores = Scores(data.spec, model.null_counts, counts=counts)
        self.rates = data.recording.rates
        self.scale = 1.0 if data.spec.bin_width is None else 1.0 / data.spec.bin_width
        self.r2 = R2(data.spec.num_neurons)

    def add_rates(self, mean: Float[Tensor, "batch time neuron"], batch: Batch) -> None:
        """Compare rates with the truth, where it is known."""
        if self.rates is None:
            return
        truth = torch.from_numpy(self.rates[batch.trial.cpu().numpy()])
        mask = batch.time_mask[..., None].cpu() & torch.isfinite(truth)
        self.r2.update(mean.cpu() * self.scale, truth.nan_to_num(), mask)

    def compute(self) -> dict[str, float]:
        """Return the scores by name."""
        found = self.scores.compute()
        if self.rates is not None:
            found["rates_r2"] = float(self.r2.compute())
        return found


def _decoded(
    model: LatentVariableModel, data: NeuralData, *, split: str, num_samples: int, seed: int
) -> dict[str, Any]:
    """Return how well behaviour is read from factors by ridge regression, per dimension."""
    behavior = data.recording.behavior
    if behavior is None or split in ("train", "all") or "train" not in data.split:
        return {}
    factors = {
        word: posterior_dataset(
            model, data, data.trials(word), num_samples=min(num_samples, 20), seed=seed
        )["factors"].values
        for word in ("train", split)
    }
    r2 = behavior_r2(
        factors["train"],
        behavior[data.trials("train")],
        factors_test=factors[split],
        behavior_test=behavior[data.trials(split)],
    )
    return {"behavior_r2": [float(value) for value in r2]}


def _baselines(
    model: LatentVariableModel, data: NeuralData, trials: np.ndarray
) -> dict[str, dict[str, float]]:
    """Score the mean rate and smoothing + GLM, learned on the training trials of ``data``."""
    if "train" not in data.split:
        return {}
    kind = model.observation.data_kind
    activity = data.recording.activity
    if activity.shape[-1] != data.spec.num_neurons:
        return {}
    heldin = np.array(data.spec.heldin)
    train = activity[data.trials("train")]
    val = activity[data.trials("val" if "val" in data.split else "train")]
    rows = {}
    for name, baseline in (("mean_rate", MeanRate), ("smoothing_glm", SmoothingGLM)):
        fitted = baseline.fit(
            train,
            val,
            heldin=heldin,
            num_encoded_bins=data.spec.num_encoded_bins,
            data_kind=kind,
        )
        spread = torch.from_numpy(np.nanstd(train - fitted.predict(train), axis=(0, 1)))
        row = _Evaluation(model, data)
        for batch in data.batches(trials):
            chosen = activity[batch.trial.numpy()]
            mean = torch.from_numpy(fitted.predict(chosen)).float()
            emission = baseline_emission(mean, spread.float(), kind)
            row.scores.update_mean(mean, emission.log_prob(batch.target), batch)
            row.add_rates(mean, batch)
        rows[name] = row.compute()
    return rows


def baseline_emission(
    mean: Float[Tensor, "batch time neuron"], std: Float[Tensor, " neuron"], kind: str
) -> Distribution:
    """Return the distribution that a baseline's mean stands for: Poisson, Bernoulli or Gaussian."""
    if kind == "counts":
        return PoissonLogRate(mean.log(), validate_args=False)
    if kind == "binary":
        return Bernoulli(mean, validate_args=False)
    floor = math.sqrt(torch.finfo(mean.dtype).tiny)
    return Normal(mean, std.clamp_min(floor), validate_args=False)
