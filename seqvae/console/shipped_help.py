"""The help of each verb as a file beside this one: to make it takes torch, and seconds.

``python -m seqvae.console.shipped_help`` writes the files anew; the tests compare them with what
would be made.
"""

from __future__ import annotations

from pathlib import Path

from seqvae.storage.files import write_text
from seqvae.verbs.table import Verb, verbs

FOLDER = Path(__file__).parent / "help"


def shipped_help(verb: str) -> str | None:
    """Return the help of a verb, if there is a file of it."""
    page = FOLDER / f"{verb}.txt"
    return page.read_text(encoding="utf-8") if page.is_file() else None


def made_help(verb: Verb) -> str:
    """Make the help of a verb by its defaults."""
    from seqvae.console.printing import help_text

    return help_text(verb.name, verb.function, {})


def main() -> None:
    """Write the help of all verbs."""
    known = verbs()
    for page in FOLDER.glob("*.txt"):
        page.unlink()
    for name, verb in known.items():
        write_text(FOLDER / f"{name}.txt", made_help(verb))


if __name__ == "__main__":
    main()
