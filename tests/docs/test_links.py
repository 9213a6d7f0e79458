"""Links between the pages of the repository: the file is there, and so is the heading."""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt

from tests.docs.blocks import ROOT

PAGES = sorted(
    path.relative_to(ROOT)
    for glob in ("*.md", "docs/*.md", "pipeline/*.md", "results/**/*.md", "peers/*.md")
    for path in ROOT.glob(glob)
)


@cache
def tokens(page: Path) -> list:
    return MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text("utf-8"))


@cache
def anchors(page: Path) -> set[str]:
    """The names by which a code host knows the headings, and those that the page gives itself."""
    found: set[str] = set()
    parsed = tokens(page)
    for token, inline in pairwise(parsed):
        if token.type == "heading_open":
            text = "".join(child.content for child in inline.children if child.content)
            name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
            number = next(n for n in range(len(found) + 1) if _numbered(name, n) not in found)
            found.add(_numbered(name, number))
    return found | set(re.findall(r'<a id="([^"]+)"', (ROOT / page).read_text("utf-8")))


def _numbered(name: str, number: int) -> str:
    return f"{name}-{number}" if number else name


def links(page: Path) -> list[str]:
    return [
        str(child.attrs[attribute])
        for token in tokens(page)
        for child in token.children or ()
        for attribute in ("href", "src")
        if attribute in child.attrs
    ]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_its_links_lead_somewhere(page: Path) -> None:
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = unquote(link).partition("#")
        path = (ROOT / page.parent / target).resolve() if target else ROOT / page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors(path.relative_to(ROOT)), link


def test_every_page_of_the_documentation_is_in_the_site() -> None:
    lines = (ROOT / "docs" / "index.md").read_text("utf-8").splitlines()
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem in {*lines, "index"}
