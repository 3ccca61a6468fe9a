"""docs/events.md is complete and true: its kinds and facts are those of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/events.md").read_text()
KIND = re.compile(r"[A-Z]+(_[A-Z]+)+")


def words(name: str) -> Iterator[tuple[ast.AST, str]]:
    """Every text constant in a file of the orchestrator, with what it stands in."""
    tree = ast.parse((ROOT / "orchestrator" / name).read_text())
    for node in ast.walk(tree):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Constant) and isinstance(child.value, str):
                yield node, child.value


def kinds() -> set[str]:
    """In these two every such word is a kind; elsewhere those that are given as one."""
    told = (word for name in ("narrate.py", "looks.py") for _, word in words(name))
    found = {word for word in told if KIND.fullmatch(word)}
    for name in ("cycle.py", "servicer.py"):
        for node, word in words(name):
            is_named = isinstance(node, ast.keyword) and node.arg == "kind"
            is_told = isinstance(node, ast.Call) and "_told" in ast.dump(node.func)
            is_chosen = isinstance(node, ast.IfExp)
            if KIND.fullmatch(word) and (is_named or is_told or is_chosen):
                found.add(word)
    return found


def facts() -> set[str]:
    """Names of evidence: keys of dicts in the files that collect it."""
    found = set[str]()
    for name in ("findings.py", "witness.py", "narrate.py"):
        for node, word in words(name):
            is_key = isinstance(node, ast.Dict) and word in {
                ast.literal_eval(k) for k in keys(node)
            }
            if is_key or isinstance(node, ast.Subscript):
                found.add(word)
    return found


def keys(node: ast.Dict) -> Iterator[ast.Constant]:
    return (key for key in node.keys if isinstance(key, ast.Constant))


def column(heading: str) -> set[str]:
    """The names in the first column beneath a heading."""
    section = f"\n{DOCUMENT}".partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def test_every_kind_of_event_is_in_the_table() -> None:
    assert {"VM_KEPT", "VM_REBUILT", "REPAIR_FAILED", "PRESET_RESUMED", "VM_PROBE"} <= kinds()
    assert column("# Events") == kinds()


def test_every_fact_is_in_the_table() -> None:
    assert {"console", "failing_since", "zone", "clause"} <= facts()
    assert column("## Evidence") == facts()
