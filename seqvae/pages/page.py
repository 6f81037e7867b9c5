"""From sections to one HTML file that needs nothing else."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqvae.errors import InputError
from seqvae.pages.section import Chart, Part

_HERE = Path(__file__).parent


def check_libraries() -> None:
    """Refuse before the work what the page cannot be made without.

    Raises:
        InputError: naming what to install.
    """
    try:
        import jinja2  # noqa: F401
        import plotly  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"a report needs {error.name}, which is not installed; pip install 'seqvae[report]'"
        ) from error


def page(parts: Sequence[Part], *, title: str, subtitle: str = "") -> str:
    """Lay out a page. Text is escaped, wherever it comes from, and nothing is loaded.

    Args:
        parts: in order.
        title: of the page.
        subtitle: below it.

    Raises:
        InputError: if the optional libraries are not installed.
    """
    check_libraries()
    import jinja2
    from plotly.offline import get_plotlyjs

    numbers = itertools.count(1)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    charts: dict[str, str] = {}

    def place(chart: Chart) -> str:
        name = f"chart-{next(numbers)}"
        charts[name] = embedded({"data": list(chart.traces), "layout": chart.layout})
        return name

    laid = [
        {
            "part": part,
            "id": f"part-{i}",
            "sections": [
                {"section": section, "charts": [(place(c), c) for c in section.charts]}
                for section in part.sections
            ],
        }
        for i, part in enumerate(parts, start=1)
    ]
    return environment.get_template("page.html").render(
        title=title,
        subtitle=subtitle,
        parts=laid,
        charts=charts,
        style=_text("page.css"),
        plotly=get_plotlyjs().replace("</script", "<\\/script"),
        script=_text("page.js"),
    )


def embedded(value: Any) -> str:
    """Write JSON that a script element may hold: no text in it can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _text(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
