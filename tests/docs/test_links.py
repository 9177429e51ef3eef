"""Links between pages lead somewhere, headings included, and files that are named are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doc_pages import DOCS, PAGES, ROOT, prose, spans

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FOLDERS = ("docs", "edge_conflayers", "models", "native", "tests", "tools")


def heading_ids(page: Path) -> set[str]:
    """As MkDocs and GitHub make them from headings: lower case, hyphens, no punctuation."""
    ids = set()
    for title in re.findall(r"^#+ +(.+)$", prose(page), re.M):
        plain = re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower()
        ids.add(re.sub(r"[\s-]+", "-", plain))
    return ids


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name}: {link}"
        if page.parent == DOCS:
            assert target.parent == DOCS, f"{page.name}: {link} leaves the site"
        if heading:
            assert heading in heading_ids(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_are_there(page: Path) -> None:
    for span in spans(page):
        top, slash, _ = span.partition("/")
        if slash and top in _FOLDERS and re.fullmatch(r"[\w./*-]+", span):
            if span.startswith("edge_conflayers/_native"):
                continue  # built
            assert list(ROOT.glob(span.rstrip("/"))), f"{page.name}: {span}"


def test_links_are_found() -> None:
    links = [link for page in PAGES for link in _LINK.findall(prose(page))]
    assert sum("://" not in link for link in links) > 30
    assert any("#" in link for link in links)
