"""Links between the documents lead somewhere: to a file that is there, and to a heading in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


class Link(NamedTuple):
    document: Path
    target: str


def links() -> Iterator[Link]:
    for document in DOCUMENTS:
        for target in LINK.findall(document.read_text()):
            if not target.startswith(("https://", "http://")):
                yield Link(document, target)


def anchors(document: Path) -> set[str]:
    """The names that headings have, as they are shown on the web."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    words = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {each.strip().replace(" ", "-") for each in words}


@pytest.mark.parametrize("link", list(links()), ids=lambda link: f"{link.document.name}:{link[1]}")
def test_a_link_leads_to_what_is_there(link: Link) -> None:
    path, _, anchor = link.target.partition("#")
    target = (link.document.parent / path) if path else link.document
    assert target.exists(), f"{link.document} names {link.target}"
    if anchor:
        assert anchor in anchors(target)


def test_the_documents_that_readers_look_for_are_there() -> None:
    found = {str(path.relative_to(ROOT)) for path in DOCUMENTS}
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= found
    assert {f"docs/{name}.md" for name in ("configuration", "errors", "presets")} <= found
