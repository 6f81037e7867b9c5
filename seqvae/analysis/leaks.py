"""What is held out, altered, and what of it stands among the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int

from seqvae.analysis.posterior import ACTIVITY, posterior_dataset
from seqvae.data import NeuralData, Recording
from seqvae.data.transforms.neurons import coincidence
from seqvae.models import Model

ALIKE = 0.5
"""Coincidence above which two neurons are taken for one, as ``DropDuplicates`` does."""

SEGMENT_BINS = 5
LEAST_EVENTS = 8
"""Entries other than 0 of a segment, below which its like may come by chance."""

MOST_NAMED = 5
OF_THE_TARGET = (ACTIVITY, "elbo")
"""Variables of a posterior that are of the recorded data themselves."""


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
        activity=others(base.read(), where), split=None if data.start is not None else data.split
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


def pooled(data: NeuralData, entries: Bool[np.ndarray, "trial time neuron"]) -> Recording:
    """Return ``data.pool()`` with other values in some of its entries.

    Transforms are asked again, where trials, bins and neurons of the source are those of the pool.

    Args:
        data: the data; they stay as they are.
        entries: which to alter, of ``data.pool()``.
    """
    pool = data.pool()
    base, is_source = _base(data)
    if not is_source or base.shape != pool.shape:
        return pool.changed(activity=others(pool.read(), entries))
    changed = data.of(base.changed(activity=others(base.read(), entries)))
    changed.transforms = data.transforms
    return changed.pool()


def others(
    activity: Float32[np.ndarray, "trial time neuron"],
    where: Bool[np.ndarray, "trial time neuron"],
) -> Float32[np.ndarray, "trial time neuron"]:
    """Return the values of ``altered``: a neuron's largest, or its smallest where it is that."""
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
    return twins_of(data.recording, data.spec.heldin, data.spec.heldout, data.trials("train"))


def twins_of(
    recording: Recording,
    heldin: Sequence[int],
    heldout: Sequence[int],
    trials: Int[np.ndarray, " chosen"],
) -> list[tuple[Any, Any]]:
    """Return the names of such pairs of a recording, alike in some trials."""
    names = _names(recording)
    alike = coincidence(recording, trials) > ALIKE
    block = alike[np.ix_(np.array(heldin, dtype=int), np.array(heldout, dtype=int))]
    return [(names[heldin[i]], names[heldout[j]]) for i, j in np.argwhere(block)]


def repeated(scored: Recording, learned: Recording) -> Int[np.ndarray, " chosen"]:
    """Return the trials of one recording with a stretch of bins that another holds, too.

    So it is where windows overlap and are then split at random. A stretch of ``SEGMENT_BINS`` is
    the same if all entries are; of those with few events the like may come by chance, and they are
    not asked.
    """
    known = {key for trial in range(learned.num_trials) for key in _stretches(learned, trial)}
    is_known = [
        any(key in known for key in _stretches(scored, trial)) for trial in range(scored.num_trials)
    ]
    return np.flatnonzero(is_known)


def _stretches(recording: Recording, trial: int) -> list[bytes]:
    activity = recording.read([trial])[0]
    size = min(SEGMENT_BINS, len(activity))
    parts = np.lib.stride_tricks.sliding_window_view(activity, size, axis=0)
    events = (np.isfinite(parts) & (parts != 0)).sum(axis=(1, 2))
    whole = np.isfinite(parts).all(axis=(1, 2)) & (events >= LEAST_EVENTS)
    return [part.tobytes() for part in parts[whole]]


class Check(NamedTuple):
    """The answer to one question.

    Attributes:
        name: of the question.
        passed: None: there was nothing to ask.
        sentence: what was seen.
    """

    name: str
    passed: bool | None
    sentence: str


def check(name: str, passed: bool | None, good: str, bad: str, *, absent: str = "") -> Check:
    """Return a check with the sentence of its answer."""
    return Check(name, passed, absent if passed is None else good if passed else bad)


def named(names: Sequence[str]) -> str:
    """List some names, at most ``MOST_NAMED``."""
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def differing_weights(one: Model, other: Model) -> list[str]:
    """Return the names of the weights and facts that are not bitwise equal."""
    ours, theirs = one.state_dict(), other.state_dict()
    return [
        name for name in ours
        if name not in theirs
        or ours[name].shape != theirs[name].shape
        or not bool((ours[name].eq(theirs[name]) | ours[name].ne(ours[name])).all())
    ]  # fmt: skip


def learning_check(one: Model, other: Model) -> Check:
    """Tell whether two models, learned beside different held-out values, are one."""
    differing = differing_weights(one, other)
    return check(
        "learning",
        not differing,
        "what is learned is the same, bit for bit, whatever is scored",
        f"with other values where it is scored, another model is learned ({named(differing)} "
        "differ): see what reads trials other than those of split 'train'",
    )


def inference_check(
    models: tuple[Model, Model],
    data: tuple[NeuralData, NeuralData],
    trials: Int[np.ndarray, " chosen"],
    *,
    num_samples: int,
    seed: int,
    name: str = "inference",
) -> Check:
    """Tell whether the same is inferred beside different held-out values."""
    one, other = (
        posterior_dataset(model, each, trials, num_samples=num_samples, seed=seed)
        for model, each in zip(models, data, strict=True)
    )
    differing = [
        str(key) for key in one.data_vars
        if key not in OF_THE_TARGET
        and one[key].dtype.kind == "f"
        and not np.array_equal(one[key].values, other[key].values, equal_nan=True)
    ]  # fmt: skip
    return check(
        name,
        not differing,
        "what is inferred is the same, bit for bit, whatever is held out",
        f"with other values where inference shall not see them, {named(differing)} differ: see "
        "what the model reads beside batch.observed",
    )


def units_check(pairs: Sequence[tuple[Any, Any]], *, asked: bool) -> Check:
    """Tell whether a held-out neuron is a held-in one that was sorted twice."""
    names = named([f"{seen} and {unseen}" for seen, unseen in pairs])
    return check(
        "units",
        not pairs if asked else None,
        "no held-out neuron fires in the same bins as a held-in one",
        f"held-in and held-out neurons fire in the same bins ({names}): a unit sorted twice; use "
        "the transform DropDuplicates",
        absent="no neuron is held out",
    )


def trials_check(again: Int[np.ndarray, " chosen"]) -> Check:
    """Tell whether scored trials, here those that do, hold bins of training trials."""
    return check(
        "trials",
        not len(again),
        "no scored trial holds a stretch of bins of a training trial",
        f"{len(again)} scored trials, the first is {again[0] if len(again) else ''}, hold bins of "
        "training trials: split before windows are cut, or leave overlap out",
    )
