"""What the neurons of several sessions have in common, before anything is learned."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from seqvae.data.neural_data import NeuralData
from seqvae.data.recording import Recording
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
    if recording.neuron_sessions is None or len(data.sessions) < 2:
        return None
    trials = data.trials("train")
    group, spec, shape = _groups(data, trials), data.spec, recording.shape
    mean, std = (part.double().numpy() for part in data.train_moments[:2])
    unit = np.where(std > 0, std, 1.0)
    sums = np.zeros((group.max() + 1, *shape[1:]))
    counts, rows = np.zeros(sums.shape), np.ones(sums.shape[:2], dtype=bool)
    # the neurons of one session at a time: what is kept is of each condition, not of each trial
    for own, neurons in data.each_session(trials):
        smooth, seen = _read(recording, trials[own], neurons, mean, unit)
        for one in range(len(sums)):
            some = group[own] == one
            sums[one][:, neurons] = smooth[some].sum(0)
            counts[one][:, neurons] = seen[some].sum(0)
        rows &= (counts[..., neurons] > 0).any(-1)
    matched = (sums / np.maximum(counts, 1))[rows]
    matched = matched - matched.mean(0)
    left, size, _ = np.linalg.svd(matched, full_matrices=False)
    number = min(num_components, len(size))
    components = np.zeros((len(matched), num_components))
    components[:, :number] = left[:, :number] * size[:number]
    read_in = np.zeros((recording.num_neurons, num_components))
    path = np.zeros((len(trials), shape[1], num_components))
    is_seen = np.zeros(path.shape[:2], dtype=bool)
    is_heldin = np.isin(np.arange(recording.num_neurons), spec.heldin)
    for own, neurons in data.each_session(trials):
        heldin = neurons[is_heldin[neurons]]
        x = matched[:, heldin]
        square = x.T @ x + RIDGE * len(x) * np.eye(x.shape[1])
        read_in[heldin] = np.linalg.solve(square, x.T @ components)
        smooth, seen = _read(recording, trials[own], neurons, mean, unit)
        path[own], is_seen[own] = smooth @ read_in[neurons], seen.any(-1)
    scale = path[is_seen].std(0)
    scale = np.where(scale > 1e-6 * scale.max(), scale, np.inf)
    return Aligned(read_in / unit[:, None] / scale, trials, path / scale)


def _read(
    recording: Recording,
    trials: Int[np.ndarray, " trial"],
    neurons: Int[np.ndarray, " neuron"],
    mean: Float[np.ndarray, " all_neurons"],
    unit: Float[np.ndarray, " all_neurons"],
) -> tuple[Float[np.ndarray, "trial time neuron"], Bool[np.ndarray, "trial time neuron"]]:
    """Return smoothed activity of some neurons in units of their own, and where there is some."""
    activity = recording.read(trials, neurons).astype(np.float64)
    seen = np.isfinite(activity)
    activity = np.where(seen, (activity - mean[neurons]) / unit[neurons], 0.0)
    return _smoothed(activity, seen), seen


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
