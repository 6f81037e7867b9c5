"""What is raised for a user to mend, and at an end that was asked for; the nearest valid word."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 2000
_MOST_NAMES = 500


class InputError(ValueError):
    """Something the user can mend, told in one sentence: field, value, cure.

    The command line prints the sentence and exits with code 2; in Python it is a ``ValueError``.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(one_line(sentence))


class UnwritableError(InputError):
    """A file cannot be written: no room, no permission, a broken disk. Former files are as before.

    Unlike other mistakes it says nothing of what was being done, which may be done again.
    """


class Terminated(SystemExit):
    """The system asked the process to end (SIGTERM); what was saved stays, and can be gone on with.

    The exit code is 143, from the command line and from a script.
    """

    def __init__(self, message: str = "terminated") -> None:
        super().__init__(message)
        self.code = 143


def one_line(text: str) -> str:
    """Return text that a terminal may print, whoever wrote it: one line, not too long, no codes."""
    line = re.sub(r"\s*\n\s*", " ", text.strip())
    if len(line) > _LONGEST:
        line = f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 4 :]}"
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in line
    )


def nearest(word: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'a' or 'b'?"`` for the nearest valid words, else the valid words."""
    words = sorted(set(valid))
    if len(words) > _MOST_NAMES:  # no search through thousands
        return f"; there are {len(words)} names, from {words[0]!r} to {words[-1]!r}"
    close = get_close_matches(word, words, n=2, cutoff=0.51)
    if close:
        return "; did you mean " + " or ".join(repr(match) for match in close) + "?"
    return "; valid names: " + ", ".join(words) if words else ""
