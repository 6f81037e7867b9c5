"""Every score of a model on some trials, with the baselines beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

from seqvae.analysis import refine
from seqvae.analysis.paired_scores import PairedScores
from seqvae.analysis.per_neuron import neuron_rows
from seqvae.analysis.posterior import (
    deterministic,
    latent_moments,
    posterior_dataset,
    trials_per_chunk,
)
from seqvae.analysis.refinement import check_refinable
from seqvae.analysis.training import Training as Training
from seqvae.baselines.mean_rate import MeanRate
from seqvae.baselines.smoothing_glm import SmoothingGLM
from seqvae.compute import noise
from seqvae.compute.progress import progress
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
from seqvae.models.scores import predictive_mean
from seqvae.scores.decoding import behavior_r2
from seqvae.scores.floors import LEAST_COUNT
from seqvae.scores.metrics import AggregatePosterior
from seqvae.types import Latent

DECODING_SAMPLES = 20


def evaluate_model(
    model: Model,
    data: NeuralData,
    *,
    split: str,
    num_samples: int,
    seed: int,
    refine_steps: int = 0,
    per_neuron: bool = False,
    training: Training | None = None,
) -> dict[str, Any]:
    """Score a model, and the mean rate and smoothing + GLM on the same trials.

    Args:
        model: a trained model.
        data: data that answer to the model's spec.
        split: the trials to score.
        num_samples: posterior samples.
        seed: of the posterior samples.
        refine_steps: steps of ``refine`` for each trial; 0: none.
        per_neuron: whether to score each neuron, too.
        training: what baselines and decoders are learned on; None: the training trials of ``data``.

    Returns:
        ``elbo``, ``iwae``, ``kl/<latent>`` (nats per trial), ``log_evidence`` or
        ``laplace_evidence`` where the model knows them, ``log_likelihood`` (nats per entry),
        ``bits_per_spike``, ``co_bps``, ``fp_bps``, ``rates_r2``, ``behavior_r2``, as far as the
        data allow. Under ``baselines`` the same for the mean rate and smoothing + GLM, and, where
        the truth is known, for the true rates. Under ``gain`` how much better than each baseline
        the model predicts what it did not see, paired over trials: ``mean`` and
        ``standard_error``, and their ``unit``, bits per spike for counts, else nats per entry.
        Under ``latents``, for each Gaussian latent, how much of it is used, the fields of
        ``LatentUse``, and of these also ``active_units/<latent>``.
        With ``refine_steps`` ``elbo_refined``, which is to ``heldin_elbo`` what the refined
        posterior is to the encoder's, their difference by the same noise, ``amortisation_gap``
        (nats per trial), and all scores of the refined posterior under ``refined``. Of an ensemble
        the scores of each member under ``members``, and the paired gain over it under
        ``gain_over_members``. With ``per_neuron``, under this name, what ``neuron_rows`` tells of
        each.

    Raises:
        InputError: if the model cannot be refined.
    """
    if refine_steps > 0:
        check_refinable(model)
    trials = data.trials(split)
    training = Training(model, data) if training is None else training
    row, refined, uses = (
        PairedScores(model, data),
        PairedScores(model, data),
        dict[str, AggregatePosterior](),
    )
    members: dict[str, PairedScores] = {}
    with deterministic(model, seed), progress(len(trials), work="evaluate") as advance:
        for batch in data.batches(trials, trials_per_chunk(data.spec, num_samples)):
            batch = model.scored(batch.to(model.null_counts.device))
            output = model(batch, num_samples)
            expectations = model.expectations(output, batch)
            log_prob = row.scores.update(output, batch, expectations)
            for name, value in model.evidence(batch).items():
                row.scores.add(name, value)
            row.add_mean(predictive_mean(output, expectations), log_prob, batch)
            for name, member in (expectations.members or {} if expectations else {}).items():
                assert member.log_predictive is not None
                member_row = members.setdefault(name, PairedScores(model, data))
                member_row.scores.update_mean(member.mean, member.log_predictive, batch)
                member_row.add_mean(member.mean, member.log_predictive, batch)
            for name, latent in output.latents.items():
                _add_use(uses, name, latent, num_encoded=batch.observed.shape[1])
            if refine_steps > 0:
                assert isinstance(model, AmortisedModel)
                refinement = refine(model, batch, num_steps=refine_steps, seed=seed)
                row.scores.add("elbo_refined", refinement.elbo)
                row.scores.add("amortisation_gap", refinement.amortisation_gap)
                with noise.apart(seed), noise.of_trials(batch.trial):
                    output = model.answer(refinement.encoding, batch, num_samples)
                log_prob = refined.scores.update(output, batch)
                refined.add_mean(output.emission.mean.mean(dim=0), log_prob, batch)
            advance(len(batch))
    metrics: dict[str, Any] = {"split": split, "num_trials": len(trials)} | row.compute()
    metrics |= {"refined": refined.compute()} if refine_steps > 0 else {}
    used = {name: use.compute() for name, use in uses.items()}
    metrics |= {f"active_units/{name}": use.active_units for name, use in used.items()}
    metrics["latents"] = {name: use._asdict() for name, use in used.items()}

    def factors(which: NeuralData, word: str) -> np.ndarray:
        samples = min(num_samples, DECODING_SAMPLES)
        answering = model if which is data else training.model
        dataset = posterior_dataset(
            answering,
            which,
            which.trials(word),
            num_samples=samples,
            seed=seed,
            work=f"factors ({word})",
            variables=["factors"],
        )
        return dataset["factors"].values

    metrics |= _decoded(data, split, training, factors)
    baselines = _baselines(model, data, split, training)
    metrics["baselines"] = {name: scores for name, (_, scores) in baselines.items()}
    metrics["gain"] = _gains(row, {name: other for name, (other, _) in baselines.items()})
    if members:
        metrics["members"] = {name: member.compute() for name, member in members.items()}
        metrics["gain_over_members"] = _gains(row, members)
    if per_neuron:
        others = {name: other.neurons for name, (other, _) in baselines.items()}
        metrics["per_neuron"] = neuron_rows(data, row.neurons, others)
    return metrics


def _gains(row: PairedScores, others: Mapping[str, PairedScores]) -> dict[str, dict[str, Any]]:
    """Return how much better a row predicts than others, as far as there is something unseen."""
    unit = "bits per spike" if row.counts else "nats per entry"
    gains = {name: row.gain_over(other) for name, other in others.items()}
    return {
        name: {**gain._asdict(), "unit": unit} for name, gain in gains.items() if gain is not None
    }


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


def _decoded(
    data: NeuralData,
    split: str,
    training: Training,
    features: Callable[[NeuralData, str], np.ndarray],
) -> dict[str, list[float]]:
    """Return how well ridge regression reads behaviour from features of a split's trials."""
    behavior, seen = data.recording.behavior, training.learned
    if behavior is None or seen is None or "train" not in seen.split:
        return {}
    is_own = seen.recording is data.recording
    if is_own and np.isin(data.trials(split), seen.trials("train")).any():
        return {}
    learned = seen.recording.behavior
    if learned is None or learned.shape[2] != behavior.shape[2]:
        return {}
    r2 = behavior_r2(
        features(seen, "train"),
        learned[seen.trials("train")],
        factors_test=features(data, split),
        behavior_test=behavior[data.trials(split)],
    )
    return {"behavior_r2": [float(value) for value in r2]}


def _baselines(
    model: Model, data: NeuralData, split: str, training: Training
) -> dict[str, tuple[PairedScores, dict[str, Any]]]:
    """Score the baselines, as far as there is something to learn them on, and the true rates."""
    recording, spec = data.recording, data.spec
    rates = recording.rates
    kind = model.observation.kind
    heldin = np.array(spec.heldin)
    rows: dict[str, tuple[PairedScores, dict[str, Any]]] = {}
    seen, learned = training.data, training.learned
    if seen is not None and learned is not None and "train" in seen.split:
        train = learned.recording.read(learned.at_once("train"))
        mean_rate = MeanRate.of(train, kind)
        spread = _spread(train, mean_rate.predict)
        rows["mean_rate"] = _baseline_row(model, data, split, mean_rate, mean_rate.predict, spread)
        chosen_on = ("train", "val" if "val" in seen.split else "train")
        smoothing = SmoothingGLM.fit(
            *(seen.recording.read(seen.at_once(word)) for word in chosen_on),
            heldin=heldin,
            num_encoded_bins=seen.spec.num_encoded_bins,
            kind=kind,
            refit=seen is not learned,
        )
        spread = _spread(train, smoothing.predict)
        smoothing = replace(smoothing, num_encoded_bins=spec.num_encoded_bins)
        row, scores = _baseline_row(model, data, split, mean_rate, smoothing.predict, spread)
        scores |= _decoded(
            data,
            split,
            training,
            lambda which, word: smoothing.predict(which.recording.read(which.trials(word)))[
                ..., heldin
            ],
        )
        rows["smoothing_glm"] = (row, scores)
    elif training.moments is not None:
        mean_rate = MeanRate(kind, training.moments)
        spread = training.moments.std
        rows["mean_rate"] = _baseline_row(model, data, split, mean_rate, mean_rate.predict, spread)
    trials = data.trials(split)
    has_truth = rates is not None and bool(
        (np.isfinite(rates[trials]) | np.isnan(recording.read(trials))).all()
    )
    if rates is not None and has_truth and kind.counts_events and spec.bin_width is not None:
        row = PairedScores(model, data)
        for batch in data.batches(split):
            truth = np.nan_to_num(rates[batch.trial.numpy()] * spec.bin_width)
            mean = torch.from_numpy(truth).float().clamp_min(LEAST_COUNT)
            log_prob = PoissonLogRate(mean.log(), validate_args=False).log_prob(batch.target)
            row.scores.update_mean(mean, log_prob, batch)
            row.add_mean(mean, log_prob, batch)
        rows["true_rates"] = (row, row.compute())
    return rows


def _spread(
    train: Float[np.ndarray, "trial time neuron"], predict: Callable[[np.ndarray], np.ndarray]
) -> Float[Tensor, " neuron"]:
    """Return the standard deviation of the training entries of each neuron about a prediction."""
    residual = np.where(np.isfinite(train), train - predict(train), np.nan)
    is_observed = np.isfinite(residual).any(axis=(0, 1))
    spread = np.where(
        is_observed, np.nanstd(np.where(is_observed, residual, 0.0), axis=(0, 1)), 1.0
    )
    return torch.from_numpy(spread).float()


def _baseline_row(
    model: Model,
    data: NeuralData,
    split: str,
    mean_rate: MeanRate,
    predict: Callable[[np.ndarray], np.ndarray],
    spread: Float[Tensor, " neuron"],
) -> tuple[PairedScores, dict[str, Any]]:
    """Score a function from activity to expected activity, with the spread about it."""
    row = PairedScores(model, data)
    for batch in data.batches(split):
        batch = model.scored(batch.to(model.null_counts.device)).to("cpu")
        mean = torch.from_numpy(predict(data.recording.read(batch.trial.numpy()))).float()
        log_prob = mean_rate.around(mean, spread).log_prob(batch.target)
        row.scores.update_mean(mean, log_prob, batch)
        row.add_mean(mean, log_prob, batch)
    return row, row.compute()
