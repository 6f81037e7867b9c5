"""The folder of a cross-validation: whose cells it holds, and who works in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seqvae.compute.termination import terminable
from seqvae.errors import InputError, Terminated
from seqvae.storage.files import LOCK, check_writable, disk_errors, is_empty, write_text
from seqvae.storage.locking import locked
from seqvae.storage.yaml_json import read_json


@contextmanager
def held(folder: Path, checksum: str, part: tuple[int, int]) -> Iterator[None]:
    """Keep other commands from the same share of the cells, and tell how to go on."""
    name = LOCK if part == (1, 1) else f"{LOCK}-{part[0]}-of-{part[1]}"
    with terminable(), locked(folder, key="out_dir", name=name):
        open_folder(folder, checksum)
        try:
            yield
        except Terminated as end:
            raise Terminated(
                "terminated; the cells that are done are kept, and the same command goes on"
            ) from end


def open_folder(folder: Path, checksum: str) -> None:
    """Make the folder, or refuse one that holds something else.

    Raises:
        InputError: if it holds the cells of other data, or anything but a cross-validation.
    """
    mark = folder / "data.json"
    if not is_empty(folder):
        try:
            former = read_json(mark, str(mark))["checksum"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"out_dir {str(folder)!r} is not empty and no cross-validation; give a new folder"
            ) from error
        if former != checksum:
            raise InputError(
                f"out_dir {str(folder)!r} holds the cells of other data; give a new folder"
            )
    write_text(mark, json.dumps({"checksum": checksum}) + "\n")
    with disk_errors(f"out_dir {str(folder)!r}"):
        (folder / "cells").mkdir(exist_ok=True)
    check_writable(folder / "cells")
