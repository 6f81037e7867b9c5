"""Predicted rates as the Neural Latents Benchmark takes them, in one HDF5 file.

A group of the name of the data set holds expected counts per bin, (trial, time, neuron):
``train_rates_heldin``, ``train_rates_heldout``, ``eval_rates_heldin``, ``eval_rates_heldout``, and
of forecast bins ``eval_rates_heldin_forward``, ``eval_rates_heldout_forward`` [Pei et al. 2021].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from seqvae.analysis.posterior import posterior_dataset
from seqvae.data import NeuralData
from seqvae.errors import InputError
from seqvae.models import Model
from seqvae.storage.files import Lenient, atomic_path


class Asked(NamedTuple):
    """Trials that a model is asked for.

    Attributes:
        model: the model.
        data: its data.
        trials: indices of the trials.
    """

    model: Model
    data: NeuralData
    trials: np.ndarray


def submission(
    train: Asked, evaluated: Asked, *, num_samples: int, seed: int
) -> dict[str, np.ndarray]:
    """Return the arrays of a submission by name, neurons in the order of the recording.

    Args:
        train: the trials on whose rates the benchmark learns to read behaviour.
        evaluated: the trials whose rates it scores.
        num_samples: posterior samples.
        seed: of them.

    Raises:
        InputError: if the data are not counts in time, or no neuron is held out.
    """
    spec = evaluated.data.spec
    if not evaluated.model.observation.kind.counts_events or spec.bin_width is None:
        raise InputError("format: nlb holds rates of spikes; the data of this run are no counts")
    if not spec.heldout:
        raise InputError(
            "format: nlb holds rates of held-out neurons, and this run has none; "
            "fit again with some (data.heldout)"
        )
    arrays = {}
    for word, asked in (("train", train), ("eval", evaluated)):
        posterior = posterior_dataset(
            asked.model,
            asked.data,
            asked.trials,
            num_samples=num_samples,
            seed=seed,
            work=f"export ({word})",
            variables=["rates"],
        )
        counts = posterior["rates"].values * np.float32(spec.bin_width)
        parts = {"": counts[:, : asked.data.spec.num_encoded_bins]}
        if word == "eval" and spec.num_forecast_bins:
            parts["_forward"] = counts[:, spec.num_encoded_bins :]
        for ending, values in parts.items():
            for group in ("heldin", "heldout"):
                name = f"{word}_rates_{group}{ending}"
                arrays[name] = values[..., list(getattr(spec, group))]
    return arrays


def write_submission(arrays: Mapping[str, np.ndarray], path: str, *, dataset_name: str) -> None:
    """Write a submission; the file appears whole or not at all."""
    import h5py

    with atomic_path(path) as draft, Lenient(draft) as raw:
        with h5py.File(raw, "w") as file:
            group = file.create_group(dataset_name)
            for name, values in arrays.items():
                group.create_dataset(name, data=values, compression="gzip", shuffle=True)
                raw.check()
        raw.check()
