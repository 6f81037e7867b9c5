"""Files that appear whole or not at all, and the layout of a run folder."""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqvae.errors import UnwritableError

LOCK = ".lock"
"""How the names of lock files begin."""
_PASSING = ".tmp"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to ``path`` if the block succeeds.

    A reader sees the old file or the new one, never a half, whenever the process is killed. The
    content is brought to the disk before the rename, which costs milliseconds, so that after a
    crash of the machine, too, the old file is there or the new one, whole; which of them, the file
    system decides. On an error the temporary file is removed and the old file stays; after SIGKILL
    it stays under its passing name, ``.<name>.<letters>.tmp``, which nothing reads.

    Raises:
        UnwritableError: if the disk refuses, in this block or for the rename.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_PASSING, dir=path.parent)
        temporary = Path(name)
        try:
            os.close(handle)
            yield temporary
            umask = os.umask(0)
            os.umask(umask)
            temporary.chmod(0o666 & ~umask)  # mkstemp's are private; results are for the group
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; rename it to that if the block succeeds.

    A folder that was there goes only then. On an error the temporary folder is removed and the old
    one stays; after SIGKILL it stays under its passing name, which nothing reads.

    Raises:
        UnwritableError: if the disk refuses, in this block or for the rename.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        passing = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_PASSING, dir=path.parent))
        before = passing / "before"
        temporary = passing / path.name
        try:
            temporary.mkdir()
            yield temporary
            for file in [file for file in temporary.rglob("*") if file.is_file()]:
                with file.open("rb+") as content:
                    os.fsync(content.fileno())
            if path.exists():
                os.replace(path, before)
            try:
                os.replace(temporary, path)
            except OSError:
                if before.exists():
                    os.replace(before, path)
                raise
        finally:
            shutil.rmtree(passing, ignore_errors=True)


@contextmanager
def disk_errors(path: str | Path) -> Iterator[None]:
    """Turn what the disk refuses into one sentence that names the file and the cause.

    Raises:
        UnwritableError: for an error of the system; others pass.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        if number is None and (match := re.search(r"\berrno = (\d+)", str(error))):
            number = int(match[1])  # in HDF5's own words
        if number is None:
            raise
        raise UnwritableError(f"{path} cannot be written: {os.strerror(number)}") from error


def check_writable(folder: str | Path) -> None:
    """Refuse a folder in which no file can be made, or that cannot be made, before any work.

    Raises:
        UnwritableError: naming the folder and the cause.
    """
    folder = Path(folder)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    with disk_errors(folder):
        handle, name = tempfile.mkstemp(prefix=".seqvae.", suffix=_PASSING, dir=there)
        os.close(handle)
        Path(name).unlink()


def is_empty(folder: Path, *, apart_from: Collection[str] = ()) -> bool:
    """Whether a folder is not there or holds nothing but locks and what a killed process left."""
    return not folder.exists() or all(
        entry.name in apart_from or entry.name.startswith(LOCK) or _is_passing(entry)
        for entry in folder.iterdir()
    )


def _is_passing(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(_PASSING)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


class Lenient(io.FileIO):
    """A new file for a library that cannot bear a full disk: HDF5 crashes when it is told of one.

    The first error (or interrupt) is kept in ``error``, and nothing more is written, as if all were
    well: whoever writes calls ``check`` now and then, and throws the file away.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__(path, "wb+")
        self.error: BaseException | None = None

    def check(self) -> None:
        """Raise the error that there was."""
        if self.error is not None:
            raise self.error

    def write(self, content: Any) -> int:
        """Write all of it, unless something has failed."""
        size = 0
        try:
            left = memoryview(content).cast("B")
            size = len(left)
            while left and self.error is None:
                left = left[super().write(left) :]
        except BaseException as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Change the size, unless something has failed."""
        try:
            if self.error is None:
                return super().truncate(size)
        except BaseException as error:
            self.error = error
        return size or 0

    def readinto(self, buffer: Any) -> int:
        """Read; what is not there because something has failed is zero."""
        view = memoryview(buffer).cast("B")
        count = super().readinto(view) or 0
        if self.error is None:
            return count
        view[count:] = bytes(len(view) - count)
        return len(view)


@dataclass(frozen=True)
class RunFiles:
    """The layout of a run folder: where each file lies.

    Attributes:
        folder: the run folder.
    """

    folder: Path

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
    def refit_checkpoint(self) -> Path:
        """The same of a second pass, which begins where the first one has ended."""
        return self.folder / "refit.ckpt"

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

    @property
    def wandb_ids(self) -> Path:
        """The ids by which Weights & Biases knows the run."""
        return self.folder / "wandb_ids.json"

    def sweep(self) -> None:
        """Remove the passing files that a killed fit has left; for whoever holds the lock."""
        files = (self.config, self.weights, self.last_checkpoint, self.refit_checkpoint,
                 self.history, self.provenance)  # fmt: skip
        left = [path for file in files for path in self.folder.glob(f".{file.name}.*{_PASSING}")]
        with disk_errors(self.folder):
            for path in [*left, *self.figures.glob(f".*{_PASSING}")]:
                path.unlink(missing_ok=True)
