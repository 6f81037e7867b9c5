"""A file that is there, and stays as it is while it is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seqvae.errors import InputError


def existing_file(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that is there."""
    file = Path(path)
    if not os.path.isfile(file):  # False for what no file can be called, too
        what = "does not exist"
        if os.path.exists(file):
            what = "is a folder, not a file" if os.path.isdir(file) else "is no file, but a device"
        raise InputError(f"source.path: {str(file)!r} {what}; check the path")
    return file


@contextmanager
def settled(file: Path) -> Iterator[None]:
    """Refuse what was read of a file that somebody wrote to, or replaced, meanwhile.

    Raises:
        InputError: if size, time of writing or place of the file are others than before.
    """
    before = _state(file)
    try:
        yield
    finally:
        if _state(file) != before:
            raise InputError(
                f"source.path: {str(file)!r} has changed while it was read; wait until whatever "
                "writes it has done, then read it again"
            )


def _state(file: Path) -> tuple[int, ...]:
    try:
        state = os.stat(file)
    except OSError:
        return ()
    return state.st_size, state.st_mtime_ns, state.st_ino
