"""Every score of a model on some trials, with the baselines beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.distributions import Normal

from seqvae.analysis import refine
from seqvae.analysis.baseline_rows import baseline_rows
from seqvae.analysis.ceilings import Ceilings
from seqvae.analysis.decoded import decoded_by_model
from seqvae.analysis.paired_scores import PairedScores
from seqvae.analysis.per_neuron import neuron_rows
from seqvae.analysis.posterior import deterministic, latent_moments, trials_per_chunk
from seqvae.analysis.refinement import check_refinable
from seqvae.analysis.training import Training as Training
from seqvae.compute import noise
from seqvae.compute.progress import progress
from seqvae.data import NeuralData
from seqvae.distributions import Delta, GaussianAR1, PathGaussian, kl_by_dimension
from seqvae.distributions.divergence import Joint, bare
from seqvae.models import AmortisedModel, Model
from seqvae.models.scores import predictive_mean
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
    """Score a model, and the baselines on the same trials.

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
        ``bits_per_spike``, ``co_bps``, ``fp_bps``, ``rates_r2``, ``behavior_r2`` (from factors),
        and as the Neural Latents Benchmark defines them ``nlb_co_bps``, ``nlb_fp_bps``,
        ``nlb_psth_r2`` and ``nlb_behavior_r2`` (from rates), as far as the data allow. Under
        ``baselines`` the same, but nothing from factors, for the mean rate, smoothing + GLM, where
        there are conditions for their means, and, where the truth is known, for the true rates.
        Under ``gain`` how much better than each baseline
        the model predicts what it did not see, paired over trials: ``mean`` and
        ``standard_error``, and their ``unit``, bits per spike for counts, else nats per entry.
        Under ``ceiling``, where conditions come again among the scored trials, what the rate of a
        condition alone could reach: for ``variance_explained`` of what the model did not see, and
        the bits per spike, the fields of ``Ceiling``.
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
    ceilings = Ceilings(model, data, split)
    with deterministic(model, seed), progress(len(trials), work="evaluate") as advance:
        for batch in data.batches(trials, trials_per_chunk(data.spec, num_samples)):
            batch = model.scored(batch.to(model.null_counts.device))
            output = model(batch, num_samples)
            expectations = model.expectations(output, batch)
            log_prob = row.scores.update(output, batch, expectations)
            for name, value in model.evidence(batch).items():
                row.scores.add(name, value)
            mean = predictive_mean(output, expectations)
            row.add_mean(mean, log_prob, batch)
            ceilings.add(mean, batch)
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
    samples = min(num_samples, DECODING_SAMPLES)
    metrics |= decoded_by_model(model, data, split, training, num_samples=samples, seed=seed)
    baselines = baseline_rows(model, data, split, training)
    metrics["baselines"] = {name: scores for name, (_, scores) in baselines.items()}
    metrics["gain"] = _gains(row, {name: other for name, (other, _) in baselines.items()})
    if ceiling := ceilings.compute(metrics["baselines"]):
        metrics["ceiling"] = ceiling
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
