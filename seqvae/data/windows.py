"""One long recording cut into windows: contiguous blocks for scores, gaps beside them."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from seqvae.data.folds import check_folds
from seqvae.data.lazy import LazyActivity
from seqvae.data.recording import Recording
from seqvae.errors import InputError

PATIENCE = 10
WINDOWS_PER_BLOCK = 4
FEWEST_BINS = 5
"""Of a window that is chosen by default: fewer tell nothing of a time course."""
SAMPLED = 4_000_000
"""Numbers of a large recording by which its memory is measured."""
_SHORTEST, _LONGEST, _MEMORIES = 50, 200, 10
_PIECES = 10


class Stretch(NamedTuple):
    """A contiguous piece of one long recording: bins from ``start`` to before ``stop``."""

    start: int
    stop: int


class Windows(NamedTuple):
    """One long recording as trials, in the order of time; together they hold every bin once.

    Attributes:
        recording: a trial for each window; windows in which nothing was observed are left out.
        split: "train", "val", "test" or, beside a block that is scored, "gap".
        start: the first bin of each window in the long recording.
    """

    recording: Recording
    split: Shaped[np.ndarray, " window"]
    start: Int[np.ndarray, " window"]


def is_continuous(recording: Recording) -> bool:
    """Whether it is one trial of several bins of which the file says no split and no forecast."""
    is_divided = recording.split is not None or recording.num_encoded_bins is not None
    return recording.num_trials == 1 and recording.num_time_bins > 1 and not is_divided


def into_windows(
    recording: Recording,
    *,
    val_fraction: float,
    test_fraction: float,
    window_bins: int | None,
    seed: int,
) -> Windows:
    """Cut one long recording into windows, which are trials from then on.

    The last bins, ``test_fraction`` of all, test. The bins that validate, ``val_fraction`` of all,
    lie together, at one of as many evenly spread places as there is room for, drawn at random. On
    either side of both a gap is left: as many bins as the activity takes to forget itself, at most
    a quarter of the shorter block. Windows do not overlap.

    Args:
        recording: one trial.
        val_fraction: share of the bins that choose the best checkpoint.
        test_fraction: share of the bins kept for the final scores.
        window_bins: the longest window; None: ten times the bins in which the activity forgets
            itself, from 50 to 200, at most a quarter of the shorter block.
        seed: of the place of the block that validates.

    Raises:
        InputError: if nothing is left to learn from, or windows would be shorter than five bins.
    """
    blocks = held_blocks(
        recording, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed
    )
    num_bins = recording.num_time_bins
    stretches = [(stretch, split) for split, stretch in blocks.held.items()]
    stretches += [(stretch, "train") for stretch in blocks.train]
    used = sorted(stretch for stretch, _ in stretches)
    edges = [0, *(edge for stretch in used for edge in stretch), num_bins]
    between = [Stretch(*pair) for pair in zip(edges[::2], edges[1::2], strict=True)]
    stretches += [(stretch, "gap") for stretch in between if stretch.stop > stretch.start]
    if window_bins is None:
        suitable = min(max(_MEMORIES * blocks.memory, _SHORTEST), _LONGEST)
        shortest = min((stop - start for start, stop in blocks.held.values()), default=num_bins)
        window_bins = math.ceil(min(suitable, shortest / WINDOWS_PER_BLOCK))
        if window_bins < FEWEST_BINS:
            raise InputError(
                f"one trial of {num_bins} bins leaves {shortest} to score, too few for windows; "
                "give more trials, or val_fraction=0 and test_fraction=0 to learn from it whole, "
                "or larger ones, or window_bins"
            )
    pieces = [
        (window, split)
        for stretch, split in sorted(stretches)
        for window in windows(stretch, window_bins)
        if np.isfinite(recording.activity[0, slice(*window)]).any()
    ]
    split = np.array([split for _, split in pieces])
    for word in blocks.held:
        if word not in split:
            raise InputError(
                f"{word}_fraction: nothing was observed in the bins {blocks.held[word].start} to "
                f"{blocks.held[word].stop - 1}, the block that is scored; cut off what is missing, "
                "or choose another split_seed"
            )
    return Windows(
        recording.cut([window for window, _ in pieces]),
        split,
        np.array([window.start for window, _ in pieces]),
    )


class Blocks(NamedTuple):
    """What is held from learning, what is left for it, and how long the activity remembers."""

    held: dict[str, Stretch]
    train: list[Stretch]
    memory: float


def held_blocks(
    recording: Recording, *, val_fraction: float, test_fraction: float, seed: int
) -> Blocks:
    """Return the blocks of one long recording that validate and test, and what is left.

    Raises:
        InputError: if nothing is left to learn from.
    """
    num_bins = recording.num_time_bins
    sizes = {
        split: max(round(fraction * num_bins), 1)
        for split, fraction in (("test", test_fraction), ("val", val_fraction))
        if fraction > 0
    }
    memory = autocorrelation_time(sampled(recording))
    gap = gap_bins(memory, min(sizes.values(), default=0))
    if sizes and gap < memory - 1:
        warnings.warn(
            f"activity is correlated over {memory:.0f} bins, but a block that is scored has no "
            f"more than {min(sizes.values())}, with {gap} left out beside it; raise val_fraction "
            "or test_fraction, or record longer",
            stacklevel=2,
        )
    held, stop = {}, num_bins
    if "test" in sizes:
        held["test"] = Stretch(num_bins - sizes["test"], num_bins)
        stop = held["test"].start - gap
    if "val" in sizes and stop > sizes["val"]:
        places = np.linspace(0, stop - sizes["val"], stop // sizes["val"]).round().astype(int)
        start = int(np.random.default_rng(seed).choice(places))
        held["val"] = Stretch(start, start + sizes["val"])
    train = stretches_apart([held["val"]] if "val" in held else [], stop, gap=gap)
    if len(held) < len(sizes) or not train:
        raise InputError(
            f"val_fraction {val_fraction:g} and test_fraction {test_fraction:g} leave none of the "
            f"{num_bins} bins to learn from; lower them"
        )
    return Blocks(held, train, memory)


def stretches_apart(held: list[Stretch], num_bins: int, *, gap: int) -> list[Stretch]:
    """Return the stretches of a recording that lie more than ``gap`` bins from those held."""
    edges = [0, *(edge for start, stop in sorted(held) for edge in (start - gap, stop + gap))]
    between = zip(edges[::2], [*edges[1::2], num_bins], strict=True)
    return [Stretch(start, stop) for start, stop in between if stop > start]


def gap_bins(memory: float, block: int) -> int:
    """Return how many bins to leave out beside a block: the memory, at most a quarter of it."""
    return min(math.ceil(memory), block // 4)


def block_folds(
    num_bins: int, num_folds: int, fold: int, *, gap: int
) -> tuple[list[Stretch], Stretch]:
    """Return what is left for training, and the block of a fold, of one long recording.

    The recording is cut into ``num_folds`` blocks of equal length. Training leaves ``gap`` bins
    free on either side of the block, so that what is scored is not next to what was learned.

    Raises:
        InputError: if blocks would be empty, or the gap leaves nothing to learn from.
    """
    check_folds(num_folds, num_bins, field="trial_folds", what="bins")
    edges = np.linspace(0, num_bins, num_folds + 1).round().astype(int)
    block = Stretch(int(edges[fold]), int(edges[fold + 1]))
    train = stretches_apart([block], num_bins, gap=gap)
    if not train:
        raise InputError(
            f"gap: {gap} bins on either side of a block leave nothing of {num_bins} bins to learn "
            "from; lower it"
        )
    return train, block


def windows(stretch: Stretch, longest: int) -> list[Stretch]:
    """Cut a stretch into windows of nearly equal length, none above ``longest``."""
    number = -(-(stretch.stop - stretch.start) // longest)
    edges = np.linspace(stretch.start, stretch.stop, number + 1).round().astype(int).tolist()
    return [Stretch(start, stop) for start, stop in pairwise(edges)]


def sampled(recording: Recording) -> Float[np.ndarray, "piece time neuron"]:
    """Return the activity; of what is read when it is asked for, pieces spread evenly over it."""
    activity = recording.activity
    if not isinstance(activity, LazyActivity):
        return activity
    num_trials, num_bins, num_neurons = activity.shape
    bins = min(num_bins, max(2, SAMPLED // (_PIECES * num_neurons)))
    starts = np.linspace(0, num_bins - bins, min(_PIECES, num_bins // bins)).round().astype(int)
    trials = np.linspace(0, num_trials - 1, min(num_trials, _PIECES)).round().astype(int)
    return (
        np.asarray(activity.take(trials))
        if num_trials > 1
        else np.stack([activity.block(0, start, start + bins) for start in starts.tolist()])
    )


def autocorrelation_time(activity: Float[np.ndarray, "trial time neuron"]) -> float:
    """Return how many bins the activity takes to forget itself, the median over neurons.

    tau = 1 + 2 sum_k |rho_k| over the lags whose autocorrelation rho exceeds twice its standard
    error without memory, until ten lags in a row have none; 1 for white noise, and for an
    oscillation as long as it lasts. Missing entries are left out, trials are not joined.
    """
    present = np.isfinite(activity)
    count = present.sum((0, 1))
    mean = np.where(present, activity, 0.0).sum((0, 1)) / np.maximum(count, 1)
    deviation = np.where(present, activity - mean, 0.0)
    variance = (deviation**2).sum((0, 1)) / np.maximum(count, 1)
    varies = variance > (1e-9 * mean) ** 2  # less is rounding
    if not varies.any() or activity.shape[1] < 2:
        return 1.0
    time, silence = np.ones(activity.shape[2]), np.where(varies, 0, PATIENCE)
    for lag in range(1, activity.shape[1]):
        pairs = np.maximum((present[:, lag:] & present[:, :-lag]).sum((0, 1)), 1)
        product = (deviation[:, lag:] * deviation[:, :-lag]).sum((0, 1))
        rho = np.abs(product / pairs / np.where(varies, variance, 1.0))
        tells = (rho > 2 / np.sqrt(pairs)) & (silence < PATIENCE)
        silence = np.where(tells, 0, np.minimum(silence + 1, PATIENCE))
        if (silence == PATIENCE).all():
            break
        time += np.where(tells, 2 * rho, 0.0)
    return float(np.median(time[varies]))
