"""Parallel analysis by random sign flips."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int8

FLIPS = 100
QUANTILE = 1.0
AT_ONCE = 4_000_000
"""Entries that are flipped together."""


class SignFlips(NamedTuple):
    """What parallel analysis answers.

    Attributes:
        upper_edge: components above the largest singular value of what is flipped.
        pairwise: components that each exceed the one of their own rank in what is flipped.
        threshold: the edge, a singular value.
    """

    upper_edge: int
    pairwise: int
    threshold: float


def sign_flips(
    rows: Float[np.ndarray, "row column"],
    *,
    seed: int = 0,
    flips: int = FLIPS,
    quantile: float = QUANTILE,
) -> SignFlips:
    """Count the components that random signs destroy [Hong, Sheng & Dobriban 2020].

    With R of independent random signs, R * X (entry by entry) has the noise of X, where that is
    symmetric and independent between entries, whatever the variance of each; the signal is lost.
    The k-th component is kept while all before it are and ::

        s_k(X) > quantile over R of s_1(R * X)     (upper edge)
        s_k(X) > quantile over R of s_k(R * X)     (pairwise)

    FlipPA, arXiv:2012.02985, whose defaults these are: 100 flips, and their largest value. The
    upper edge errs to the low side; pairwise finds weaker components where a strong one inflates
    the edge, and sometimes one that is none.

    It assumes noise that is symmetric about the mean and independent between all entries. Noise
    that is slow in time is not: its flipped copy is white, whose edge is lower, and a neuron's
    private slow noise passes for components. Counts at low rates are skewed.

    Args:
        rows: the matrix, each column of mean 0.
        seed: of the signs.
        flips: their number.
        quantile: of the singular values of what is flipped.
    """
    generator = np.random.default_rng(seed)
    values = singular_values(rows)
    flipped = np.stack([_flipped(rows, generator) for _ in range(flips)])
    edges = np.quantile(flipped, quantile, axis=0)
    return SignFlips(_leading(values > edges[0]), _leading(values > edges), float(edges[0]))


def singular_values(rows: Float[np.ndarray, "row column"]) -> Float[np.ndarray, " value"]:
    """Return singular values, descending, by the smaller of both squares of the matrix."""
    wide = rows.shape[0] < rows.shape[1]
    return _roots(rows @ rows.T if wide else rows.T @ rows)


def _flipped(
    rows: Float[np.ndarray, "row column"], generator: np.random.Generator
) -> Float[np.ndarray, " value"]:
    """Return the singular values under new signs, part by part of the longer side."""
    longer = rows if rows.shape[0] >= rows.shape[1] else rows.T
    size = longer.shape[1]
    square, step = np.zeros((size, size)), max(1, AT_ONCE // size)
    for start in range(0, len(longer), step):
        part = longer[start : start + step]
        part = part * _signs(part.shape, generator)
        square += part.T @ part
    return _roots(square)


def _signs(shape: tuple[int, ...], generator: np.random.Generator) -> Int8[np.ndarray, ...]:
    number = int(np.prod(shape))
    bits = np.unpackbits(np.frombuffer(generator.bytes(number // 8 + 1), dtype=np.uint8))
    return (2 * bits[:number].astype(np.int8) - 1).reshape(shape)


def _roots(square: Float[np.ndarray, "n n"]) -> Float[np.ndarray, " n"]:
    return np.sqrt(np.linalg.eigvalsh(square)[::-1].clip(min=0.0))


def _leading(is_above: np.ndarray) -> int:
    """Count the True before the first False."""
    return len(is_above) if is_above.all() else int(np.argmin(is_above))
