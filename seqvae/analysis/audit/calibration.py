"""Simulation-based calibration: is a posterior right on data of the model's own prior?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import f as f_distribution

from seqvae.analysis.posterior import deterministic, trials_per_chunk
from seqvae.errors import InputError
from seqvae.models import Model
from seqvae.types import Batch

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
    """

    ranks: Int[np.ndarray, "trial ..."]
    num_draws: int
    shares: Float[np.ndarray, " bin"]
    standard_error: Float[np.ndarray, " bin"]
    p_value: float
    coverage: dict[float, float]


def simulation_based_calibration(
    model: Model, num_trials: int = 200, num_samples: int = 99, *, num_bins: int = 10, seed: int = 0
) -> dict[str, Calibration]:
    """Rank the true latents of simulated trials among draws from the model's posterior.

    Where latents are drawn from the prior and data from the likelihood, the rank of a latent among
    L independent posterior draws is uniform on 0..L if and only if the posterior is right on
    average over data (Talts et al. 2018). Ranks that crowd at both ends tell of a posterior that is
    too narrow, in the middle of one too wide, at one end of a bias.

    Args:
        model: a model, without external inputs.
        num_trials: trials to simulate.
        num_samples: L; L + 1 must be a multiple of ``num_bins``.
        num_bins: bins of the ranks.
        seed: of the simulation and the posterior draws.

    Returns:
        The ranks of each latent by name.

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
    spec = model.session().spec
    if spec.num_inputs:
        raise InputError(
            f"the model has {spec.num_inputs} external inputs, which are not simulated; "
            "calibrate a model without"
        )
    if model.keeps_trials:
        raise InputError("a free posterior knows its own trials only; there is none of new ones")
    ranks: dict[str, list[np.ndarray]] = {}
    chunk = trials_per_chunk(spec, num_samples)
    with deterministic(model, seed):
        for first in range(0, num_trials, chunk):
            simulated = model.sample(min(chunk, num_trials - first))
            activity = simulated.emission.sample()[0].to(model.null_counts)
            batch = simulated_batch(model, activity, first=first)
            for name, latent in model(batch, num_samples).latents.items():
                truth = simulated.latents[name].sample[:, :, : latent.sample.shape[2]]
                below = (latent.sample < truth).sum(0)
                ranks.setdefault(name, []).append(below.cpu().numpy())
    return {
        name: calibration_of_ranks(np.concatenate(chunks), num_samples, num_bins=num_bins)
        for name, chunks in ranks.items()
    }


def simulated_batch(
    model: Model, activity: Float[torch.Tensor, "batch time neuron"], *, first: int = 0
) -> Batch:
    """Return a batch in which the held-in neurons of the encoded bins are seen.

    Args:
        model: that simulated the trials.
        activity: of all neurons.
        first: index of the first trial.
    """
    spec = model.session().spec
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
    ranks: Int[np.ndarray, "trial ..."], num_draws: int, *, num_bins: int
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
    )


def uniformity(shares: Float[np.ndarray, "trial bin"]) -> float:
    """Return the p-value of equal mean shares of the bins.

    The entries of a trial are dependent, so the chi-square statistic takes the covariance of the
    shares from their spread over trials, as Hotelling's test does: with d the mean shares less
    1/bins and S their covariance, N d' S^-1 d (N - p) / (p (N - 1)) has the law F(p, N - p) for
    p = bins - 1. Shares add up to 1, so one bin is left out.
    """
    num_trials, size = len(shares), shares.shape[1] - 1
    excess = (shares.mean(0) - 1 / shares.shape[1])[:size]
    covariance = np.cov(shares[:, :size].T).reshape(size, size)
    statistic = num_trials * float(excess @ np.linalg.pinv(covariance) @ excess)
    scaled = statistic * (num_trials - size) / (size * (num_trials - 1))
    return float(f_distribution.sf(scaled, size, num_trials - size))
