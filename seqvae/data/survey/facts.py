"""What the values of an entry are like, looked at piece by piece."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seqvae.data.sources.dims import Block

_MOST_LEAVES = 200


@dataclass(frozen=True)
class Facts:
    """What numbers are like.

    Attributes:
        num_entries: how many were looked at.
        least: the smallest; NaN if there is none.
        largest: the largest.
        total: their sum.
        num_missing: how many are NaN.
        are_whole: whether all are whole.
        are_rising: whether each array goes up from entry to entry, as times do.
    """

    num_entries: int
    least: float
    largest: float
    total: float
    num_missing: int
    are_whole: bool
    are_rising: bool

    @property
    def are_counts(self) -> bool:
        """Whether they are whole and none is below zero."""
        return self.are_whole and self.least >= 0


def facts_of(block: Block, most: int | None = _MOST_LEAVES) -> Facts:
    """Look at the numbers of an entry in bounded memory.

    Args:
        block: the entry.
        most: arrays among cells that are looked at; None: all.
    """
    least, largest, total = np.inf, -np.inf, 0.0
    num_entries = num_missing = 0
    are_whole = are_rising = True
    for _, leaf in block.leaves[:most]:
        for piece in leaf.pieces():
            num_entries += piece.size
            if piece.size == 0:
                continue
            is_real = piece.dtype.kind == "f"
            missing = int(np.isnan(piece).sum()) if is_real else 0
            num_missing += missing
            if missing < piece.size:
                lowest, highest = (np.nanmin, np.nanmax) if missing else (np.min, np.max)
                least = min(least, float(lowest(piece)))
                largest = max(largest, float(highest(piece)))
                with np.errstate(over="ignore", invalid="ignore"):  # infinite ones, too
                    total += float((np.nansum if missing else np.sum)(piece, dtype=np.float64))
            if is_real and are_whole:
                are_whole = bool((np.isnan(piece) | (piece == np.floor(piece))).all())
            flat = piece.reshape(-1)
            if are_rising:
                are_rising = not bool((flat[1:] < flat[:-1]).any())
    return Facts(
        num_entries,
        least if num_entries > num_missing else float("nan"),
        largest if num_entries > num_missing else float("nan"),
        total,
        num_missing,
        are_whole,
        are_rising,
    )
