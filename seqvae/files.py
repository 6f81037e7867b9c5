"""Files that appear whole or not at all, and the layout of a run folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` if the block succeeds.

    A reader sees the old file or the new one, never a half. On an error the temporary file is
    removed and the old file stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; results are for the group
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class RunFiles:
    """The layout of a run folder: where each file lies.

    Attributes:
        folder: the run folder.
        with_figures: whether learning leaves pictures in it.
    """

    folder: Path
    with_figures: bool = True

    @property
    def config(self) -> Path:
        """The complete configuration: seed, data, model, learner."""
        return self.folder / "config.yaml"

    @property
    def weights(self) -> Path:
        """The weights with the best validation score."""
        return self.folder / "weights.pt"

    @property
    def last_checkpoint(self) -> Path:
        """Everything that resuming needs, as of the last epoch."""
        return self.folder / "last.ckpt"

    @property
    def history(self) -> Path:
        """One row of metrics per validation."""
        return self.folder / "history.csv"

    @property
    def figures(self) -> Path:
        """Folder of pictures."""
        return self.folder / "figures"

    @property
    def provenance(self) -> Path:
        """Versions, seed, data checksum, data facts, command and device."""
        return self.folder / "provenance.json"
