"""Short tables that a notebook shows in the place of a value; all text is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

_LONGEST = 200


def facts_html(title: str, facts: Mapping[str, object]) -> str:
    """Return a table of facts, a line each.

    Args:
        title: above it.
        facts: by name.
    """
    rows = [f"<tr><th style='text-align:left'>{_cell(name)}</th>"
            f"<td style='text-align:left'>{_cell(value)}</td></tr>"
            for name, value in facts.items()]  # fmt: skip
    return _table(title, rows)


def rows_html(title: str, header: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Return a table with a header.

    Args:
        title: above it.
        header: name of each column.
        rows: cells.
    """
    lines = ["<tr>" + "".join(f"<th>{_cell(name)}</th>" for name in header) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows]
    return _table(title, lines)


def _table(title: str, lines: Sequence[str]) -> str:
    caption = f"<caption style='text-align:left'><b>{_cell(title)}</b></caption>"
    return f"<table>{caption}{''.join(lines)}</table>"


def _cell(value: object) -> str:
    text = str(value)
    return escape(text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ...")
