"""The posterior as figures and pages show it: beside it what was recorded, and its score."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from seqvae.analysis.posterior import ACTIVITY, posterior_dataset
from seqvae.data import NeuralData
from seqvae.models import Model
from seqvae.scores.metrics import BitsPerSpike

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


def shown_posterior(
    model: Model, data: NeuralData, trials: np.ndarray, *, num_samples: int, seed: int = 0
) -> xr.Dataset:
    """Infer some trials, and put beside the posterior all that the recording knows of them.

    Returns:
        That of ``posterior_dataset``, and ``true_rates`` (Hz) and ``behavior`` (trial, time,
        dimension) where the recording has them. Its attributes tell ``model`` and ``score``.
    """
    recording = data.recording
    facts = {"model": type(model).__name__}
    posterior = posterior_dataset(
        model, data, trials, num_samples=num_samples, seed=seed, attributes=facts
    )
    if recording.rates is not None and "rates" in posterior:
        posterior["true_rates"] = (posterior.rates.dims, recording.rates[trials])
    if recording.behavior is not None:
        dims = ("trial", "time", "behavior_dim")
        posterior["behavior"] = (dims, recording.behavior[trials])
    if (score := _score(posterior, model, data)) is not None:
        posterior.attrs["score"] = score
    return posterior


def drawable(posterior: xr.Dataset) -> dict[str, Callable[[xr.Dataset], Figure]]:
    """Return the figures that a posterior has something for, by name."""
    from seqvae import plotting

    figures: dict[str, Callable[[xr.Dataset], Figure]] = {
        "rasters_and_rates": plotting.rasters_and_rates,
        "rate_traces": plotting.rate_traces,
        "latents": plotting.latents,
        "psth": plotting.psth,
    }
    if "inferred_inputs_mean" in posterior:
        figures["inferred_inputs"] = plotting.inferred_inputs
    if "states" in posterior:
        figures["states"] = plotting.discrete_states
    return figures


def _score(posterior: xr.Dataset, model: Model, data: NeuralData) -> str | None:
    """Bits per spike of the mean rates on these trials, of held-out neurons if there are any."""
    spec, bin_width = data.spec, posterior.attrs.get("bin_width", 1.0)
    name = "rates" if "rates" in posterior else "mean"
    if not model.observation.kind.counts_events:
        return None
    chosen = list(spec.heldout or spec.heldin)
    bins = slice(0, spec.num_encoded_bins)
    target = posterior[ACTIVITY].values[:, bins, chosen]
    mean = posterior[name].values[:, bins, chosen] * (bin_width if name == "rates" else 1.0)
    is_there = np.isfinite(target) & np.isfinite(mean)
    if not np.where(is_there, target, 0.0).any():
        return None
    bits = BitsPerSpike(model.null_counts.cpu()[chosen])
    target, mean = np.where(is_there, target, 0.0), np.where(is_there, mean, 1.0)
    bits.update(*(torch.from_numpy(part.astype(np.float32)) for part in (mean, target, is_there)))
    word = "co_bps" if spec.heldout else "bits_per_spike"
    return f"{word} {float(bits.compute()):.3f}"
