"""Trials of a new session matched with what a fitted model knows of others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from seqvae.analysis.posterior import deterministic, posterior_dataset
from seqvae.data import NeuralData
from seqvae.encoders import LinearReadIn
from seqvae.errors import InputError
from seqvae.models import LatentVariableModel, Model

MATCHING_SAMPLES = 10


class Matched(NamedTuple):
    """What the averages of former sessions say of trials of a new one.

    Attributes:
        trials: indices of the training trials of the new session that are like former ones.
        factors: of each of these, the mean over former trials that are like it.
        scale: standard deviation of each factor over bins and trials; that of averages says how
            alike trials are, too.
        read: likewise what each read-in of the model read, by its name.
    """

    trials: Int[np.ndarray, " trial"]
    factors: Float[Tensor, "trial time factor"]
    scale: Float[Tensor, " factor"]
    read: dict[str, Tensor]


def matched(model: Model, former: NeuralData, data: NeuralData, *, seed: int) -> Matched:
    """Match the training trials of a new session with former ones of the same condition.

    Where one of the two has no conditions, or ``data.alignment`` is "trials", each trial is matched
    with all former ones, bin by bin.

    Args:
        model: the fitted model.
        former: the data that it was fitted to.
        data: of the new session.
        seed: of the posterior samples.

    Raises:
        InputError: if there are conditions, but none in common.
    """
    known, new = former.at_once("train"), data.at_once("train")
    labels = _labels(former, data, known), _labels(data, former, new)
    common = sorted(set(labels[0].tolist()) & set(labels[1].tolist()))
    if not common:
        raise InputError(
            "alignment: the new session has no condition in common with those of the run, among "
            "the training trials; name conditions alike, or set alignment: trials"
        )
    posterior = posterior_dataset(
        model, former, known, num_samples=MATCHING_SAMPLES, seed=seed, variables=["factors"]
    )
    values = {"": torch.from_numpy(posterior["factors"].values)}
    values |= _read(model, former, known, seed=seed)
    new = new[np.isin(labels[1], common)]
    order = [common.index(label) for label in _labels(data, former, new).tolist()]
    num_bins = data.spec.num_time_bins
    averages = {
        name: torch.stack([_mean(value[labels[0] == label], num_bins) for label in common])[order]
        for name, value in values.items()
    }
    bins = values[""].flatten(0, 1)
    scale = bins[bins.isfinite().all(-1)].std(0)
    return Matched(new, averages.pop(""), scale, averages)


def _labels(data: NeuralData, other: NeuralData, trials: Int[np.ndarray, " trial"]) -> np.ndarray:
    """Return the condition of each trial as text; of data without any, one for all."""
    own, others = data.recording.condition, other.recording.condition
    if own is None or others is None or "trials" in (data.alignment, other.alignment):
        return np.full(len(trials), "")
    return own[trials].astype(str)


def _read(
    model: Model, data: NeuralData, trials: Int[np.ndarray, " trial"], *, seed: int
) -> dict[str, Tensor]:
    """Return what each linear read-in reads of some trials."""
    names = [name for name, one in model.named_modules() if isinstance(one, LinearReadIn)]
    if not names:
        return {}
    assert isinstance(model, LatentVariableModel)
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    with deterministic(model, seed):
        for start in range(0, len(trials), data.eval_batch_size):
            batch = data.compact(trials[start : start + data.eval_batch_size])
            narrow, batch = model.narrowed(model.scored(batch))
            for name in names:
                found[name].append(narrow.get_submodule(name)(narrow.standardized(batch)))
    return {name: torch.cat(parts) for name, parts in found.items()}


def _mean(values: Float[Tensor, "trial time dim"], num_bins: int) -> Float[Tensor, "bins dim"]:
    """Average over trials; the last bin stands for those that none of them has."""
    mean = values.nanmean(0).nan_to_num()
    missing = max(0, num_bins - len(mean))
    return torch.cat([mean[:num_bins], mean[-1:].expand(missing, -1)])
