"""The site, which `docs/build` builds.

The root of the repository is the source folder, so a link between two files is the same in the
repository and on the site. Notebooks are shown as they are stored and never run.
"""

from __future__ import annotations

import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.inspect import signature, stringify_signature

import seqvae

project = "seqvae"
author = "The seqvae developers"
version = release = seqvae.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.viewcode",
    "sphinx_design",
]
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "docs/*.md",
    "docs/api/*.md",
    "notebooks/*.ipynb",
]
exclude_patterns = ["docs/_build"]
root_doc = "docs/index"
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types of other packages, which no inventory lists here

nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["config.cache"]

default_role = "literal"
add_module_names = False
toc_object_entries_show_parents = "hide"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "imported-members": True, "show-inheritance": True}
autodoc_preserve_defaults = True

html_theme = "pydata_sphinx_theme"
html_title = "seqvae"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_root"]  # index.html, which leads to docs/index.html
html_sidebars = {"docs/index": [], "docs/gallery": [], "README": []}
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 6,
}
copyright = "the seqvae developers. MIT licence"

_SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields):$")
_IN_CONFIG = re.compile(r"[~\w.]*Annotated\[((?:(?!Annotated\[).)+?), [~\w.]*InConfig\([^()]*\)\]")
_CLASS = re.compile(r"<class '[\w.]*?(\w+)'>")
_LITERAL = re.compile(r"(``.+?``|`[^`]+`)")


def _escaped(line: str) -> str:
    """Take signs that reStructuredText reads as mark-up for what they are, outside of literals."""
    parts = _LITERAL.split(line)
    parts[::2] = [
        re.sub(r"([*|])", r"\\\1", re.sub(r"(?<=\w)_(?!\w)", r"\\_", part)) for part in parts[::2]
    ]
    return "".join(parts)


def read_docstring(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Show equations, which stand indented in a docstring, letter by letter; all else is text."""
    shown: list[str] = []
    section = equation = False
    for number, line in enumerate(lines):
        indented = line.startswith(" ")
        if line and not indented:
            section, equation = bool(_SECTION.match(line)), False
        elif indented and not section and not equation and not lines[number - 1]:
            shown += [".. code-block:: text", ""]
            equation = True
        shown.append(line if equation else _escaped(line))
    # Napoleon's own hook would read "type: text" into the first line of a property.
    settings = Config(
        napoleon_use_rtype=False, napoleon_use_ivar=True, napoleon_attr_annotations=False
    )
    lines[:] = GoogleDocstring(shown, settings, app, obj=obj, options=options).lines()


def read_signature(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, arguments: str, result: str
) -> tuple[str, str] | None:
    """Show what a class is built from, and types without what they tell the reader of configs."""
    if what == "class" and arguments.startswith("(*arguments"):  # of a shared __new__
        arguments = stringify_signature(
            signature(obj.__init__, bound_method=True),
            unqualified_typehints=True,
            show_return_annotation=False,
        )
    return arguments and _CLASS.sub(r"\1", _IN_CONFIG.sub(r"\1", arguments)), result


def setup(app: Sphinx) -> None:
    """Listen for docstrings and signatures."""
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", read_signature)
