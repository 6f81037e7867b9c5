"""Which trials teach, choose and test the model, and which neurons inference may see."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped

from seqvae.data.lazy import LazyActivity
from seqvae.data.recording import Recording
from seqvae.data.validation import check_neurons
from seqvae.errors import InputError

SPLIT_WORDS = {
    "train": ("train", "training", "trn", "learn", "fit"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "tst", "eval", "heldout"),
    "none": ("none", "", "nan", "null", "unused"),
}
"""The words by which files name splits; trials of the last are of none."""


def split_words(split: Shaped[np.ndarray, " trial"]) -> Shaped[np.ndarray, " trial"]:
    """Return the keys of ``SPLIT_WORDS`` for words, where these are meant; others as they are."""
    known = {word: split for split, words in SPLIT_WORDS.items() for word in words}
    return np.array([known.get(str(word).strip().lower(), str(word)) for word in split.tolist()])


def check_fractions(*, val_fraction: float, test_fraction: float) -> None:
    """Refuse shares outside [0, 1)."""
    for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 <= fraction < 1:
            raise InputError(f"{name} must be at least 0 and below 1, got {fraction:g}")


def split_trials(
    recording: Recording, *, val_fraction: float, test_fraction: float, seed: int
) -> Shaped[np.ndarray, " trial"]:
    """Return "train", "val" or "test" for each trial.

    A split that the file gives wins. Else the trials are drawn at random, every condition in
    proportion: the r-th of the m shuffled trials of a condition gets the key (r + u) / m with one
    u ~ Uniform(0, 1) per condition; the smallest keys test, the next ones validate. Each of
    several sessions is split as if it were alone.

    Raises:
        InputError: if the fractions leave no training trial, or trials share bins.
    """
    check_fractions(val_fraction=val_fraction, test_fraction=test_fraction)
    if recording.split is not None:
        return recording.split
    activity, holds_out = recording.activity, val_fraction + test_fraction > 0
    if holds_out and isinstance(activity, LazyActivity) and activity.overlaps:
        raise InputError(
            "trials are windows that share bins, so a random split would score what was learned "
            "from; give the long recording itself, which window_bins cuts"
        )
    split = np.full(recording.num_trials, "train")
    for name, trials in members(recording.trial_sessions, recording.num_trials).items():
        condition = None if recording.condition is None else recording.condition[trials]
        generator = np.random.default_rng(seed)
        try:
            key = _keys(len(trials), condition, generator)
            split[trials] = _drawn(key, val_fraction=val_fraction, test_fraction=test_fraction)
        except InputError as error:
            whose = f"session {name!r}: " if name else ""
            raise InputError(f"{whose}{error}") from error
    return split


def members(
    labels: Shaped[np.ndarray, " label"] | None, count: int
) -> dict[str, Int[np.ndarray, " chosen"]]:
    """Return the indices of the trials, or neurons, of each session; all of "" if there is one."""
    if labels is None:
        return {"": np.arange(count)}
    return {str(name): np.flatnonzero(labels == name) for name in dict.fromkeys(labels.tolist())}


def _keys(
    num_trials: int,
    condition: Shaped[np.ndarray, " trial"] | None,
    generator: np.random.Generator,
) -> Float[np.ndarray, " trial"]:
    """Draw the key of each trial, by which they are ordered."""
    key = np.empty(num_trials)
    labels = np.zeros(num_trials) if condition is None else condition
    _, stratum = np.unique(labels, return_inverse=True)
    for value in range(stratum.max() + 1):
        trials = generator.permutation(np.flatnonzero(stratum == value))
        key[trials] = (np.arange(len(trials)) + generator.random()) / len(trials)
    return key


def _drawn(
    key: Float[np.ndarray, " trial"], *, val_fraction: float, test_fraction: float
) -> Shaped[np.ndarray, " trial"]:
    num_trials = len(key)
    num_test, num_val = (
        max(round(fraction * num_trials), 1) if fraction > 0 else 0
        for fraction in (test_fraction, val_fraction)
    )
    if num_test + num_val >= num_trials:
        raise InputError(
            f"val_fraction {val_fraction:g} and test_fraction {test_fraction:g} leave none of the "
            f"{num_trials} trials to learn from; lower them"
        )
    order = np.argsort(key, kind="stable")
    split = np.full(num_trials, "train")
    split[order[:num_test]] = "test"
    split[order[num_test : num_test + num_val]] = "val"
    return split


def choose_heldin(
    recording: Recording, heldout: float | list[int] | None, *, seed: int
) -> tuple[int, ...]:
    """Return the indices of the neurons that inference may see.

    Args:
        recording: the recording, which may itself say which neurons are held in.
        heldout: fraction of the neurons to hold out at random (of each session, where there are
            several), or their indices; None: as the file says, else no neuron is held out.
        seed: of the random choice.

    Raises:
        InputError: if an index or the fraction is out of range or no neuron is held in.
    """
    num_neurons = recording.num_neurons
    if heldout is None:
        heldin = np.arange(num_neurons) if recording.heldin is None else recording.heldin
        return tuple(heldin.tolist())
    if isinstance(heldout, (int, float)):
        if not 0 <= heldout < 1:
            raise InputError(
                f"heldout must be a fraction from 0 to below 1 or a list of indices, got {heldout}"
            )
        hidden = np.concatenate(
            [
                neurons[_some(len(neurons), heldout, seed)]
                for neurons in members(recording.neuron_sessions, num_neurons).values()
            ]
        )
    else:
        hidden = check_neurons("heldout", heldout, num_neurons) if heldout else np.arange(0)
    if len(hidden) == num_neurons:
        raise InputError(
            f"heldout holds out all {num_neurons} neurons; leave at least one for inference"
        )
    return tuple(np.setdiff1d(np.arange(num_neurons), hidden).tolist())


def _some(num_neurons: int, fraction: float, seed: int) -> Int[np.ndarray, " chosen"]:
    count = max(round(fraction * num_neurons), 1) if fraction > 0 else 0
    return np.random.default_rng(seed).permutation(num_neurons)[:count]
