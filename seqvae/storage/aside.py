"""A run that makes room for another, and comes back if that one fails."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from seqvae.errors import UnwritableError
from seqvae.storage.files import LOCK, RunFiles, disk_errors


@dataclass(frozen=True)
class Aside:
    """Where the files of a run lie, in its folder, while another one is learned there.

    Whenever the process is killed the run is whole: ``config.yaml`` is what makes a folder a run,
    and it is the last to go and the last to come back.

    Attributes:
        files: of the run folder.
    """

    files: RunFiles

    @property
    def _place(self) -> RunFiles:
        return RunFiles(self.files.folder / ".overwritten")

    @property
    def _spent(self) -> Path:
        return self.files.folder / ".overwritten.done"

    def mend(self) -> None:
        """Bring back the run of a fit that was killed before it was one."""
        with disk_errors(self.files.folder):
            shutil.rmtree(self._spent, ignore_errors=True)
            begun = self.files.config.exists() and self._place.config.exists()
            if self._place.folder.is_dir() and not begun:
                self._return()

    def keep(self) -> None:
        """Put the run aside; where one lies there, the unfinished one in its place is removed.

        Raises:
            UnwritableError: if something cannot be moved.
        """
        folder = self.files.folder
        if folder.is_symlink():
            raise UnwritableError(f"run_dir {str(folder)!r} cannot be written anew: it is a link")
        with disk_errors(folder):
            if self._place.folder.is_dir():
                self._clear()
            if not self.files.config.exists():
                return
            self._place.folder.mkdir()
            for entry in self._entries(folder):
                os.replace(entry, self._place.folder / entry.name)

    def bring_back(self) -> None:
        """Remove what has taken the place of the run, and bring it back."""
        if self._place.folder.is_dir():
            with disk_errors(self.files.folder):
                self._clear()
                self._return()

    def remove(self) -> None:
        """Remove the run, as the other one is whole."""
        if self._place.folder.is_dir():
            with disk_errors(self.files.folder):
                os.replace(self._place.folder, self._spent)
                shutil.rmtree(self._spent)

    def _entries(self, folder: Path) -> list[Path]:
        """List what belongs to a run, its config last."""
        passing = (self._place.folder, self._spent)
        entries = [
            entry
            for entry in folder.iterdir()
            if entry not in passing and not entry.name.startswith(LOCK)
        ]
        return sorted(entries, key=lambda entry: entry.name == self.files.config.name)

    def _clear(self) -> None:
        for entry in self._entries(self.files.folder):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def _return(self) -> None:
        for entry in self._entries(self._place.folder):
            os.replace(entry, self.files.folder / entry.name)
        self._place.folder.rmdir()
