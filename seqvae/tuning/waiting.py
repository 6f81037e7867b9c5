"""Several commands that search together: each waits for what the others are to find."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from seqvae.tuning.study import Study

SECONDS_BETWEEN_LOOKS = 1.0


def wait_for(study: Study, numbers: Sequence[int], *, bar: tqdm) -> Iterator[int]:
    """Wait until all of some fits are known, however long that takes; the bar tells for which.

    Args:
        study: to which they come, as their files appear.
        numbers: of the fits.
        bar: that is moved.

    Yields:
        The number of each fit that others made, once it is known.
    """
    is_told = False
    while True:
        for number in numbers:
            if number not in study.records and study.find(number):
                bar.update()
                yield number
        missing = [str(number) for number in numbers if number not in study.records]
        if not missing:
            break
        bar.set_postfix_str(f"waits for {', '.join(missing)}, of other shards")
        is_told = True
        time.sleep(SECONDS_BETWEEN_LOOKS)
    if is_told:
        bar.set_postfix_str("", refresh=False)
