from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import orchestrator
from orchestrator.clauses import _CLAUSES, clause_for, clause_of, reason_of
from orchestrator.model import (
    Create,
    Intent,
    Keep,
    Method,
    Reason,
    Repair,
    RequestId,
    Step,
    Terminate,
)
from tests.support.given import vm

FOLDER = Path(orchestrator.__file__).parent
ROOT = FOLDER.parent
WORD = re.compile(r"[A-Z]+(_[A-Z]+)*")
# Words that a step shows for what has a word of its own: a VM is kept by another rule than the one
# that it failed by.
_SHOWN_BY_VIEWS = {"KEPT_FOR_STUDY"}
# What only the shell says, and what no key of a preset could change.
_WITHOUT_CLAUSE = {"NEVER_READ", "INTERNAL"}


def words() -> set[str]:
    """The codes of refusals, the reasons of creates, and all members of the enums."""
    found = {each.name for each in (*Reason, *Method)}
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            found |= set(_said(node))
    return found - _WITHOUT_CLAUSE


def _said(node: ast.AST) -> Iterator[str]:
    values: list[ast.expr] = []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        values = node.args[:2] if node.func.id in {"Refusal", "Create"} else []
    elif isinstance(node, ast.Tuple) and len(node.elts) == 3:
        values = node.elts[:1]
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
        values = node.value.elts[:1]
    for value in values:
        word = str(value.value) if isinstance(value, ast.Constant) else ""
        # Kinds of events are no words of plans.
        if WORD.fullmatch(word) and not word.startswith("VM_"):
            yield word


def test_the_search_finds_what_is_known_to_be_there() -> None:
    assert {"BUDGET_SPENT", "MISSING", "REPLACEMENT", "REPEAT", "PARKED", "REBOOT"} <= words()


def test_every_word_of_a_plan_has_its_clause() -> None:
    assert {word for word in words() if not clause_of(word)} == set()


def test_no_clause_is_about_a_word_that_nobody_says() -> None:
    assert set(_CLAUSES) - words() - _SHOWN_BY_VIEWS == set()


def test_what_the_cloud_the_store_or_a_service_says_has_none() -> None:
    assert clause_of("QUOTA_EXCEEDED") == ""


def test_every_key_that_a_clause_names_is_documented() -> None:
    keys = {
        key.rpartition(".")[2]
        for clause in _CLAUSES.values()
        if not clause.startswith("rule: ")
        for key in clause.split(", ")
    }
    documents = [ROOT / "docs/presets.md", ROOT / "docs/configuration.md"]
    text = "\n".join(document.read_text() for document in documents)
    assert {key for key in keys if key not in text} == set()


A = vm("a")


@pytest.mark.parametrize(
    ("step", "reason", "clause"),
    [
        (
            Create(Intent(request_id=RequestId("r"), name="a", spec_hash="s"), "MISSING", ""),
            "MISSING",
            "count",
        ),
        (
            Terminate(vm=A, reason=Reason.BOOT_TIMEOUT, evidence=""),
            "BOOT_TIMEOUT",
            "policy.boot_timeout",
        ),
        (
            Keep(vm=A, reason=Reason.BOOT_TIMEOUT, evidence=""),
            "BOOT_TIMEOUT",
            "policy.keep_failed, policy.keep_failed_time",
        ),
        (Repair(vm=A, method=Method.REBUILD, evidence=""), "UNHEALTHY", "policy.rebuilds"),
    ],
)
def test_a_step_tells_its_reason_and_the_clause_that_decided(
    step: Step, reason: str, clause: str
) -> None:
    assert (reason_of(step), clause_for(step)) == (reason, clause)
