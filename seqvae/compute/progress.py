"""How far long work has come, for whoever looks on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

_PATIENCE = 2.0  # seconds


@contextmanager
def progress(num_trials: int, *, work: str | None) -> Iterator[Callable[[int], object]]:
    """Count trials on a bar on standard error: in a terminal only, and after two seconds.

    Args:
        num_trials: how many there are.
        work: what is done with them; None: not worth a bar.

    Yields:
        What to call with the number of trials that have come to their end.
    """
    with tqdm(
        total=num_trials,
        desc=work,
        unit="trial",
        disable=True if work is None else None,
        delay=_PATIENCE,
        leave=False,
        dynamic_ncols=True,
    ) as bar:
        yield bar.update
