"""Seeds: noise as a function of a seed and a step, so that a resumed run repeats it bit for bit."""

from __future__ import annotations

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio."""

SHIFTS = (30, 27, 31)
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


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
