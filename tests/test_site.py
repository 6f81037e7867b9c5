"""The pages: every link leads somewhere, and every public name has its place in the reference."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import seqvae.models

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "benchmarks").glob("*.md"), *DOCS.glob("*.md"),
     *(DOCS / "api").glob("*.md")]
)  # fmt: skip
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)")
NAMED = re.compile(r"`(?:python )?((?:docs|configs|benchmarks|notebooks)/[\w./]+)(?![\w./*{])")


def text_of(page: Path) -> str:
    """What stands on a page outside of its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links spell them."""
    titles = re.findall(r"^#+ (.+)$", text_of(page), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def dangling(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for target, anchor in LINK.findall(text_of(page)):
        file = (page.parent / target).resolve() if target else page
        is_there = file.is_file() and (not anchor or anchor in anchors(file))
        if not is_there:
            found.append(f"{target}#{anchor}")
    return found + [name for name in NAMED.findall(text_of(page)) if not (ROOT / name).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page):
    assert dangling(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text("# A b\n[a](#a-b) [b](#b) [c](c.md) [d](https://d.org/e) `docs/none.md`\n")
    assert dangling(page) == ["#b", "c.md#", "docs/none.md"]


def test_every_public_name_has_its_place_in_the_reference():
    pages = "\n".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    named = re.findall(r"auto(?:class|function):: ([\w.]+)", pages)
    classes = {name.rpartition(".")[2] for name in named}
    for module in re.findall(r"automodule:: ([\w.]+)", pages):
        classes |= set(vars(importlib.import_module(module)))
    stub = (ROOT / "seqvae/__init__.pyi").read_text()
    public = set(re.findall(r"^from \S+ import \w+ as (\w+)", stub, flags=re.M))
    models = {name for name, value in vars(seqvae.models).items() if isinstance(value, type)}
    wanted = (public | models) - {"plotting"}
    assert len(wanted) > 20
    assert wanted - classes == set()


def test_every_page_stands_in_a_table_of_contents():
    text = "\n".join(page.read_text() for page in PAGES)
    trees = "\n".join(re.findall(r"^```\{toctree\}\n(.*?)^```", text, flags=re.S | re.M))
    entries = {re.sub(r".*<(.*)>", r"\1", line).rpartition("/")[2] for line in trees.split("\n")}
    assert {page.stem for page in PAGES} - entries == set()
