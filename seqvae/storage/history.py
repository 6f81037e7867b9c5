"""The history of a fit as a table: one row of metrics for each validation or iteration."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from seqvae.errors import InputError
from seqvae.storage.files import write_text
from seqvae.storage.yaml_json import MAX_JSON, read_text


def read_history(path: Path) -> list[dict[str, float | int]]:
    """Read a ``history.csv``; what a row does not have is left out, and so is what is damaged."""
    try:
        lines = read_text(path, str(path), MAX_JSON).splitlines(keepends=True)
    except (OSError, InputError):
        return []
    rows: list[dict[str, float | int]] = []
    with suppress(csv.Error):
        for row in csv.DictReader(line for line in lines if line.endswith("\n")):  # no torn one
            with suppress(ValueError, TypeError):
                rows.append({name: float(value) for name, value in row.items() if value})
    return [row for row in rows if "step" in row]


class HistoryTable:
    """The text of a ``history.csv``: a column for each name in any row, a line for each row.

    A row adds a line; all are laid out anew only where one has a new column.
    """

    def __init__(self) -> None:
        self._columns: list[str] = []
        self._text = ""
        self.num_rows = 0

    def lay_out(self, rows: Sequence[Mapping[str, float | int]]) -> None:
        """Take these rows in the place of all that there were."""
        self._columns = list(dict.fromkeys(name for row in rows for name in row))
        self._text = ",".join(self._columns) + "\r\n" + self._lines(rows)
        self.num_rows = len(rows)

    def follow(self, rows: Sequence[Mapping[str, float | int]]) -> None:
        """Take what is new in rows of which the first are there."""
        new = rows[self.num_rows :]
        if any(set(row) - set(self._columns) for row in new):
            self.lay_out(rows)
            return
        self._text += self._lines(new)
        self.num_rows = len(rows)

    def write(self, path: Path) -> None:
        """Write the file."""
        write_text(path, self._text)

    def _lines(self, rows: Sequence[Mapping[str, float | int]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns).writerows(rows)
        return text.getvalue()


def write_history(path: Path, rows: Sequence[Mapping[str, float | int]]) -> None:
    """Write a ``history.csv``."""
    table = HistoryTable()
    table.lay_out(rows)
    table.write(path)
