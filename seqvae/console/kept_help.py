"""The help of a verb, kept between calls: to make it takes torch, which takes seconds to import.

It lies in the user's folder for such things (``XDG_CACHE_HOME``, else ``~/.cache``) and holds for
the files of the package as they were; where it cannot be written, help is made each time.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path

from seqvae.errors import UnwritableError
from seqvae.storage.files import write_text
from seqvae.verbs.table import PACKAGE


def kept_help(verb: str) -> str | None:
    """Return the help of a verb, if it was made of the package as it is now."""
    with suppress(OSError, RuntimeError, UnicodeDecodeError):
        return _place(verb).read_text(encoding="utf-8")
    return None


def keep_help(verb: str, text: str) -> None:
    """Keep the help of a verb in the place of what was kept of it before."""
    with suppress(OSError, RuntimeError, UnwritableError):
        place = _place(verb)
        for former in place.parent.glob(f"help-{verb}-*.txt"):
            former.unlink()
        write_text(place, text)


def _place(verb: str) -> Path:
    files = sorted(PACKAGE.rglob("*.py*"))
    facts = [sys.version, *((str(file), file.stat().st_mtime_ns, file.stat().st_size)
                            for file in files if file.suffix in (".py", ".pyi"))]  # fmt: skip
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return folder / "seqvae" / f"help-{verb}-{digest}.txt"
