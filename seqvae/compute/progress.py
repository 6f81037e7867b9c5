"""How far long work has come, for whoever looks on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_PATIENCE = 2.0  # seconds


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
