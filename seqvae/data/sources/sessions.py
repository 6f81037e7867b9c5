"""Several recorded sessions, each of neurons of its own, as one recording."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from seqvae.config.arguments import InConfig
from seqvae.data.recording import Recording
from seqvae.data.session_rows import packed
from seqvae.data.sources.arrays import Arrays
from seqvae.data.sources.base import RecordingSource
from seqvae.data.sources.paths import from_path
from seqvae.data.stitching import stitched
from seqvae.errors import InputError

if TYPE_CHECKING:
    _Sources: TypeAlias = Sequence[RecordingSource | Recording | str | os.PathLike[str]] | str
else:  # whatever else is given is refused in words
    _Sources: TypeAlias = Any


@dataclass(frozen=True)
class Sessions(RecordingSource):
    """Several sessions in one recording: each has trials and neurons of its own.

    In a trial the neurons of other sessions are missing, so that whatever reads missing data reads
    sessions, and a model fitted to them has read-in and readout of its own for the neurons of each
    and shares all else ("stitching") [Pandarinath et al. 2018, Nat. Methods 15:805; Turaga et al.
    2013, NIPS]. Bins must be of one width; trials may differ in length. See
    ``seqvae.data.stitching``.

    Attributes:
        sources: of each session: sources, paths or recordings; or a pattern of paths, such as
            ``monkey/*.h5``, of which the files that are there are noted, in alphabetical order.
        names: of the sessions; None: those that the recordings have, else those of the files, else
            0, 1, ....
    """

    sources: Annotated[_Sources, InConfig(list[RecordingSource | str] | str)]
    names: Annotated[Sequence[str] | None, InConfig(tells_default=False)] = None

    def __post_init__(self) -> None:
        given: Any = self.sources
        if isinstance(given, str | os.PathLike):
            given = sorted(glob.glob(os.fspath(given)))
            if not given:
                raise InputError(f"sources: no file is named like {self.sources!r}")
        if not given:
            raise InputError("sources is empty; give one source for each session")
        sources = [_source(index, one) for index, one in enumerate(given)]
        object.__setattr__(self, "sources", sources)
        files = [os.path.realpath(path) for path in map(path_of, sources) if path is not None]
        twice = next((file for index, file in enumerate(files) if file in files[:index]), None)
        if twice is not None:
            raise InputError(f"sources names {twice!r} twice; give each session once")

    def with_session(
        self, source: RecordingSource, name: str | None, former: Sequence[str]
    ) -> Sessions:
        """Return these sessions, by the names they have, and another one.

        Args:
            source: of the new session.
            name: of the new session; None: as the sessions would be called by themselves.
            former: the names of these.

        Raises:
            InputError: for a name that one of these has.
        """
        if name is None:
            path = path_of(source)
            name = str(len(former)) if path is None else Path(path).stem
        if name in former:
            raise InputError(f"name: there is a session {name!r} already; give another name")
        return Sessions([*self._sources, source], names=[*former, name])

    @property
    def in_memory(self) -> bool:
        """Whether some session is no file or simulation, so that no config can tell of it."""
        return any(getattr(one, "in_memory", False) for one in self._sources)

    def load(self) -> Recording:
        """Load every session, and make them one recording."""
        recordings = []
        for index, source in enumerate(self._sources):
            try:
                one = from_path(source).load() if isinstance(source, str) else source.load()
            except InputError as error:
                raise InputError(f"{self.told(index)}: {error}") from error
            is_alone = len(self._sources) == 1
            recordings.append(one if is_alone else one.changed(activity=packed(one.activity)))
        return stitched(dict(zip(self.names_of(recordings), recordings, strict=True)))

    def told(self, index: int) -> str:
        """Return what errors call the source of a session."""
        path = path_of(self._sources[index])
        return f"sources[{index}]" + ("" if path is None else f" ({path})")

    @property
    def _sources(self) -> list[RecordingSource | str]:
        """The sources, as they are kept: paths as texts."""
        sources: Any = self.sources
        return list(sources)

    def names_of(self, recordings: Sequence[Recording]) -> list[str]:
        """Return the names of the sessions, of which these are the recordings."""
        numbers = [*map(str, range(len(recordings)))]
        if self.names is not None:
            names = [*map(str, self.names)]
            if len(names) != len(recordings) or len(set(names)) < len(names):
                raise InputError(
                    f"names must name each of the {len(recordings)} sessions otherwise, got "
                    f"{list(self.names)!r}"
                )
            return names
        paths = [path_of(source) for source in self._sources]
        for known in (
            [one.session_id for one in recordings],
            [None if path is None else Path(path).stem for path in paths],
        ):
            if None not in known and len(set(known)) == len(known):
                return [*map(str, known)]
        return numbers


def _source(index: int, thing: Any) -> Any:
    """Return what a session is read from: a source, or a path as text."""
    if isinstance(thing, Recording):
        return Arrays(thing)
    if isinstance(thing, str | os.PathLike):
        path = os.fspath(thing)
        from_path(path)  # refuses another ending
        return path
    if isinstance(thing, RecordingSource):
        return thing
    raise InputError(
        f"sources[{index}] must be a source, a path or a Recording, got {type(thing).__name__}"
    )


def path_of(source: RecordingSource | str) -> str | None:
    """Return the file of a session, if it has one."""
    path = source if isinstance(source, str) else getattr(source, "path", None)
    return None if path is None else os.fspath(path)
