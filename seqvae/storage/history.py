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


def write_history(path: Path, rows: Sequence[Mapping[str, float | int]]) -> None:
    """Write a ``history.csv``: a column for each name in any of the rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())
