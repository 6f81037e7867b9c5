"""The scores of a model on a set of trials, gathered batch by batch as sums."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from seqvae.objectives import (
    Bound,
    bound,
    has_elbo,
    importance_weighted_bound,
    log_weights,
)
from seqvae.scores.metrics import BitsPerSpike, LogLikelihood, MeanPerTrial, SumMetric
from seqvae.types import Batch, DataSpec, Expectations, Output


def predictive_mean(
    output: Output, expectations: Expectations | None
) -> Float[Tensor, "batch time neuron"]:
    """Return E_q[E[x | f]], in closed form where it is known, else as the mean over samples."""
    return output.emission.mean.mean(dim=0) if expectations is None else expectations.mean


def log_predictive(
    log_probs: Float[Tensor, "sample batch time neuron"], expectations: Expectations | None
) -> Float[Tensor, "batch time neuron"]:
    """Return log E_q[p(x | f)] of each entry, in closed form where it is known.

    Args:
        log_probs: log p(x | f) of the samples.
        expectations: what is known in closed form.
    """
    if expectations is not None and expectations.log_predictive is not None:
        return expectations.log_predictive
    # sample by sample: twice as fast as logsumexp, which passes over all samples five times
    return reduce(torch.logaddexp, log_probs) - math.log(len(log_probs))


class PosteriorMoments(NamedTuple):
    """Mean and standard deviation under the posterior."""

    mean: Float[Tensor, "batch ..."]
    sd: Float[Tensor, "batch ..."]


def sample_moments(values: Float[Tensor, "sample batch ..."]) -> PosteriorMoments:
    """Return mean and standard deviation over samples; ``Tensor.std`` is several times slower."""
    mean = values.mean(dim=0)
    return PosteriorMoments(mean, (values - mean).square_().mean(dim=0).sqrt())


def all_expectations(
    output: Output, batch: Batch, expectations: Expectations | None
) -> Expectations:
    """Return what is known in closed form, and for all else means over the samples.

    Args:
        output: what a model answered.
        batch: what it was asked.
        expectations: what it knows in closed form.
    """
    if expectations is not None and expectations.log_predictive is not None:
        return expectations
    log_probs = output.emission.log_prob(batch.target)
    predictive = log_predictive(log_probs, expectations)
    if expectations is not None:
        return expectations._replace(log_predictive=predictive)
    factors, activity = sample_moments(output.factors), sample_moments(output.emission.mean)
    return Expectations(*factors, *activity, log_probs.mean(dim=0), predictive)


class Scores:
    """Gathers every score that needs no truth; exact whatever the sizes of the batches.

    Regions: held-in neurons in encoded bins (``bits_per_spike``), held-out neurons in encoded bins
    (``co_bps``), all neurons in forecast bins (``fp_bps``). Bits per spike compare the Poisson
    log-likelihood at the posterior mean rate with that of ``null_counts``, and exist for counts
    only. ``log_likelihood`` is log E_q[p(x | f)], nats per scored entry, under the model's own
    emission. ``elbo`` bounds log p of all that is scored; ``heldin_elbo`` that of the held-in
    neurons in encoded bins, so that it selects a model without a look at what is held out. Bounds
    are left out where a posterior is a point. Expectations under the posterior are in closed form
    where the model knows them, else means over its samples.

    Args:
        spec: facts of the data.
        null_counts: mean count of each neuron over the training trials.
        counts: whether the data are counts.
    """

    def __init__(
        self, spec: DataSpec, null_counts: Float[Tensor, " neuron"], *, counts: bool
    ) -> None:
        self.spec = spec
        self.trial_terms: dict[str, MeanPerTrial] = {}
        everyone = slice(None)
        self._heldin = list(spec.heldin) if spec.heldout else everyone
        self._heldout = list(spec.heldout)
        neurons = {"bits_per_spike": self._heldin, "co_bps": self._heldout, "fp_bps": everyone}
        self.bits = {name: BitsPerSpike(null_counts[n]) for name, n in neurons.items() if counts}
        self.log_likelihood = {
            name: LogLikelihood() for name in ("log_likelihood", "heldout_log_likelihood")
        }

    def update(
        self, output: Output, batch: Batch, expectations: Expectations | None = None
    ) -> Float[Tensor, "batch time neuron"]:
        """Add a batch that a model answered.

        Args:
            output: the answer.
            batch: what was asked.
            expectations: what the model knows of it in closed form; None: means over the samples.

        Returns:
            The log predictive density of each entry.
        """
        log_probs = output.emission.log_prob(batch.target)
        sampled, heldin = self._likelihoods(log_probs, batch)
        likelihood = sampled
        if expectations is not None:
            likelihood, heldin = self._likelihoods(expectations.log_prob[None], batch)
        terms = bound(output, batch, likelihood=likelihood)
        if has_elbo(output):
            elbo, iwae = terms.elbo(), importance_weighted_bound(output, batch, likelihood=sampled)
            if expectations is not None:  # what log-weights gain on their mean, which the bound is
                iwae = elbo + iwae - log_weights(output, batch, likelihood=sampled).mean(dim=0)
            self.add("elbo", elbo)
            self.add("heldin_elbo", Bound(heldin.mean(dim=0), terms.kl).elbo())
            self.add("iwae", iwae)
        for name, value in terms.kl.items():
            self.add(f"kl/{name}", value)
        mean = predictive_mean(output, expectations)
        log_prob = log_predictive(log_probs, expectations)
        self.update_mean(mean, log_prob, batch)
        return log_prob

    def _likelihoods(
        self, log_probs: Float[Tensor, "sample batch time neuron"], batch: Batch
    ) -> tuple[Float[Tensor, "sample batch"], Float[Tensor, "sample batch"]]:
        """Add up what is scored, and what of it is held in."""
        weighted, num_encoded = batch.weight * log_probs, batch.observed.shape[1]
        encoded = weighted[:, :, :num_encoded].sum(dim=2)
        likelihood = encoded.sum(dim=2) + weighted[:, :, num_encoded:].sum(dim=(2, 3))
        return likelihood, encoded[..., self._heldin].sum(dim=2)

    def update_mean(
        self,
        mean: Float[Tensor, "batch time neuron"],
        log_prob: Float[Tensor, "batch time neuron"],
        batch: Batch,
    ) -> None:
        """Add a batch that is known by its mean and its log-density only (the baselines)."""
        weight, heldin, heldout = batch.weight, self._heldin, self._heldout
        likelihoods = self._to(self.log_likelihood, mean)
        likelihoods["log_likelihood"].update(log_prob, weight)
        likelihoods["heldout_log_likelihood"].update(log_prob[..., heldout], weight[..., heldout])
        if not self.bits:
            return
        bits, num_encoded = self._to(self.bits, mean), batch.observed.shape[1]
        seen = [values[:, :num_encoded] for values in (mean, batch.target, weight)]
        bits["bits_per_spike"].update(*(values[..., heldin] for values in seen))
        bits["co_bps"].update(*(values[..., heldout] for values in seen))
        later = [values[:, num_encoded:] for values in (mean, batch.target, weight)]
        bits["fp_bps"].update(*later)

    def compute(self) -> dict[str, float]:
        """Return the scores by name; those whose region is empty are left out."""
        absent = {
            "heldout_log_likelihood": not self.spec.heldout,
            "co_bps": not self.spec.heldout,
            "fp_bps": self.spec.num_forecast_bins == 0,
        }
        return {
            name: float(metric.compute())
            for name, metric in self._metrics.items()
            if not absent.get(name, False)
        }

    def add(self, name: str, values: Float[Tensor, " batch"]) -> None:
        """Add a score of its own of each trial, to be averaged over trials."""
        if name not in self.trial_terms:
            self.trial_terms[name] = MeanPerTrial()
        self._to(self.trial_terms, values)[name].update(values)

    def sums(self) -> dict[str, list[float]]:
        """Return all that was gathered, as numbers, by the name of the score."""
        return {name: metric.totals() for name, metric in self._metrics.items()}

    def add_sums(self, sums: Mapping[str, Sequence[float]]) -> None:
        """Add what other scores of these data have gathered, in another process, say."""
        for name, values in sums.items():
            if name not in self._metrics:
                self.trial_terms[name] = MeanPerTrial()
            self._metrics[name].add_totals(values)

    @property
    def _metrics(self) -> dict[str, SumMetric]:
        return {**self.trial_terms, **self.log_likelihood, **self.bits}

    @staticmethod
    def _to(metrics: dict, like: Tensor) -> dict:
        for metric in metrics.values():
            if metric.device != like.device:
                metric.to(like.device)
        return metrics
