"""A model's posterior beside draws from the true one."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from seqvae.analysis.audit.calibration import COVERAGE_LEVELS
from seqvae.analysis.audit.departures import (
    DENSITY,
    Departure,
    departures_of_draws,
    in_batches,
)
from seqvae.analysis.audit.joint import JointDensity, frozen_model
from seqvae.analysis.audit.reference import Reference, require
from seqvae.distributions import log_ratio
from seqvae.distributions.divergence import log_density
from seqvae.models import Model
from seqvae.objectives import log_likelihood
from seqvae.types import Batch

CHUNK = 200
"""Posterior samples that are decoded at once."""


@dataclass(frozen=True)
class LatentComparison:
    """A latent of one trial under the model's posterior and under the reference.

    Attributes:
        mean_error: root mean square over its entries of the error of the mean, in units of the
            reference's standard deviation.
        mean_error_exact: what ``mean_error`` would be on average if the means were equal, by the
            Monte Carlo error of both.
        variance_ratio: geometric mean over its entries of model's to reference variance.
        variance_ratio_error: its Monte Carlo standard error.
        coverage: share of the reference draws in the model's central interval, for each level.
        coverage_error: Monte Carlo standard error of each.
        model: quantiles of each entry, (5 %, 25 %, 50 %, 75 %, 95 %) first.
        reference: likewise.
    """

    mean_error: float
    mean_error_exact: float
    variance_ratio: float
    variance_ratio_error: float
    coverage: dict[float, float]
    coverage_error: dict[float, float]
    model: np.ndarray
    reference: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """All latents of one trial, by name.

    Attributes:
        k_hat: shape of the tail of the importance weights p(x, z) / q(z | x) of draws from the
            model's posterior: below 0.7 these draws, weighted, stand for the true posterior; above
            they miss some of it (Vehtari et al. 2024).
        latents: by name.
        departures: of the latents' entries, their sums over time, and log p(x, z).
    """

    k_hat: float
    latents: dict[str, LatentComparison]
    departures: list[Departure]


def compare(
    model: Model, batch: Batch, reference: Reference, *, num_draws: int = 2000, seed: int = 0
) -> Comparison:
    """Compare the model's posterior of one trial with a reference posterior.

    Args:
        model: a model.
        batch: the trial, as ``what_is_seen`` gives it.
        reference: draws from the true posterior.
        num_draws: draws from the model's posterior.
        seed: of these draws.
    """
    draws: dict[str, list[np.ndarray]] = {name: [] for name in reference.draws}
    log_weights, densities = [], []
    with frozen_model(model, seed=seed), torch.no_grad():
        batch = batch.to(model.null_counts)
        for first in range(0, num_draws, CHUNK):
            output = model(batch, min(CHUNK, num_draws - first))
            log_weight = log_likelihood(output, batch)
            density = log_weight
            for name, latent in output.latents.items():
                log_weight = log_weight - log_ratio(latent)
                density = density + log_density(latent.prior, latent)
                draws[name].append(latent.sample[:, 0].cpu().numpy())
            log_weights.append(log_weight[:, 0].cpu().numpy())
            densities.append(density[:, 0].cpu().numpy())
        true_densities = _log_densities(JointDensity(model, batch), reference)
    drawn = {name: np.concatenate(parts) for name, parts in draws.items()}
    departures = departures_of_draws(
        np.concatenate(densities), true_densities, quantity=DENSITY, kind="density"
    )
    for name, ours in drawn.items():
        theirs = reference.draws[name]
        departures += departures_of_draws(ours, theirs, quantity=name, kind="entries")
        if ours.ndim == 3:
            departures += departures_of_draws(
                ours.sum(1), theirs.sum(2), quantity=f"sums of {name}", kind="sums"
            )
    return Comparison(
        k_hat(np.concatenate(log_weights)),
        {name: compare_draws(ours, reference.draws[name]) for name, ours in drawn.items()},
        departures,
    )


def _log_densities(joint: JointDensity, reference: Reference) -> Float[np.ndarray, "chain draw"]:
    """Return log p(x, z) of the reference draws."""
    like = joint.batch.target
    flat = {
        name: torch.as_tensor(draws).flatten(0, 1)[:, None].to(like)
        for name, draws in reference.draws.items()
    }
    chains, draws = next(iter(reference.draws.values())).shape[:2]
    parts = [
        joint({name: values[first : first + CHUNK] for name, values in flat.items()})[:, 0]
        for first in range(0, chains * draws, CHUNK)
    ]
    return torch.cat(parts).reshape(chains, draws).cpu().numpy()


def compare_draws(model: np.ndarray, reference: np.ndarray) -> LatentComparison:
    """Compare draws of a latent: (draw, ...) of the model and (chain, draw, ...) of the reference.

    Entries are all axes that follow.
    """
    batches = in_batches(reference)
    reference = reference.reshape(-1, *reference.shape[2:])
    sd = reference.std(0)
    error = (model.mean(0) - reference.mean(0)) / sd
    noise = (batches.mean(1) / sd).var(0, ddof=1) / len(batches) + (model / sd).var(0) / len(model)
    variance_ratio = float(np.exp(2 * np.log(model.std(0) / sd).mean()))
    entries = tuple(range(2, batches.ndim))
    theirs = np.square((batches - reference.mean(0)) / sd).mean((1, *entries))
    ours = np.square((model - model.mean(0)) / model.std(0)).mean(tuple(range(1, model.ndim)))
    log_error = (theirs.var(ddof=1) / len(theirs) + ours.var() / len(ours)) ** 0.5
    coverage, coverage_error = {}, {}
    for level in COVERAGE_LEVELS:
        low, high = np.quantile(model, [(1 - level) / 2, (1 + level) / 2], axis=0)
        coverage[level] = float(((reference >= low) & (reference <= high)).mean())
        shares = ((batches >= low) & (batches <= high)).mean((1, *entries))
        variance = shares.var(ddof=1) / len(shares) + level * (1 - level) / len(model)
        coverage_error[level] = float(variance**0.5)
    levels = (0.05, 0.25, 0.5, 0.75, 0.95)
    return LatentComparison(
        mean_error=float(np.sqrt(np.square(error).mean())),
        mean_error_exact=float(np.sqrt(noise.mean())),
        variance_ratio=variance_ratio,
        variance_ratio_error=variance_ratio * float(log_error),
        coverage=coverage,
        coverage_error=coverage_error,
        model=np.quantile(model, levels, axis=0),
        reference=np.quantile(reference, levels, axis=0),
    )


def k_hat(log_weights: np.ndarray) -> float:
    """Return the Pareto shape of the largest importance weights; infinite if none is finite.

    Weights that are all the same, as those of an exact posterior, have no tail: minus infinity.
    """
    if not np.isfinite(log_weights).all():
        return float("inf")
    if np.ptp(log_weights) < 1e-6 * max(1.0, np.abs(log_weights).max()):
        return float("-inf")
    arviz: Any = require("arviz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(arviz.psislw(log_weights)[1])
