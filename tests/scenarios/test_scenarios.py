"""Whole lives of a preset as golden text: what happens to it, and what is done about it.

A scenario is a text file beside this one. Lines at the margin are the script, in the words of
`language`; indented ones tell what followed from it, and leave out a cycle like the one before.
After a change that is meant, write them anew and read the difference:
VMSHEPHERD_REWRITE_SCENARIOS=1 pytest tests/scenarios
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.model import Plan, PresetName, Removal
from tests.scenarios.language import given, happen, time
from tests.scenarios.telling import Summary, Teller
from tests.support.given import NOW
from tests.support.world import World

SCENARIOS = sorted(Path(__file__).parent.glob("*.txt"))
LONGEST = timedelta(hours=3)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_life_goes_as_it_is_told(path: Path) -> None:
    script = [line for line in path.read_text().splitlines() if not line.startswith("  ")]
    told = "\n".join(Life().tell(script)) + "\n"
    if os.environ.get("VMSHEPHERD_REWRITE_SCENARIOS") == "1":
        path.write_text(told)
    assert path.read_text() == told


def test_each_scenario_says_first_what_it_shows() -> None:
    assert all(path.read_text().startswith("# ") for path in SCENARIOS)


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 12


@dataclass
class Life:
    """The life of a preset, and of a second one where the first is renamed."""

    worlds: dict[str, World] = field(default_factory=dict)
    tellers: dict[str, Teller] = field(default_factory=dict)

    def tell(self, script: list[str]) -> Iterator[str]:
        """The script, and what followed from each line of it."""
        for line in script:
            yield line
            if line.startswith("given "):
                self._add("web", given(line.removeprefix("given ")))
            elif match := re.fullmatch(r"when the preset is renamed to (\w+)", line):
                self._rename(match[1])
            elif line.startswith("when "):
                happen(next(reversed(self.worlds.values())), line.removeprefix("when "))
            elif line.startswith(("for ", "until ")):
                yield from self._go_on(line)
            elif line and not line.startswith("#"):
                raise ValueError(f"not a line of a scenario: {line}")

    def _add(self, name: str, world: World) -> None:
        self.worlds[name] = world
        self.tellers = {
            name: Teller(f"{name}: " if len(self.worlds) > 1 else "") for name in self.worlds
        }

    def _rename(self, name: str) -> None:
        """To the source, one preset is gone and another one is there."""
        old = next(iter(self.worlds.values()))
        old.removal = Removal(since=old.now)
        spec = replace(old.spec, name=PresetName(name))
        self._add(name, World(spec=spec, now=old.now, step=old.step))

    def _go_on(self, line: str) -> Iterator[str]:
        length = line.removesuffix(", in short")
        if length == line:
            for at, name, plan in self._cycles(length):
                yield from self.tellers[name].tell(at, plan, self.worlds[name].spec)
            return
        summaries = {name: Summary(teller.name) for name, teller in self.tellers.items()}
        for at, name, plan in self._cycles(length):
            summaries[name].add(at, plan, self.worlds[name].spec)
        for each in summaries.values():
            yield from each.tell()

    def _cycles(self, length: str) -> Iterator[tuple[timedelta, str, Plan]]:
        first = next(iter(self.worlds.values()))
        started, is_settled = first.now, False
        while not _is_over(length, first.now - started, is_settled=is_settled):
            at = first.now - NOW
            plans = {name: world.cycle() for name, world in self.worlds.items()}
            yield from ((at, name, plan) for name, plan in plans.items())
            is_settled = all(plan.is_settled for plan in plans.values())


def _is_over(length: str, lasted: timedelta, *, is_settled: bool) -> bool:
    if length == "until settled":
        if lasted > LONGEST and not is_settled:
            raise ValueError(f"not settled after {lasted}")
        return is_settled
    match = re.fullmatch(r"for (\d+) (s|min|h)", length)
    if match is None:
        raise ValueError(f"not a length of time: {length}")
    return lasted >= time(*match.groups())
