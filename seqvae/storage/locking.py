"""One command at a time on a folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from seqvae.errors import InputError
from seqvae.storage.files import LOCK, disk_errors


@contextmanager
def locked(folder: Path, *, key: str, name: str = LOCK, patience: float = 0.0) -> Iterator[None]:
    """Hold a folder, which is made if need be, until the block ends or the process does.

    The system lets go of the lock however the process ends, so that nothing is left to clear away.
    The lock file is gone when the block ends, and so is the folder if nothing came to lie in it.

    Args:
        folder: what is held.
        key: what the user calls it, for the error.
        name: of the lock file; other names are other locks.
        patience: seconds that another process may still hold it.

    Raises:
        InputError: if another process holds it, naming that, or if nothing can be written there.
    """
    from filelock import FileLock, Timeout

    if folder.exists() and not folder.is_dir():
        raise InputError(f"{key} {str(folder)!r} is a file; give a folder")
    path = folder / name
    if path.is_symlink() or (path.exists() and not path.is_file()):  # it would be emptied
        raise InputError(f"{key} {str(folder)!r}: {name} in it is a link or a device; remove it")
    new_folders = [place for place in (folder, *folder.parents) if not place.exists()]
    with disk_errors(f"{key} {str(folder)!r}"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=patience)
        try:
            lock.acquire()
        except Timeout:
            raise InputError(
                f"{key} {str(folder)!r} is in use by {_holder(path)}; wait until that has ended, "
                "or give another folder"
            ) from None
    try:
        with suppress(OSError):
            if not path.read_text():  # else it is a kind of lock that tells by itself
                path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")
        yield
    finally:
        with suppress(OSError):
            path.unlink()  # while it is held: whoever waits for it begins anew with another
        lock.release()
        with suppress(OSError):
            for place in new_folders:
                place.rmdir()


def _holder(path: Path) -> str:
    try:
        process, host, *_ = path.read_text().split()
        return f"process {int(process)} on {host}"
    except (OSError, ValueError):
        return "another command"
