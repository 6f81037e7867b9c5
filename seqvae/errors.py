"""The one error for mistakes a user can mend, and the helper that names the nearest valid word."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Something the user can mend, told in one sentence: field, value, cure.

    The command line prints the sentence and exits with code 2; in Python it is a ``ValueError``.
    """


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'a' or 'b'?"`` for the nearest valid words, else the valid words."""
    words = sorted(set(valid))
    close = get_close_matches(word, words, n=2, cutoff=0.5)
    if close:
        return "; did you mean " + " or ".join(repr(match) for match in close) + "?"
    return "; valid names: " + ", ".join(words) if words else ""
