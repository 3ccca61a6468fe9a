"""docs/situations.md quotes the lives that the tests live through, word by word, and names all of
them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/situations.md").read_text()
SCENARIOS = ROOT / "tests/scenarios"
LINK = r"\[(\w+\.txt)\]\(\.\./tests/scenarios/(\w+\.txt)\)"
QUOTE = re.compile(rf"^From {LINK}:\n\n```text\n(.*?)\n```$", re.MULTILINE | re.DOTALL)
# Between two passages, in place of what is left out.
GAP = "\n…\n"


def missing(name: str, quote: str) -> list[str]:
    """Passages that the scenario does not have, or not in this order."""
    text, at, found = "\n" + (SCENARIOS / name).read_text(), 0, list[str]()
    for passage in quote.split(GAP):
        here = text.find(f"\n{passage}\n", at)
        if here < 0:
            found.append(passage)
        else:
            # The line break at its end may be that before the next passage.
            at = here + len(passage) + 1
    return found


@pytest.mark.parametrize("quote", QUOTE.findall(DOCUMENT), ids=lambda quote: quote[0])
def test_what_is_quoted_stands_in_the_scenario_that_is_named(quote: tuple[str, str, str]) -> None:
    _, name, text = quote
    assert missing(name, text) == []


def test_every_quotation_names_its_scenario() -> None:
    assert DOCUMENT.count("```text") == len(QUOTE.findall(DOCUMENT))


def test_a_link_to_a_scenario_leads_where_it_says() -> None:
    assert [link for link in re.findall(LINK, DOCUMENT) if link[0] != link[1]] == []


def test_every_scenario_is_told_of() -> None:
    told = {name for _, name in re.findall(LINK, DOCUMENT)}
    assert {path.name for path in SCENARIOS.glob("*.txt")} - told == set()


def test_there_are_more_than_twenty_situations_each_with_a_quotation() -> None:
    situations = re.split(r"^### ", DOCUMENT, flags=re.MULTILINE)[1:]
    assert len(situations) > 20
    assert [each.splitlines()[0] for each in situations if not QUOTE.search(each)] == []
    assert [each.splitlines()[0] for each in situations if "- **Keys**:" not in each] == []
