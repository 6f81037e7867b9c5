"""Sizes that no machine, or no simulation, can take, refused before memory is taken for them."""

from __future__ import annotations

import math
import os

import numpy as np
from jaxtyping import Int

from seqvae.errors import InputError

LARGE = 64_000_000
"""Numbers of activity (256 MB in single precision) beyond which not all are held at a time."""
HELD = 8_000_000
"""Numbers of a recording that is not held which are held at a time, some times over."""
_MOST = 1e8


def machine_memory() -> float:
    """Return the bytes of memory of this machine, as far as it tells."""
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows does not
        return math.inf


def check_memory(what: str, num_bytes: int | float, *, cure: str = "choose smaller sizes") -> None:
    """Refuse what would take more memory than the machine has, before it is taken."""
    if num_bytes > machine_memory():
        raise InputError(
            f"{what} would take {num_bytes / 1e9:.3g} GB, more than the "
            f"{machine_memory() / 1e9:.3g} GB of this machine; {cure}"
        )


def spread_out(
    trials: Int[np.ndarray, " chosen"], shape: tuple[int, int, int], *, most: int | None = None
) -> Int[np.ndarray, " fewer"]:
    """Return the trials, or as many evenly spread ones of them as some numbers allow.

    Args:
        trials: indices.
        shape: of the recording that they are of.
        most: numbers of activity; None: ``LARGE``.
    """
    most = max(1, (LARGE if most is None else most) // (shape[1] * shape[2]))
    if len(trials) <= most:
        return trials
    return trials[np.linspace(0, len(trials) - 1, most).round().astype(int)]


def check_extent(what: str, *sizes: int | float, most: float = _MOST) -> None:
    """Refuse sizes whose product is more than a simulation should make, or anybody reads."""
    if math.prod(sizes) > most:
        raise InputError(
            f"{what} takes {math.prod(sizes):.3g} numbers, more than {most:.3g}; choose smaller "
            "sizes"
        )
