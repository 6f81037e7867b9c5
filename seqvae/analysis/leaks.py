"""What is held out, altered, and what of it stands among the rest."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int

from seqvae.data import NeuralData, Recording
from seqvae.data.transforms.neurons import coincidence

ALIKE = 0.5
"""Coincidence above which two neurons are taken for one, as ``DropDuplicates`` does."""

SEGMENT_BINS = 5
LEAST_EVENTS = 8
"""Entries other than 0 of a segment, below which its like may come by chance."""


class Hidden(NamedTuple):
    """What is scored and shall not be known.

    Attributes:
        split: the trials that are scored.
        whole: entries that learning shall not know.
        heldout: of them those that inference shall not know, either: held-out neurons and forecast
            bins.
    """

    split: str
    whole: Bool[np.ndarray, "trial time neuron"]
    heldout: Bool[np.ndarray, "trial time neuron"]


def hidden_in(data: NeuralData) -> Hidden:
    """Return what is scored.

    Of test trials it is all; of validation trials, which choose, what is held out of inference.
    """
    spec = data.spec
    split = "test" if "test" in data.split else "val"
    heldout = np.zeros(data.recording.shape, dtype=bool)
    trials = np.flatnonzero(data.split == split)
    heldout[np.ix_(trials, np.arange(spec.num_time_bins), np.array(spec.heldout, dtype=int))] = True
    heldout[trials, spec.num_encoded_bins :] = True
    whole = heldout.copy()
    if split == "test":
        whole[trials] = True
    return Hidden(split, whole, heldout)


def altered(data: NeuralData, entries: Bool[np.ndarray, "trial time neuron"]) -> NeuralData:
    """Return the data with other values in some entries, the rest and the split as they were.

    An entry becomes the largest value of its neuron, and the smallest where it is that: means and
    deviations change, and no value is one that the neuron never had. Missing ones stay missing.
    Transforms are asked again, as far as they keep trials, bins and neurons.

    Args:
        data: the data; they stay as they are.
        entries: which to alter, of ``data.recording``.
    """
    base, is_source = _base(data)
    where = _in_base(data, base, entries)
    other = base.changed(
        activity=_others(base.read(), where), split=None if data.start is not None else data.split
    )
    changed = data.of(other)
    if is_source:
        changed.transforms = data.transforms
    changed.heldout = list(data.spec.heldout)
    changed.forecast_bins = data.spec.num_forecast_bins
    if data.start is not None:
        changed.window_bins = data.spec.num_time_bins
    return changed


def _base(data: NeuralData) -> tuple[Recording, bool]:
    """Return what the source gives, if transforms keep its shape, else what they make of it."""
    raw = data.raw()
    if not data.transforms:
        return raw, False
    source = data.source.load()
    is_like = source.shape == raw.shape and _names(source) == _names(raw)
    return (source, True) if is_like else (raw, False)


def _in_base(
    data: NeuralData, base: Recording, entries: Bool[np.ndarray, "trial time neuron"]
) -> Bool[np.ndarray, "base_trial base_time base_neuron"]:
    """Place entries of trials, or of windows, where they are in the recording before."""
    names = _names(base)
    columns = np.array([names.index(name) for name in _names(data.recording)])
    where = np.zeros(base.shape, dtype=bool)
    if data.start is None:
        where[..., columns] = entries
        return where
    for window, start in zip(entries, data.start, strict=True):
        stop = min(start + len(window), where.shape[1])
        where[0, start:stop, columns] |= window[: stop - start].T
    return where


def _names(recording: Recording) -> list[Any]:
    assert recording.neuron_ids is not None
    return list(recording.neuron_ids.tolist())


def _others(
    activity: Float32[np.ndarray, "trial time neuron"],
    where: Bool[np.ndarray, "trial time neuron"],
) -> Float32[np.ndarray, "trial time neuron"]:
    known = np.isfinite(activity)
    high = np.where(known, activity, -np.inf).max(axis=(0, 1))
    low = np.where(known, activity, np.inf).min(axis=(0, 1))
    other = np.where(activity == high, low, high)
    return np.where(where & known, other, activity).astype(np.float32)


def twins(data: NeuralData) -> list[tuple[Any, Any]]:
    """Return the names of held-in and held-out neurons that fire in the same bins.

    Such a pair is one neuron that was sorted twice: what is held out is seen after all. See
    ``DropDuplicates``, which leaves out one of each.
    """
    spec, names = data.spec, _names(data.recording)
    alike = coincidence(data.recording, data.trials("train")) > ALIKE
    block = alike[np.ix_(np.array(spec.heldin), np.array(spec.heldout, dtype=int))]
    return [(names[spec.heldin[i]], names[spec.heldout[j]]) for i, j in np.argwhere(block)]


def repeated(data: NeuralData, split: str) -> Int[np.ndarray, " chosen"]:
    """Return the trials of a split that hold a stretch of bins which a training trial holds, too.

    So it is where windows overlap and are then split at random. A stretch of ``SEGMENT_BINS`` is
    the same if all entries are; of those with few events the like may come by chance, and they are
    not asked.
    """
    learned = {key for trial in data.trials("train") for key in _stretches(data, int(trial))}
    return np.array(
        [
            int(trial) for trial in data.trials(split)
            if any(key in learned for key in _stretches(data, int(trial)))
        ],
        dtype=np.int64,
    )  # fmt: skip


def _stretches(data: NeuralData, trial: int) -> list[bytes]:
    activity = data.recording.read([trial])[0]
    size = min(SEGMENT_BINS, len(activity))
    parts = np.lib.stride_tricks.sliding_window_view(activity, size, axis=0)
    events = (np.isfinite(parts) & (parts != 0)).sum(axis=(1, 2))
    whole = np.isfinite(parts).all(axis=(1, 2)) & (events >= LEAST_EVENTS)
    return [part.tobytes() for part in parts[whole]]
