"""The simulator itself: seeds that must hold, one trace a seed, and a predecessor that cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import predecessor, run
from tests.simulation.simulate import Course, simulate

# An hour of a suite takes half a minute of a machine that has time for it.
pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).resolve().parents[2]
_QUARTER = Course(hours=0.25)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_everything_holds_under_faults_and_converges_after_them(seed: int) -> None:
    verdict = simulate(seed, _QUARTER)
    assert verdict.is_clean, _told(verdict.lines, verdict.violations)
    assert verdict.faults > 10


@pytest.mark.parametrize("seed", run.corpus())
def test_a_seed_that_failed_once_holds(seed: int) -> None:
    verdict = simulate(seed)
    assert verdict.is_clean, _told(verdict.lines, verdict.violations)


def test_the_same_seed_gives_the_same_trace_in_two_processes() -> None:
    assert _digest(4, hash_seed="1") == _digest(4, hash_seed="2")


def test_other_seeds_give_other_traces() -> None:
    course = Course(hours=0.02)
    assert simulate(5, course).digest != simulate(6, course).digest


@pytest.mark.parametrize("seed", range(1, 21))
def test_the_predecessor_violates_in_every_seed(seed: int) -> None:
    verdict = simulate(seed, Course(patch=predecessor.instead))
    assert [each.invariant for each in verdict.violations][:1] == ["I2"]


def _digest(seed: int, *, hash_seed: str) -> str:
    code = (
        "from tests.simulation.simulate import Course, simulate;"
        f"print(simulate({seed}, Course(hours=0.1)).digest)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.strip()


def _told(lines: tuple[str, ...], violations: object) -> str:
    return "\n".join([*lines[-40:], str(violations)])
