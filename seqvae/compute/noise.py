"""Noise as a function of a seed and a trial, in whatever batch, order or chunk the trial comes.

A draw depends on the key that is active, the index of the trial, the number of the sample, how many
draws the forward pass has made before, and the place of the entry within the trial: on nothing
else, so on no batch, process, device or order in memory. It is a counter-based generator: words
1, 2, ... of a row are the finaliser of SplitMix64 applied to (key of the row) + (number of the
word) * golden ratio [Steele et al. 2014], in the 64-bit integer arithmetic that every device
computes alike.

    with noise.keyed(seed):           # who steps or infers
        with noise.of_trials(trial):  # a model, around its forward pass
            ...                       # noise.normal, uniform, int16

Without an active key all is drawn by torch's own generator. Keys belong to a thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float, Int, Int16, Int64
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio."""

SHIFTS = (30, 27, 31)
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)

LEVELS = 1 << 16
"""How many values 16 bits have."""

LOWEST = -(1 << 15)
"""The least of them, as a signed number."""


def mixed(value: int) -> int:
    """Mix the bits of a number into 64 that look random (the finaliser of SplitMix64)."""
    mask = (1 << 64) - 1
    value &= mask
    for shift, factor in zip(SHIFTS, FACTORS, strict=False):
        value = ((value ^ (value >> shift)) * factor) & mask
    return value ^ (value >> SHIFTS[-1])


def step_seed(seed: int, step: int, *, stream: int = 0) -> int:
    """Mix a seed, a step and a stream into one 63-bit seed.

    Args:
        seed: of the run.
        step: of the training; -1 is free for what does not depend on it.
        stream: one number for each user of randomness, so that no two draw the same noise.
    """
    value = seed * GOLDEN + (step + 2) * 0xD1B54A32D192ED03 + stream * 0xA0761D6478BD642F
    return mixed(value) >> 1


class _KeyedTrials:
    """The trials of a forward pass, and how many draws it has made."""

    def __init__(self, seed: int, trial: Int[Tensor, " batch"]) -> None:
        first = mixed(seed + GOLDEN)  # 0 would be mixed to 0
        self.keys = _mixed(trial.long() * _signed(GOLDEN) + _signed(first))
        self.num_draws = 0


_SEED: ContextVar[int | None] = ContextVar("seed", default=None)
_TRIALS: ContextVar[_KeyedTrials | None] = ContextVar("trials", default=None)


@contextmanager
def keyed(seed: int | None) -> Iterator[None]:
    """Make the noise of the models a function of a seed and of their trials; None: torch's own."""
    token = _SEED.set(seed)
    try:
        yield
    finally:
        _SEED.reset(token)


@contextmanager
def shifted(by: int) -> Iterator[None]:
    """Key noise by another seed, so far from the active one; without a key nothing changes."""
    seed = _SEED.get()
    with keyed(None if seed is None else seed + by):
        yield


@contextmanager
def of_trials(trial: Int[Tensor, " batch"]) -> Iterator[None]:
    """Begin a forward pass of these trials, named by their indices in the recording."""
    seed = _SEED.get()
    token = _TRIALS.set(None if seed is None else _KeyedTrials(seed, trial))
    try:
        yield
    finally:
        _TRIALS.reset(token)


@contextmanager
def apart(seed: int) -> Iterator[None]:
    """Seed torch's own generators, of the CPU and of the GPU in use, for a while."""
    gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(gpus):
        torch.manual_seed(seed)
        yield


def is_keyed() -> bool:
    """Whether there are trials whose noise is keyed."""
    return _TRIALS.get() is not None


def normal(
    shape: Sequence[int], *, like: Tensor, axis: int, trials_inner: bool = False
) -> Float[Tensor, "*shape"]:
    """Draw standard normal numbers, by the transform of Box and Muller.

    Args:
        shape: samples, if any, then trials, then the entries of each.
        like: gives dtype and device.
        axis: of the trials. All before it are samples; the first K are the same however many.
        trials_inner: lay out the entries of all trials beside each other in memory, as recurrences
            read them. The numbers are the same.
    """
    shape = tuple(shape)
    rows = _rows(shape, axis)
    if rows is None:
        return _empty(shape, like.dtype, like=like, axis=axis, inner=trials_inner).normal_()
    size = math.prod(shape[axis + 1 :])
    words = _words(rows, shape[: axis + 1], -(-size // 2), inner=trials_inner, device=like.device)
    dtype = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
    halves = words.view(torch.int32).unflatten(-1, (-1, 2))
    # 31 bits, that the smallest uniform number keeps its digits and is not 0
    radius = halves[..., 1].bitwise_and(0x7FFFFFFF).to(dtype).add_(0.5).mul_(2.0**-31)
    radius = radius.log_().mul_(-2.0).sqrt_()
    angle = halves[..., 0].to(dtype).mul_(2 * math.pi / 2**32)
    pair = [angle.cos().mul_(radius), angle.sin_().mul_(radius)]
    values = torch.cat(pair, dim=0 if trials_inner else 1)
    return _shaped(values, shape, axis, inner=trials_inner).to(like.dtype)


def uniform(shape: Sequence[int], *, like: Tensor, axis: int) -> Float[Tensor, "*shape"]:
    """Draw numbers from 0 to below 1, of 53 random bits in double precision, else 24.

    Args:
        shape: samples, if any, then trials, then the entries of each.
        like: gives dtype and device.
        axis: of the trials.
    """
    shape = tuple(shape)
    rows = _rows(shape, axis)
    if rows is None:
        return torch.rand(shape, dtype=like.dtype, device=like.device)
    size = math.prod(shape[axis + 1 :])
    words = _words(rows, shape[: axis + 1], size, inner=False, device=like.device)
    bits = 53 if like.dtype == torch.float64 else 24
    values = _shifted(words, 64 - bits).to(like.dtype).mul_(2.0**-bits)
    return _shaped(values, shape, axis, inner=False)


def int16(
    shape: Sequence[int], *, like: Tensor, axis: int, trials_inner: bool = False
) -> Int16[Tensor, "*shape"]:
    """Draw one of ``LEVELS`` values, all alike, for each entry: what a mask needs, cheaply.

    A draw is below ``LOWEST + n`` with probability n / ``LEVELS``, exactly.

    Args:
        shape: samples, if any, then trials, then the entries of each.
        like: gives the device.
        axis: of the trials.
        trials_inner: as in ``normal``.
    """
    shape = tuple(shape)
    rows = _rows(shape, axis)
    size = math.prod(shape[axis + 1 :])
    if rows is None:
        draws = _empty(shape, torch.int16, like=like, axis=axis, inner=trials_inner)
        words = torch.empty(-(-draws.numel() // 4), dtype=torch.int64, device=like.device)
        words.random_(-(2**63), None)  # one draw of 64 bits makes four
        return words.view(torch.int16).as_strided(shape, draws.stride())
    words = _words(rows, shape[: axis + 1], -(-size // 4), inner=trials_inner, device=like.device)
    values = words.view(torch.int16)
    if trials_inner:
        values = values.unflatten(-1, (-1, 4)).permute(0, 2, 1).flatten(0, 1).contiguous()
    return _shaped(values, shape, axis, inner=trials_inner)


def _rows(shape: tuple[int, ...], axis: int) -> _KeyedTrials | None:
    """Return the active trials, if it is they that the axis holds."""
    trials = _TRIALS.get()
    if trials is None or not 0 <= axis < len(shape) or shape[axis] != len(trials.keys):
        return None
    if 0 in shape:  # nothing to draw
        return None
    return trials


def _words(
    trials: _KeyedTrials,
    rows: tuple[int, ...],
    size: int,
    *,
    inner: bool,
    device: torch.device,
) -> Int64[Tensor, "first second"]:
    """Return so many random words for each sample of each trial: (row, word), or (word, row)."""
    golden = _signed(GOLDEN)
    trials.num_draws += 1
    first = _signed(mixed(trials.num_draws))
    sample = torch.arange(math.prod(rows[:-1]), device=device).mul_(golden).add_(first)
    keys = _mixed(sample[:, None] + trials.keys.to(device)).flatten()
    counter = torch.arange(1, size + 1, device=device).mul_(golden)
    return _mixed(counter[:, None] + keys if inner else keys[:, None] + counter)


def _mixed(words: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """Apply the finaliser of SplitMix64, in place."""
    for shift, factor in zip(SHIFTS, FACTORS, strict=False):
        words.bitwise_xor_(_shifted(words, shift)).mul_(_signed(factor))
    return words.bitwise_xor_(_shifted(words, SHIFTS[-1]))


def _shifted(words: Int64[Tensor, "*shape"], shift: int) -> Int64[Tensor, "*shape"]:
    """Shift to the right, filling up with zeros; torch's own shift keeps the sign."""
    return (words >> shift).bitwise_and_((1 << (64 - shift)) - 1)


def _signed(value: int) -> int:
    """Return the signed number that has the same 64 bits."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _empty(
    shape: tuple[int, ...], dtype: torch.dtype, *, like: Tensor, axis: int, inner: bool
) -> Tensor:
    if not inner:
        return like.new_empty(shape, dtype=dtype)
    entries, rows = shape[axis + 1 :], shape[: axis + 1]
    return _trials_first(like.new_empty((*entries, *rows), dtype=dtype), len(entries))


def _shaped(values: Tensor, shape: tuple[int, ...], axis: int, *, inner: bool) -> Tensor:
    """Cut what words hold too much off rows, and give them their shape."""
    entries, rows = shape[axis + 1 :], shape[: axis + 1]
    size = math.prod(entries)
    if not inner:
        return values[:, :size].reshape(shape)
    return _trials_first(values[:size].reshape(*entries, *rows), len(entries))


def _trials_first(values: Tensor, num_entry_axes: int) -> Tensor:
    axes = range(values.ndim)
    return values.permute(*axes[num_entry_axes:], *axes[:num_entry_axes])
