"""docs/backtest.md tells every record and every field of a timeline, and no other."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from orchestrator.backtest import timeline
from orchestrator.backtest.reading import read
from orchestrator.backtest.writing import _NAMES, _WORDS

ROOT = Path(__file__).parents[4]
DOC = (ROOT / "docs" / "backtest.md").read_text()


def rows_beneath(heading: str) -> dict[str, str]:
    """The rows of the table beneath a heading, by the word in their first cell."""
    found = re.search(rf"^### {heading}$(.*?)(?=^#|\Z)", DOC, re.MULTILINE | re.DOTALL)
    assert found
    cells = (re.match(r"\| `(\w+)` \| (.*)", row) for row in found[1].splitlines())
    return {cell[1]: cell[2] for cell in cells if cell and cell[1] != "what"}


def test_the_example_of_the_document_is_a_timeline() -> None:
    found = re.search(r"```json\n(.*?)```", DOC, re.DOTALL)
    assert found
    assert len(read(found[1], file="docs/backtest.md").records) == 3


def test_every_record_stands_in_the_document_with_every_field() -> None:
    rows = rows_beneath("Records")
    assert rows.keys() == set(_WORDS.values())
    for kind, word in _WORDS.items():
        told = set(re.findall(r"`\"?(\w+)\"?`", rows[word]))
        known = {_NAMES.get(field.name, field.name) for field in fields(kind)} - {"at"}
        assert known <= told, f"{word}: {known - told}"


def test_every_field_of_the_head_stands_in_the_document() -> None:
    known = {field.name for field in fields(timeline.Head)} - {"cloud"}
    known |= {"timeline", "idempotent", "horizon", "methods"}
    assert rows_beneath("The head").keys() == known


def test_every_shipped_timeline_stands_in_the_document() -> None:
    shipped = {
        path.stem for path in (Path(__file__).parents[4] / "examples/timelines").glob("*.jsonl")
    }
    told = set(re.findall(r"^\| `(\w+)` \|", DOC.partition("## Mishaps")[2], re.MULTILINE))
    assert told == shipped
