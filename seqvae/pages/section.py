"""What a section of the page is made of: words, charts, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Trace = dict[str, Any]


@dataclass(frozen=True)
class Chart:
    """One chart of plotly, as the plain values that it is made from.

    Colours are hexadecimal, or ``@ink``, ``@muted`` and ``@paper``, which the page replaces by
    those of its light or dark look.

    Attributes:
        caption: what it shows, in words.
        traces: of plotly.
        layout: of plotly.
        height: pixels.
        is_wide: whether it takes the whole width of the page.
    """

    caption: str
    traces: Sequence[Trace]
    layout: dict[str, Any]
    height: int = 300
    is_wide: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of words below a header, whose first column names the row.

    Attributes:
        header: of the columns.
        rows: of cells.
        caption: what it shows.
        is_folded: whether it is shown only when asked for.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    is_folded: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        title: its heading.
        words: paragraphs above the charts.
        charts: in order.
        tables: below them.
        legend: names of colours that all charts share.
        notes: what is left out, and why.
        code: a command, to be copied.
    """

    title: str
    words: Sequence[str] = ()
    charts: Sequence[Chart] = ()
    tables: Sequence[Table] = ()
    legend: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    code: str = ""


@dataclass(frozen=True)
class Part:
    """Sections that belong together: of one run, of a comparison, of a cross-validation.

    Attributes:
        title: its heading.
        sections: in order.
    """

    title: str
    sections: Sequence[Section] = field(default_factory=list)
