"""What the files of several sessions look like, and sources that read them so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.paths import from_path
from seqvae.data.sources.sessions import Sessions, path_of
from seqvae.data.survey.outlook import outlook
from seqvae.errors import InputError


class Settled(NamedTuple):
    """A source that needs no guess, and what was seen and guessed.

    Attributes:
        source: the source.
        entries: of the file, of several the first; None: of a source without a known file.
        guesses: what is taken for what without having been told, and why, a line each.
    """

    source: RecordingSource
    entries: list[str] | None
    guesses: list[str]


def settled_source(source: RecordingSource) -> Settled:
    """Look at the file of a source, or at each of its files, and guess what it leaves open.

    Raises:
        InputError: with the one question that is left, of the first session that leaves one.
    """
    if isinstance(source, Sessions):
        return _settled_sessions(source)
    view = outlook(source)
    if view is None:
        return Settled(source, None, [])
    return Settled(view.ready(source), view.entries, view.guesses)


def _settled_sessions(sessions: Sessions) -> Settled:
    found: list[Settled] = []
    kept: list[RecordingSource | str] = []
    sources: Any = sessions.sources  # paths as texts
    for index, given in enumerate(sources):
        source = from_path(given) if isinstance(given, str) else given
        try:
            one = settled_source(source)
        except InputError as error:
            raise InputError(f"{sessions.told(index)}: {error}") from error
        found.append(one)
        kept.append(given if one.source is source else one.source)
    names = [Path(path_of(one) or str(index)).stem for index, one in enumerate(kept)]
    entries = found[0].entries
    if entries is not None and len(found) > 1:
        entries = [f"of {names[0]}, the first of {len(found)} sessions:", *entries]
    return Settled(replace(sessions, sources=kept), entries, _together(found, names))


def _together(found: Sequence[Settled], names: Sequence[str]) -> list[str]:
    """Return each guess once, with the sessions it is made for where these are not all."""
    groups: dict[str, tuple[str, list[str]]] = {}
    for one, name in zip(found, names, strict=True):
        for line in one.guesses:
            groups.setdefault(line.split(", as ")[0], (line, []))[1].append(name)
    return [
        line if len(of) == len(names) else f"{line} (in {', '.join(of)})"
        for line, of in groups.values()
    ]
