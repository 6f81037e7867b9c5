"""Simulation-based calibration: is a posterior right on data of the model's own prior?"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqvae.analysis.audit.departures import (
    DENSITY,
    Departure,
    Kind,
    departures_of_ranks,
    hotelling,
)
from seqvae.analysis.posterior import deterministic, trials_per_chunk
from seqvae.distributions.divergence import log_density
from seqvae.errors import InputError
from seqvae.models import Model
from seqvae.objectives import log_likelihood
from seqvae.objectives.bounds import weighted_log_prob
from seqvae.types import Batch, Latent, Output

COVERAGE_LEVELS = (0.5, 0.9)


class Calibration(NamedTuple):
    """The ranks of the true values of a latent among posterior draws.

    Attributes:
        ranks: (trial, ...) from 0 to num_draws.
        num_draws: posterior draws that each true value is ranked among.
        shares: share of the ranks in each of equally wide bins; equal if calibrated.
        standard_error: of each share, over trials.
        p_value: of a chi-square test of equal shares, see ``uniformity``.
        coverage: share of true values in the central posterior interval of each level.
        departures: of mean and variance of the posterior from the true ones.
    """

    ranks: Int[np.ndarray, "trial ..."]
    num_draws: int
    shares: Float[np.ndarray, " bin"]
    standard_error: Float[np.ndarray, " bin"]
    p_value: float
    coverage: dict[float, float]
    departures: list[Departure]


def simulation_based_calibration(
    model: Model, num_trials: int = 200, num_samples: int = 99, *, num_bins: int = 10, seed: int = 0
) -> dict[str, Calibration]:
    """Rank the true latents of simulated trials among draws from the model's posterior.

    Where latents are drawn from the prior and data from the likelihood, the rank of a latent among
    L independent posterior draws is uniform on 0..L if and only if the posterior is right on
    average over data (Talts et al. 2018). Ranks that crowd at both ends tell of a posterior that is
    too narrow, in the middle of one too wide, at one end of a bias.

    Uniform ranks of each entry do not tell that the posterior is right: it may lack the dependence
    between entries, or be the prior. So sums of a latent over time are ranked, too, and
    log p(x, z), x what inference sees, of a model that answers ``emission_given`` (Modrak et al.
    2023). Values that are equal, as discrete ones may be, are ranked by lot.

    Args:
        model: a model, without external inputs.
        num_trials: trials to simulate.
        num_samples: L; L + 1 must be a multiple of ``num_bins``.
        num_bins: bins of the ranks.
        seed: of the simulation and the posterior draws.

    Returns:
        The ranks of each latent by name, of ``sums of ...`` over time, and of ``log p(x, z)``.

    Raises:
        InputError: for sizes that do not fit, or a model that cannot infer new trials.
    """
    if num_trials < 2 * num_bins:
        raise InputError(f"num_trials must be at least {2 * num_bins}, got {num_trials}")
    if num_bins < 2 or (num_samples + 1) % num_bins:
        raise InputError(
            f"num_samples + 1 must be a multiple of the {num_bins} bins, got {num_samples}; e.g. "
            f"{max(1, (num_samples + 1) // max(num_bins, 1)) * num_bins - 1}"
        )
    spec = model.spec
    if spec.num_inputs:
        raise InputError(
            f"the model has {spec.num_inputs} external inputs, which are not simulated; "
            "calibrate a model without"
        )
    if model.keeps_trials:
        raise InputError("a free posterior knows its own trials only; there is none of new ones")
    ranks: dict[str, list[np.ndarray]] = {}
    kinds: dict[str, Kind] = {}
    lots = np.random.default_rng(seed)
    chunk = trials_per_chunk(spec, num_samples)
    with deterministic(model, seed):
        for first in range(0, num_trials, chunk):
            simulated = model.sample(min(chunk, num_trials - first))
            activity = simulated.emission.sample()[0].to(model.null_counts)
            batch = simulated_batch(model, activity, first=first)
            output = model(batch, num_samples)
            for name, kind, drawn, truth in _quantities(model, batch, output, simulated):
                below, ties = (drawn < truth).sum(0).cpu(), (drawn == truth).sum(0).cpu()
                rank = below.numpy() + lots.integers(0, ties.numpy() + 1)
                ranks.setdefault(name, []).append(rank)
                kinds[name] = kind
    return {
        name: calibration_of_ranks(
            np.concatenate(chunks), num_samples, num_bins=num_bins, quantity=name, kind=kinds[name]
        )
        for name, chunks in ranks.items()
    }


def _quantities(
    model: Model, batch: Batch, output: Output, simulated: Output
) -> list[tuple[str, Kind, Float[Tensor, "sample batch ..."], Float[Tensor, "1 batch ..."]]]:
    """Return what is ranked: its name and kind, of each posterior draw and of the truth."""
    truths = {
        name: simulated.latents[name].sample[:, :, : latent.sample.shape[2]]
        for name, latent in output.latents.items()
    }
    quantities: list[tuple[str, Kind, Tensor, Tensor]] = [
        (name, "entries", latent.sample, truths[name]) for name, latent in output.latents.items()
    ]
    quantities += [
        (f"sums of {name}", "sums", latent.sample.sum(2), truths[name].sum(2))
        for name, latent in output.latents.items()
        if latent.sample.ndim == 4
    ]
    if type(model).emission_given is not Model.emission_given:
        seen = torch.zeros_like(batch.weight)
        seen[..., list(model.spec.heldin)] = 1.0
        batch = model.scored(replace(batch, weight=seen))
        emission = model.emission_given(truths, batch)
        drawn = log_likelihood(output, batch)
        truth = weighted_log_prob(emission, batch.target, batch.weight)
        for name, latent in output.latents.items():
            prior = latent.prior
            drawn = drawn + log_density(prior, latent)
            truth = truth + log_density(prior, Latent(prior, prior, truths[name], latent.mask))
        quantities.append((DENSITY, "density", drawn, truth))
    return quantities


def simulated_batch(
    model: Model, activity: Float[torch.Tensor, "batch time neuron"], *, first: int = 0
) -> Batch:
    """Return a batch in which the held-in neurons of the encoded bins are seen.

    Args:
        model: that simulated the trials.
        activity: of all neurons.
        first: index of the first trial.
    """
    spec = model.spec
    activity = activity[:, : spec.num_encoded_bins]
    observed = activity[..., list(spec.heldin)]
    steps = torch.full_like(activity[:, 0, 0], activity.shape[1]).long()
    return Batch(
        observed=observed,
        observed_mask=torch.ones_like(observed, dtype=torch.bool),
        target=activity,
        weight=torch.ones_like(activity),
        inputs=activity[..., :0],
        lengths=steps,
        trial=first + torch.arange(len(activity)).to(steps),
    )


def calibration_of_ranks(
    ranks: Int[np.ndarray, "trial ..."],
    num_draws: int,
    *,
    num_bins: int,
    quantity: str = "latents",
    kind: Kind = "entries",
) -> Calibration:
    """Test ranks from 0 to ``num_draws`` for uniformity; trials are independent, no more."""
    flat = ranks.reshape(len(ranks), -1)
    bins = flat * num_bins // (num_draws + 1)
    shares = np.stack([(bins == b).mean(1) for b in range(num_bins)], axis=1)
    centre = (flat + 0.5) / (num_draws + 1) - 0.5
    return Calibration(
        ranks,
        num_draws,
        shares.mean(0),
        shares.std(0, ddof=1) / len(shares) ** 0.5,
        uniformity(shares),
        {level: float((np.abs(centre) < level / 2).mean()) for level in COVERAGE_LEVELS},
        departures_of_ranks(ranks, num_draws, quantity=quantity, kind=kind),
    )


def uniformity(shares: Float[np.ndarray, "trial bin"]) -> float:
    """Return the p-value of equal mean shares of the bins.

    The entries of a trial are dependent, so the chi-square statistic takes the covariance of the
    shares from their spread over trials, as ``hotelling`` does. Shares add up to 1, so one bin is
    left out.
    """
    size = shares.shape[1] - 1
    return hotelling(shares[:, :size], (shares.mean(0) - 1 / shares.shape[1])[:size])
