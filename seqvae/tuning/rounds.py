"""The fits of a search in rounds, each known to those that follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from seqvae.tuning.proposals import proposals
from seqvae.tuning.space import Space
from seqvae.tuning.study import Study


class Task(NamedTuple):
    """A fit that is to be done.

    Attributes:
        number: of it.
        settings: that differ from what they were, by dotted name.
        parent: the fit whose weights it begins with; None: it begins anew.
        generation: how many ancestors it has.
    """

    number: int
    settings: Mapping[str, Any]
    parent: int | None = None
    generation: int = 0


def rounds(study: Study, space: Space, *, num_fits: int, count: int) -> Iterator[list[Task]]:
    """Give what is to be fitted together, again and again, until as many are known as wanted.

    Rounds begin where they would in one go, and know of earlier ones only, so that a study that was
    ended goes on to the same.
    """
    if 0 not in study.records:
        yield [Task(0, {})]
    for start in range(1, num_fits, count):
        numbers = range(start, min(start + count, num_fits))
        missing = [number for number in numbers if number not in study.records]
        if missing:
            proposed = proposals(
                space,
                study.tried(before=start),
                number=start,
                count=len(numbers),
                search=study.facts["search"],
                seed=study.facts["seed"],
            )
            tasks = map(Task, numbers, proposed)
            yield [task for task in tasks if task.number in missing]
