"""docs/errors.md is complete and true: its reasons, conditions and words are those of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from vmshepherd_kit import errors
from vmshepherd_kit.errors import ShepherdError

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "vmshepherd_kit",
    "preset_service",
    "runtime_service",
    "iaas_service",
    "health_service",
    "orchestrator",
    "admin",
)
WORD = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
KINDS: dict[str, type[ShepherdError]] = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, ShepherdError)
}


class Use(NamedTuple):
    """A reason in the code; `kind` is the class of the kit that it is raised as, where told."""

    reason: str
    where: str
    kind: type[ShepherdError] | None = None


def modules(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    """The modules that run in a suite; contract suites for drivers do not."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "testing.py":
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def named(node: ast.AST | None) -> str:
    """The last part of a name: `errors.BadRequest` is BadRequest."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def word(node: ast.AST | None) -> str | None:
    """A constant in UPPER_SNAKE."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value if WORD.fullmatch(node.value) else None
    return None


def kinds() -> dict[str, type[ShepherdError]]:
    """The class of the kit that each error of ours is, those included that others derive."""
    found = dict(KINDS)
    for _ in range(3):
        for _, tree in modules(*PACKAGES):
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    for parent in node.bases:
                        if named(parent) in found:
                            found.setdefault(node.name, found[named(parent)])
    return found


def uses(tree: ast.Module, where: str, known: dict[str, type[ShepherdError]]) -> Iterator[Use]:
    for node in ast.walk(tree):
        at = f"{where}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.ClassDef) and node.name in known:
            for value in class_reasons(node):
                yield from told(value, at, known[node.name])
        elif isinstance(node, ast.Call):
            for value in (each.value for each in node.keywords if each.arg == "reason"):
                yield from told(value, at, known.get(named(node.func)))
        elif isinstance(node, ast.Tuple) and node.elts and named(node.elts[0]) in known:
            for value in node.elts[1:]:
                yield from told(value, at, known[named(node.elts[0])])


def class_reasons(node: ast.ClassDef) -> Iterator[ast.expr]:
    """What a class says of its `reason`."""
    for line in node.body:
        if isinstance(line, ast.Assign | ast.AnnAssign) and line.value:
            target = line.targets[0] if isinstance(line, ast.Assign) else line.target
            if named(target) == "reason":
                yield line.value


def told(value: ast.expr, where: str, kind: type[ShepherdError] | None) -> Iterator[Use]:
    if (reason := word(value)) is not None:
        yield Use(reason, where, kind)


def all_uses() -> list[Use]:
    known = kinds()
    return [use for where, tree in modules(*PACKAGES) for use in uses(tree, where, known)]


def conditions() -> set[str]:
    """The codes of what is refused, postponed or impossible in a cycle."""
    found = set[str | None]()
    for _, tree in modules("orchestrator"):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and named(node.func) in {"Refusal", "_cannot", "failed"}:
                found |= {word(argument) for argument in node.args[:2]}
            elif isinstance(node, ast.Tuple) and len(node.elts) == 3:
                found.add(word(node.elts[0]))
    return {each for each in found if each is not None}


def probe_words() -> set[str]:
    (tree,) = [tree for where, tree in modules("health_service") if where.endswith("/domain.py")]
    return {
        text
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name == "Reason"
        for line in node.body
        if isinstance(line, ast.Assign) and (text := word(line.value))
    }


def table(heading: str) -> list[list[str]]:
    """The rows of the first table beneath a heading of docs/errors.md, without backquotes."""
    text = (ROOT / "docs/errors.md").read_text()
    _, _, beneath = text.partition(f"\n## {heading}\n")
    assert beneath, f"docs/errors.md has no heading {heading!r}"
    section = beneath.partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip().strip("`") for cell in row] for row in rows[2:]]


REASONS = table("Reasons")
USES = all_uses()


@pytest.mark.parametrize("reason", sorted({use.reason for use in USES}))
def test_every_reason_of_the_code_is_in_the_table(reason: str) -> None:
    where = [use.where for use in USES if use.reason == reason]
    assert reason in {row[1] for row in REASONS}, f"docs/errors.md lacks {reason}: {where}"


def test_every_reason_of_the_table_is_in_the_code_and_stands_there_once() -> None:
    rows = [(row[0], row[1]) for row in REASONS]
    assert len(rows) == len(set(rows))
    assert {reason for _, reason in rows} <= {use.reason for use in USES}


@pytest.mark.parametrize("use", [use for use in USES if use.kind], ids=lambda use: use.reason)
def test_code_and_recovery_are_those_of_the_class_that_is_raised(use: Use) -> None:
    assert use.kind is not None
    told_of = [(row[0], row[2]) for row in REASONS if row[1] == use.reason]
    assert (use.kind.code.name, use.kind.then.name) in told_of, use.where


def test_only_what_may_be_repeated_unchanged_is_said_to_be() -> None:
    for code, reason, _, repeat, *_ in REASONS:
        by_itself = repeat.startswith("yes, by the channel")
        assert by_itself == (code == "UNAVAILABLE"), reason


def test_every_condition_of_a_preset_is_in_its_table() -> None:
    found = conditions()
    # The search finds what is known to be there: were it blind, nothing would fail.
    assert {"BREAKER_OPEN", "PAUSED", "TERMINATION_UNKNOWN", "NEVER_READ"} <= found
    assert {row[0] for row in table("Conditions of a preset")} == found


def test_every_word_of_a_probe_is_in_its_table() -> None:
    assert {"OK", "TIMEOUT", "CONTROL"} <= probe_words()
    assert {row[1] for row in table("Words of a probe")} == probe_words() | {"DUMMY"}
