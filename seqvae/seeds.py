"""Seeds: noise as a function of a seed and a step, so that a resumed run repeats it bit for bit."""

from __future__ import annotations


def step_seed(seed: int, step: int, *, stream: int = 0) -> int:
    """Mix a seed, a step and a stream into one 63-bit seed (the finaliser of SplitMix64).

    Args:
        seed: of the run.
        step: of the training; -1 is free for what does not depend on it.
        stream: one number for each user of randomness, so that no two draw the same noise.
    """
    mask = (1 << 64) - 1
    value = seed * 0x9E3779B97F4A7C15 + (step + 2) * 0xD1B54A32D192ED03
    value = (value + stream * 0xA0761D6478BD642F) & mask
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
    return (value ^ (value >> 31)) >> 1
