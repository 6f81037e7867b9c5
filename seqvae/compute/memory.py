"""Memory that a process has freed and will soon want again."""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Parameters of the C library's ``mallopt``."""

LARGEST_KEPT = 32 << 20
"""Bytes of a piece of memory that is kept; larger ones go back to the system."""

MOST_KEPT = 256 << 20
"""Bytes that are kept in all."""


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to ``MOST_KEPT``; return whether it can be told so.

    By default the C library of Linux hands large pieces back at once and asks for them anew in
    the next step, page by page, which takes as long as a pass over them. Nothing happens where
    there is another library.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    told = [mallopt(MMAP_THRESHOLD, LARGEST_KEPT), mallopt(TRIM_THRESHOLD, MOST_KEPT)]
    return all(told)
