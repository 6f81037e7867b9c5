"""What the neurons of several sessions have in common, before anything is learned."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from seqvae.data.neural_data import NeuralData
from seqvae.errors import InputError

KERNEL_BINS = 4.0
"""Standard deviation of the Gaussian kernel by which activity is smoothed, in bins."""
RIDGE = 0.1
"""Of the regression on the components, in squared units of a neuron, a bin."""


class Aligned(NamedTuple):
    """Components that all sessions share, and what each neuron tells of them.

    Attributes:
        read_in: P, by which activity less its mean in training, in data units, is read; of held-in
            neurons alone, the rows of all others are 0.
        trials: indices of the training trials.
        path: smoothed activity as P reads it, in units of standard deviation.
    """

    read_in: Float[np.ndarray, "neuron component"]
    trials: Int[np.ndarray, " trial"]
    path: Float[np.ndarray, "trial time component"]


def aligned(data: NeuralData, num_components: int) -> Aligned | None:
    """Align the sessions of some data by principal components; None where there is one session.

    Activity is smoothed, centred, and in units of each neuron's standard deviation. Averages over
    the training trials of each condition that all sessions have (or over all trials: time-matched
    means) are put side by side, all neurons of all sessions; of these the leading principal
    components are what sessions share. Ridge regression from the averages of a session's held-in
    neurons to the components is its read-in ("stitching", Pandarinath et al. 2018, Nat. Methods
    15:805).

    Args:
        data: the data to learn from.
        num_components: how many; those beyond what the averages have are 0.

    Raises:
        InputError: if sessions have conditions, but none in common.
    """
    recording = data.recording
    owners, labels = recording.neuron_sessions, recording.trial_sessions
    if owners is None or labels is None or len(data.sessions) < 2:
        return None
    trials = data.at_once("train")
    activity = recording.read(trials).astype(np.float64)
    seen = np.isfinite(activity)
    mean, std = (part.double().numpy() for part in data.train_moments[:2])
    unit = np.where(std > 0, std, 1.0)
    smooth = _smoothed(np.where(seen, (activity - mean) / unit, 0.0), seen)
    session, group = labels[trials], _groups(data, trials)
    averages, there = [], []
    for name in data.sessions:
        own = [(session == name) & (group == one) for one in range(group.max() + 1)]
        averages.append(np.stack([smooth[some].sum(0) for some in own]))
        there.append(np.stack([seen[some].sum(0) for some in own]))
    sums, counts = sum(averages), sum(there)
    rows = np.stack([(one[..., owners == name] > 0).any(-1)
                     for name, one in zip(data.sessions, there, strict=True)]).all(0)  # fmt: skip
    matched = (sums / np.maximum(counts, 1))[rows]
    matched = matched - matched.mean(0)
    left, size, _ = np.linalg.svd(matched, full_matrices=False)
    number = min(num_components, len(size))
    components = np.zeros((len(matched), num_components))
    components[:, :number] = left[:, :number] * size[:number]
    read_in = np.zeros((recording.num_neurons, num_components))
    heldin = np.isin(np.arange(recording.num_neurons), data.spec.heldin)
    for name in data.sessions:
        own = heldin & (owners == name)
        x = matched[:, own]
        square = x.T @ x + RIDGE * len(x) * np.eye(x.shape[1])
        read_in[own] = np.linalg.solve(square, x.T @ components)
    path = smooth @ read_in
    scale = path[seen.any(-1)].std(0)
    scale = np.where(scale > 1e-6 * scale.max(), scale, np.inf)
    return Aligned(read_in / unit[:, None] / scale, trials, path / scale)


def _groups(data: NeuralData, trials: Int[np.ndarray, " trial"]) -> Int[np.ndarray, " trial"]:
    """Return which average each trial is of, from 0; -1: none."""
    recording = data.recording
    if data.alignment == "trials" or recording.condition is None:
        return np.zeros(len(trials), dtype=int)
    assert recording.trial_sessions is not None
    condition, session = recording.condition[trials], recording.trial_sessions[trials]
    common: set = set(condition.tolist())
    for name in data.sessions:
        common &= set(condition[session == name].tolist())
        if not common:
            raise InputError(
                f"alignment: session {name!r} has no condition in common with the sessions before "
                "it, among the training trials; name conditions alike, or set alignment: trials"
            )
    labels = sorted(common)
    places = {label: place for place, label in enumerate(labels)}
    return np.array([places.get(label, -1) for label in condition.tolist()])


def _smoothed(
    values: Float[np.ndarray, "trial time neuron"], seen: Bool[np.ndarray, "trial time neuron"]
) -> Float[np.ndarray, "trial time neuron"]:
    """Average over the bins that are seen, by a Gaussian kernel; 0 where a trial holds none."""
    steps = np.arange(values.shape[1])
    kernel = np.exp(-0.5 * ((steps[:, None] - steps) / KERNEL_BINS) ** 2)
    # as if one bin at the mean had been seen, too
    smooth = (kernel @ values) / (kernel @ seen + 1.0)
    return np.where(seen, smooth, 0.0)
