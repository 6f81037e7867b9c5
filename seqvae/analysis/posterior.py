"""From a trained model and data to posterior means, chunk by chunk in bounded memory."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from seqvae.analysis.devices import Halving, in_order, replicas
from seqvae.compute import noise
from seqvae.compute.progress import progress
from seqvae.data import NeuralData
from seqvae.distributions import DiscreteMarkovChain
from seqvae.models import Mixture, Model
from seqvae.models.scores import PosteriorMoments, sample_moments
from seqvae.objectives import bound, has_elbo
from seqvae.types import Batch, DataSpec, Expectations, Latent, Output

if TYPE_CHECKING:
    import xarray as xr

    from seqvae.analysis.stores import Precision

MAX_ENTRIES = 8_000_000
"""Numbers of one tensor (samples x trials x bins x neurons) that a chunk may hold.

In single precision just below 32 MB, up to which freed memory is used again without being mapped
anew by the system; larger chunks are slower.
"""

ACTIVITY = "activity"
"""The variable that holds what was recorded."""


def posterior_dataset(
    model: Model,
    data: NeuralData,
    trials: np.ndarray,
    *,
    num_samples: int,
    path: str | None = None,
    attributes: Mapping[str, str | int | float] | None = None,
    seed: int = 0,
    devices: Sequence[torch.device] | None = None,
    work: str | None = None,
    variables: Sequence[str] | None = None,
    precision: Precision = "float32",
) -> xr.Dataset:
    """Infer the latents of some trials, and take posterior means and standard deviations.

    They are in closed form where the model knows them (``Model.expectations``: a Gaussian posterior
    and a linear readout), else over posterior samples; those of the latents are exact where their
    posterior has moments.
    Each trial is encoded once and all its samples are decoded as one batch. Where a chunk of trials
    does not fit into memory, smaller ones are taken. The noise of a trial depends on its index and
    ``seed`` alone, so chunks and devices change results by no more than rounding.

    Args:
        model: a trained model.
        data: data that answer to the model's spec.
        trials: indices of the trials.
        num_samples: posterior samples for each trial.
        path: netCDF file to stream to; None gathers in memory.
        attributes: facts about the run, kept in the result.
        seed: of the posterior samples.
        devices: share the trials out to replicas of the model, one on each; None: where it is.
        work: what a progress bar calls it; None shows none.
        variables: names of those to keep; None: all.
        precision: of all that has more than one number per trial.

    Returns:
        The dataset described in ``seqvae.analysis.posterior_file``, and in ``activity`` what was
        recorded, NaN where it is missing.

    Raises:
        InputError: if not even one trial fits into memory.
    """
    from seqvae.analysis.posterior_file import PosteriorWriter

    recording, spec = data.recording, data.spec
    heldin = np.zeros(spec.num_neurons, dtype=bool)
    heldin[list(spec.heldin)] = True
    coordinates = {"heldin": ("neuron", heldin), "split": ("trial", data.split[trials])}
    if data.start is not None:  # of windows; ``start + time`` is the time in the long recording
        coordinates["start"] = ("trial", data.start[trials] * (spec.bin_width or 1))
    if recording.condition is not None:
        coordinates["condition"] = ("trial", recording.condition[trials])
    if recording.neuron_sessions is not None:
        coordinates["neuron_session"] = ("neuron", recording.neuron_sessions)
    for name in ("start_times", "event_times", "segment_ids", "trial_sessions"):
        values = getattr(recording, name)
        if values is not None:
            coordinates[name.removesuffix("s")] = ("trial", values[trials])
    if isinstance(model, Mixture):
        with deterministic(model, seed):
            first = data.batch(trials[:1]).to(model.null_counts.device)
            coordinates["member"] = ("factor", np.array(model.members_of_factors(first)))
    facts = dict(attributes or {})
    if recording.session_id is not None:
        facts["session_id"] = recording.session_id
    if recording.event_times is not None and recording.event_name is not None:
        facts["event_name"] = recording.event_name
    neuron, trial = recording.neuron_ids, recording.trial_ids
    assert neuron is not None
    assert trial is not None
    writer = PosteriorWriter(
        path,
        trial=trial[trials],
        neuron=neuron,
        num_time_bins=spec.num_time_bins,
        bin_width=spec.bin_width,
        centres=recording.times,
        event_name=recording.event_name,
        coordinates=coordinates,
        attributes=facts,
        variables=variables,
        precision=precision,
    )
    answers = inferred(
        model, data, trials, num_samples=num_samples, seed=seed, devices=devices, work=work
    )
    start = 0
    with writer, closing(answers):
        for part in answers:
            values, stop = part.values, start + len(part.lengths)
            if variables is None or ACTIVITY in variables:
                values = {**values, ACTIVITY: recording.read(trials[start:stop])}
            writer.write(values, lengths=part.lengths)
            start = stop
    return writer.dataset()


def inferred(
    model: Model,
    data: NeuralData,
    trials: np.ndarray,
    *,
    num_samples: int,
    seed: int,
    devices: Sequence[torch.device] | None,
    work: str | None,
) -> Generator[ChunkValues, None, None]:
    """Yield what is inferred of some trials, chunk by chunk; see ``posterior_dataset``."""
    spec = data.spec
    counts = model.observation.kind.counts_events
    bin_width = spec.bin_width if counts else None

    def answer(replica: Model, chosen: np.ndarray) -> ChunkValues:
        batch = data.batch(chosen).to(replica.null_counts.device)
        with torch.no_grad(), noise.keyed(seed):  # in whatever thread
            output = replica(batch, num_samples)
            expectations = replica.expectations(output, batch)
            values = posterior_summary(output, batch, expectations, bin_width=bin_width)
        observed = (batch.weight > 0).any(dim=-1).cpu().numpy()
        return ChunkValues(values, batch.lengths.cpu().numpy(), observed)

    size = trials_per_chunk(spec, num_samples)
    chunks = [trials[start : start + size] for start in range(0, len(trials), size)]
    chosen_devices = [model.null_counts.device] if devices is None else devices[: len(chunks)]
    cure = f"use fewer num_samples than {num_samples}"
    with deterministic(model, seed):
        workers = [
            Halving(partial(answer, replica), cure=cure)
            for replica in replicas(model, chosen_devices)
        ]
        count = progress(len(trials), work=work)
        with closing(in_order(chunks, workers)) as answers, count as advance:
            for parts in answers:
                for part in parts:
                    yield part
                    advance(len(part.lengths))


class ChunkValues(NamedTuple):
    """What to write of some trials."""

    values: dict[str, np.ndarray]
    lengths: np.ndarray
    observed: np.ndarray  # (trial, time): whether any neuron was


@contextmanager
def deterministic(model: nn.Module, seed: int) -> Iterator[None]:
    """Without gradients and dropout, with noise keyed by a seed; leaves the caller's as it was."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), noise.apart(seed), noise.keyed(seed):
            yield
    finally:
        for module, training in modes:
            module.training = training


def trials_per_chunk(spec: DataSpec, num_samples: int) -> int:
    """Return how many trials fit into a chunk of bounded memory, at least one."""
    per_trial = num_samples * spec.num_time_bins * max(spec.num_neurons, 256)
    return max(1, MAX_ENTRIES // per_trial)


def posterior_summary(
    output: Output,
    batch: Batch,
    expectations: Expectations | None = None,
    *,
    bin_width: float | None,
) -> dict[str, np.ndarray]:
    """Return posterior means and standard deviations.

    Args:
        output: what the model answered.
        batch: what it was asked.
        expectations: what it knows in closed form; None: over the samples.
        bin_width: seconds, to give ``rates`` in Hz; None gives ``mean`` in data units.
    """
    name, scale = ("mean", 1.0) if bin_width is None else ("rates", 1.0 / bin_width)
    if expectations is None:
        rates, factors = sample_moments(output.emission.mean), sample_moments(output.factors)
    else:
        rates = PosteriorMoments(expectations.mean, expectations.mean_sd)
        factors = PosteriorMoments(expectations.factors, expectations.factors_sd)
    values = {
        name: scale * rates.mean,
        f"{name}_sd": scale * rates.sd,
        "factors": factors.mean,
        "factors_sd": factors.sd,
    }
    for latent_name, latent in output.latents.items():
        mean, sd = latent_moments(latent)
        values[f"{latent_name}_mean"] = fill(mean, latent, batch)
        values[f"{latent_name}_sd"] = fill(sd, latent, batch)
        if isinstance(latent.posterior, DiscreteMarkovChain):
            likeliest = mean.argmax(-1, keepdim=True).to(mean)
            values[latent_name] = fill(likeliest, latent, batch)[..., 0]
    if has_elbo(output):
        values["elbo"] = bound(output, batch, likelihood=_likelihood(batch, expectations)).elbo()
    return {key: value.float().cpu().numpy() for key, value in values.items()}


def _likelihood(
    batch: Batch, expectations: Expectations | None
) -> Float[Tensor, "one batch"] | None:
    """Return the log-likelihood that the posterior expects, where it is known without samples."""
    if expectations is None:
        return None
    return (batch.weight * expectations.log_prob).sum((1, 2))[None]


def latent_moments(latent: Latent) -> PosteriorMoments:
    """Return the posterior moments of a latent: exact where known, else from the samples.

    A posterior whose steps depend on the sampled path has, by the law of total variance, the mean
    of its conditional means and the mean of their variances plus the variance of the means.
    """
    posterior = latent.posterior
    mean, variance = posterior.mean, posterior.variance
    if mean.ndim < latent.sample.ndim:
        return PosteriorMoments(mean, variance.sqrt())
    total = variance.mean(dim=0) + mean.var(dim=0, correction=0)
    return PosteriorMoments(mean.mean(dim=0), total.sqrt())


def fill(value: Tensor, latent: Latent, batch: Batch) -> Tensor:
    """Fill a latent that ends with the encoded bins up to the last bin with NaN."""
    num_missing = batch.target.shape[1] - value.shape[1] if value.ndim == 3 else 0
    return torch.nn.functional.pad(value, (0, 0, 0, num_missing), value=torch.nan)
