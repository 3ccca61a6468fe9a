"""`python bench/locks.py`: what it prints, and when it says that something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.locks import complaints, figures
from bench.locks_churn import Report
from bench.locks_judge import Findings

ROOT = Path(__file__).parents[2]
CLEAN = Findings(overlaps=(), token_regressions=(), stale_writes=(), state_regressions=())
GOOD = Report(
    stage="a stage", seconds=600, grants=10_000, findings=CLEAN, incidents=[], longest_pause=2
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "bench" / "locks.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


def test_a_run_without_a_fault_is_not_complained_of() -> None:
    assert complaints([GOOD]) == []


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (replace(GOOD, findings=replace(CLEAN, overlaps=("two",))), "a stage: two"),
        (replace(GOOD, findings=replace(CLEAN, token_regressions=("back",))), "a stage: back"),
        (replace(GOOD, findings=replace(CLEAN, stale_writes=("late",))), "a stage: late"),
        (replace(GOOD, findings=replace(CLEAN, state_regressions=("gone",))), "a stage: gone"),
        (replace(GOOD, incidents=["a bug"]), "a stage: a bug"),
        (replace(GOOD, grants=9_999), "only 9999 grants in 600 s: 10000 are the least"),
        (replace(GOOD, grants=0, seconds=5), "only 0 grants in 5 s: 1 are the least"),
    ],
)
def test_whatever_is_wrong_is_complained_of(report: Report, words: str) -> None:
    assert complaints([report]) == [words]


def test_the_figures_are_those_of_all_stages_together() -> None:
    other = replace(GOOD, longest_pause=7, findings=replace(CLEAN, overlaps=("a", "b")))
    found = figures([GOOD, other])
    assert (found["grants"], found["overlaps"], found["stale_writes"]) == (20_000, 2, 0)
    assert (found["longest_pause_seconds"], found["grants_per_second"]) == (7, 16.7)


@pytest.mark.e2e
def test_the_command_prints_one_object_and_ends_with_0_when_all_is_well() -> None:
    done = run("--driver", "memory", "--seconds", "3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["grants"] > 0
    wrong = ("overlaps", "token_regressions", "stale_writes", "state_regressions", "incidents")
    assert {found[name] for name in wrong} == {0}


@pytest.mark.e2e
def test_kills_of_another_driver_than_sqlite_are_refused_with_the_reason() -> None:
    done = run("--driver", "memory", "--kills", "3")
    assert done.returncode == 2
    assert "--kills is for sqlite" in done.stderr
