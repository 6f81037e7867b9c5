"""How far long work has come, for whoever looks on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_PATIENCE = 2.0  # seconds
SECONDS_BETWEEN_LINES = 30.0
"""Least time between two states of a bar in a file, where every one stays to be read."""


def bar(total: int | None, *, work: str, unit: str, initial: int = 0, show: bool = True) -> tqdm:
    """Return a bar on standard error; where that is a file, such as a job's, of few lines.

    Args:
        total: how many there are; None: not known beforehand.
        work: what is done.
        unit: what is counted.
        initial: how many are done already.
        show: whether anything is shown.
    """
    is_seen = sys.stderr.isatty() or "ipykernel" in sys.modules
    seconds = 0.1 if is_seen else SECONDS_BETWEEN_LINES
    return tqdm(
        total=total,
        initial=initial,
        desc=work,
        unit=unit,
        disable=not show,
        mininterval=seconds,
        maxinterval=max(10.0, seconds),
        dynamic_ncols=True,
    )


@contextmanager
def progress(
    number: int | None, *, work: str | None, unit: str = "trial"
) -> Iterator[Callable[[int], object]]:
    """Count trials on a bar on standard error: in a terminal only, and after two seconds.

    Args:
        number: how many there are; None: not known beforehand.
        work: what is done with them; None: not worth a bar.
        unit: what is counted.

    Yields:
        What to call with the number that have come to their end.
    """
    with tqdm(
        total=number,
        desc=work,
        unit=unit,
        disable=True if work is None else None,
        delay=_PATIENCE,
        leave=False,
        dynamic_ncols=True,
    ) as bar:
        yield bar.update
