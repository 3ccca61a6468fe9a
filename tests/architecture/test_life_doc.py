"""docs/life.md is complete: every status, reason and phase, every file of a cycle, and no key that
there is not.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from orchestrator.model import Check, Policy, Reason, VmStatus
from orchestrator.phases import Phase

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/life.md").read_text()
DIAGRAM = DOCUMENT.partition("```mermaid\n")[2].partition("```")[0]
# Keys of presets whose names in the code say something else.
RENAMED = {"count", "healthcheck", "replace", "on_stopped", "on_remove"}


def section(heading: str) -> str:
    """What stands beneath a heading."""
    return f"\n{DOCUMENT}".partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def column(heading: str) -> set[str]:
    """The names in the first column of the table beneath a heading."""
    return set(re.findall(r"^\| `(\w+)` \|", section(heading), re.MULTILINE))


def test_every_status_of_a_vm_is_in_the_table_and_in_the_diagram() -> None:
    statuses = {each.name for each in VmStatus}
    assert column("What a VM is") == statuses
    ends = re.findall(r"^ +(\S+) --> ([\w\[\]*]+)", DIAGRAM, re.MULTILINE)
    assert {name for pair in ends for name in pair} == statuses | {"[*]"}


def test_every_reason_to_destroy_a_vm_is_in_the_table() -> None:
    assert column("Why a VM goes") == {each.name for each in Reason}


def test_every_phase_of_a_preset_is_in_the_table() -> None:
    assert column("The life of a preset") == {each.name for each in Phase}


def test_every_file_of_a_cycle_is_there_and_all_that_decide_names_are_told_of() -> None:
    told = set(re.findall(r"`(\w+)\.py`", section("What one cycle does")))
    there = {path.stem for path in (ROOT / "orchestrator").glob("*.py")}
    assert told <= there
    docstring = (ROOT / "orchestrator/decide.py").read_text().split('"""')[1]
    named = set(re.findall(r"`(\w+)`", docstring)) & there
    assert named - {"clauses"} <= told


def test_every_key_that_governs_a_step_is_one_of_a_preset() -> None:
    rows = [line for line in section("How it becomes something else").splitlines() if "→" in line]
    named = {key for row in rows for key in re.findall(r"`([a-z_]+)`", row.split("|")[3])}
    known = {each.name for each in (*fields(Policy), *fields(Check))} | RENAMED
    assert named
    assert named - known == set()
