"""Shares of a work that several commands do in one folder, such as the tasks of a job array."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from seqvae.errors import InputError
from seqvae.storage.files import LOCK
from seqvae.storage.locking import locked

Task = TypeVar("Task")
SECONDS_OF_PATIENCE = 2.0
"""For others that look, too, whether a lock is held."""


class Shard(NamedTuple):
    """A share of the work: the ``part``-th of ``whole``, counted from 1.

    Attributes:
        part: which.
        whole: how many there are; 1: it is all of the work.
    """

    part: int = 1
    whole: int = 1

    @classmethod
    def parse(cls, shard: str | None) -> Shard:
        """Read ``"i/n"``; None: all of the work.

        Raises:
            InputError: if it is not of that form.
        """
        if shard is None:
            return cls()
        part, _, whole = shard.partition("/")
        if not (part.isdecimal() and whole.isdecimal() and 1 <= int(part) <= int(whole)):
            raise InputError(f"shard must be like 2/8, from 1/n to n/n, got {shard!r}")
        return cls(int(part), int(whole))

    def has(self, place: int) -> bool:
        """Whether a task is of this share, by its place among all, counted from 0."""
        return place % self.whole == self.part - 1

    def of(self, tasks: Sequence[Task]) -> list[Task]:
        """Return every n-th task from the i-th on, so that large and small ones are spread."""
        return [task for place, task in enumerate(tasks) if self.has(place)]

    @property
    def lock(self) -> str:
        """The name of the lock file of this share."""
        return LOCK if self.whole == 1 else f"{LOCK}-{self.part}-of-{self.whole}"


@contextmanager
def locked_share(folder: Path, shard: Shard, *, key: str) -> Iterator[None]:
    """Hold a share of a folder; beside it others of as many may be held, and nothing else.

    Raises:
        InputError: if another process holds this one, or a share of another division.
    """
    with locked(folder, key=key, name=shard.lock):
        beside = {Shard(part, shard.whole).lock for part in range(1, shard.whole + 1)}
        for path in folder.glob(f"{LOCK}*"):
            if path.name not in beside:
                with locked(folder, key=key, name=path.name, patience=SECONDS_OF_PATIENCE):
                    pass
        yield
