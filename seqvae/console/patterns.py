"""Several files on the command line: those of several sessions, each read alike."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Mapping
from typing import Any

from seqvae.errors import InputError

SOURCE, PATH = "data.source", "data.source.path"
NAMES = "data.source.names"
"""What is said of all sessions together."""

Read = Callable[[Mapping[str, Any]], Mapping[str, Any]]


def with_sessions(flags: Mapping[str, Any], read: Read) -> dict[str, Any]:
    """Return flags in which several paths, or a pattern of paths, are a source for each file.

    Args:
        flags: by their dotted keys; those of the source are said of each file.
        read: returns the arguments of the verb for the flags of a single file.

    Raises:
        InputError: if no file is named like the pattern.
    """
    files = flags.get(PATH)
    if isinstance(files, str) and glob.has_magic(files) and not os.path.exists(files):
        pattern, files = files, sorted(glob.glob(files))
        if not files:
            raise InputError(f"{PATH}: no file is named like {pattern!r}")
    if not isinstance(files, list):
        return dict(flags)
    of_source = {key: value for key, value in flags.items() if f"{key}.".startswith(f"{SOURCE}.")}
    names = of_source.pop(NAMES, None)
    sources = []
    for file in files:
        data = read({**of_source, PATH: file})["data"]
        sources.append((data.get("init_args") or data)["source"])
    arguments = {"sources": sources} | ({} if names is None else {"names": names})
    rest = {key: value for key, value in flags.items() if key not in of_source and key != NAMES}
    return {**rest, SOURCE: {"class_path": "Sessions", "init_args": arguments}}
