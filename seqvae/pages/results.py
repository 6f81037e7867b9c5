"""What the page tells of a run, gathered as far as it is at hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from seqvae.analysis.posterior import posterior_dataset
from seqvae.analysis.predictive_checks import Check, predictive_checks
from seqvae.analysis.shown import shown_posterior
from seqvae.data import NeuralData
from seqvae.models import Model
from seqvae.runs import Run
from seqvae.scores.decoding import decoded_behavior
from seqvae.types import DataSpec

if TYPE_CHECKING:
    import xarray as xr

MOST_TRIALS = 500
MOST_ENTRIES = 30_000_000
"""Trials x bins x neurons of which a posterior is held in memory at once."""
MOST_CHECKED = 100
"""Trials that posterior predictive checks are of."""
NUM_SAMPLES = 20


@dataclass(frozen=True)
class Result:
    """One run.

    Attributes:
        name: by which the page calls it.
        folder: where it lies; None: in memory.
        config: its settings.
        provenance: what was noted of it.
        history: the rows of its learning.
        spec: facts of its data.
        metrics: what ``evaluate`` answers; None: it could not be scored.
        posterior: of the scored trials, beside activity and behaviour; None: the data are gone.
        decoded: behaviour as read from the factors of these trials; None: there is none.
        checks: posterior predictive checks, by name.
        missing: why something is not at hand.
        thinned: what was left out of the posterior to keep the page small.
    """

    name: str
    folder: str | None
    config: Mapping[str, Any]
    provenance: Mapping[str, Any]
    history: Sequence[Mapping[str, float | int]]
    spec: DataSpec
    metrics: Mapping[str, Any] | None = None
    posterior: xr.Dataset | None = None
    decoded: np.ndarray | None = None
    checks: Mapping[str, Check] = field(default_factory=dict)
    missing: Sequence[str] = ()
    thinned: Sequence[str] = ()

    @property
    def model(self) -> str:
        """The class of its model."""
        return class_name(self.config["model"])

    @property
    def checksum(self) -> str:
        """Of its recording."""
        return str(self.provenance["data"]["checksum"])


def class_name(section: Any) -> str:
    """Return the name of a class in a config, without its module."""
    path = section.get("class_path", "") if isinstance(section, Mapping) else section
    return str(path).rpartition(".")[2]


def gather(run: Run, name: str) -> Result:
    """Return what a run tells of itself, without its data."""
    return Result(
        name=name,
        folder=None if run.folder is None else str(run.folder),
        config=run.config,
        provenance=run.provenance,
        history=run.history,
        spec=run.spec,
    )


def with_posterior(
    result: Result, model: Model, data: NeuralData, *, split: str, seed: int
) -> Result:
    """Add the posterior of the scored trials, and behaviour as read from factors.

    Args:
        result: the run.
        model: its model.
        data: its data.
        split: the scored trials.
        seed: of the posterior samples.
    """
    trials, thinned = data.trials(split), list(result.thinned)
    per_trial = data.spec.num_time_bins * data.spec.num_neurons
    most = max(1, min(MOST_TRIALS, MOST_ENTRIES // per_trial))
    if len(trials) > most:
        thinned.append(f"charts show {most} of {len(trials)} {split} trials, evenly spread")
        trials = trials[np.linspace(0, len(trials) - 1, most).astype(np.int64)]
    posterior = shown_posterior(model, data, trials, num_samples=NUM_SAMPLES, seed=seed)
    decoded = None
    if "behavior" in posterior and "train" in data.split and split != "train":
        behavior = data.recording.behavior
        assert behavior is not None
        train = data.trials("train")
        train = train[np.linspace(0, len(train) - 1, min(len(train), most)).astype(np.int64)]
        seen = posterior_dataset(
            model, data, train, num_samples=NUM_SAMPLES, seed=seed, variables=["factors"]
        )
        decoded = decoded_behavior(
            seen["factors"].values, behavior[train], factors_test=posterior["factors"].values
        )
    checks = predictive_checks(model, data, trials[:MOST_CHECKED], seed=seed)
    return replace(result, posterior=posterior, decoded=decoded, checks=checks, thinned=thinned)
