"""Whole lives of a preset as golden text: what happens to it, and what is done about it.

A scenario is a text file beside this one. Lines at the margin are the script, indented ones what
followed from it; a cycle like the one before is left out. After a change that is meant, write them
anew and read the difference: VMSHEPHERD_REWRITE_SCENARIOS=1 pytest tests/scenarios
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.model import (
    Check,
    Pause,
    Plan,
    Policy,
    PresetName,
    Process,
    Spec,
    TerminationWish,
    VmId,
    VmState,
    Wishes,
)
from tests.support.given import NOW, SPEC, seconds
from tests.support.world import Body, World

SCENARIOS = sorted(Path(__file__).parent.glob("*.txt"))
SETTLING_CYCLES = 300

Action = Callable[..., object]


def _body(**facts: object) -> Action:
    def action(world: World, name: str) -> None:
        for fact, value in facts.items():
            setattr(world.body(name), fact, value)

    return action


def _world(**facts: object) -> Action:
    def action(world: World) -> None:
        for fact, value in facts.items():
            setattr(world, fact, value)

    return action


def _shuts_down(world: World, name: str, minutes: str) -> None:
    named: list[Body] = world.bodies if name == "every VM" else [world.body(name)]
    for body in named:
        body.shutdown_at = world.now + timedelta(minutes=int(minutes))


def _count(world: World, count: str) -> None:
    world.spec = replace(world.spec, count=int(count))


def _approve(world: World, count: str) -> None:
    world.wishes = replace(world.wishes, approved_count=int(count))


def _wish(world: World, name: str) -> None:
    wish = TerminationWish(vm_id=VmId(name), actor="ann", reason="it smells")
    world.wishes = replace(world.wishes, terminations=(wish,))


def _pause(world: World, process: str) -> None:
    pause = Pause(processes=frozenset({Process[process.upper()]}), actor="ann", reason="disk work")
    world.wishes = replace(world.wishes, pause=pause)


def _quota(world: World, quota: str) -> None:
    world.room.quota = int(quota)


def _create_fault(world: World, fault: str) -> None:
    world.create_faults.append(fault)


def _terminate_fault(world: World, fault: str) -> None:
    world.terminate_faults.append(fault)


def _clock(world: World, hours: str) -> None:
    world.behind = timedelta(hours=int(hours))


_VM = r"(vm-\d+)"
WHEN: dict[str, Action] = {
    rf"{_VM} dies": lambda world, name: world.kill(name),
    rf"{_VM} fails in the cloud": lambda world, name: world.kill(name, VmState.ERROR),
    rf"{_VM} vanishes": lambda world, name: world.vanish(name),
    rf"{_VM} hangs": _body(is_hung=True),
    rf"{_VM} answers again": _body(is_hung=False),
    rf"{_VM} is stopped": _body(state=VmState.STOPPED),
    rf"{_VM} is started": _body(state=VmState.RUNNING),
    rf"{_VM} cannot be deleted": _body(undeletable="refused"),
    rf"{_VM} ignores its deletion": _body(undeletable="ignored"),
    rf"{_VM} can be deleted": _body(undeletable=""),
    rf"({_VM[1:-1]}|every VM) announces its shutdown in (\d+) min": _shuts_down,
    r"the count is (\d+)": _count,
    r"(?:ann )?approves (\d+)": _approve,
    rf"ann wants {_VM} gone": _wish,
    r"ann pauses (\w+)": _pause,
    r"ann resumes all": _world(wishes=Wishes()),
    r"the quota is (\d+)": _quota,
    r"the next create is answered by: (.+)": _create_fault,
    r"the next termination is answered by: (.+)": _terminate_fault,
    r"the prober is blind": _world(is_blind=True),
    r"the prober sees": _world(is_blind=False, is_prober_down=False),
    r"the prober is down": _world(is_prober_down=True),
    r"the listing is not whole": _world(is_listing_whole=False),
    r"the listing is whole": _world(is_listing_whole=True),
    r"the image is bad": _world(is_stillborn=True),
    r"the image is good": _world(is_stillborn=False),
    r"another holder takes over": lambda world: world.restart(),
    r"the clock is set back by (\d+) h": _clock,
}


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_life_goes_as_it_is_told(path: Path) -> None:
    script = [line for line in path.read_text().splitlines() if not line.startswith("  ")]
    told = "\n".join(_tell(script)) + "\n"
    if os.environ.get("VMSHEPHERD_REWRITE_SCENARIOS") == "1":
        path.write_text(told)
    assert path.read_text() == told


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 12


def _tell(script: list[str]) -> Iterator[str]:
    world, before = World(spec=_spec("count 0")), ""
    for line in script:
        yield line
        if line.startswith("given "):
            world = _given(line.removeprefix("given "))
        elif line.startswith("when "):
            _happen(world, line.removeprefix("when "))
        elif line.startswith(("for ", "until ")):
            for at, plan in _cycles(world, line):
                now = _lines(plan)
                if now != before:
                    yield from _stamped(at, now)
                before = now
        elif line and not line.startswith("#"):
            raise ValueError(f"not a line of a scenario: {line}")


def _cycles(world: World, line: str) -> Iterator[tuple[timedelta, Plan]]:
    if line == "until settled":
        for _ in range(SETTLING_CYCLES):
            at = world.now - NOW
            plan = world.cycle()
            yield at, plan
            if plan.is_settled:
                return
        raise ValueError(f"not settled after {SETTLING_CYCLES} cycles")
    length = re.fullmatch(r"for (\d+) (s|min)", line)
    if length is None:
        raise ValueError(f"not a length of time: {line}")
    end = world.now + seconds(int(length[1]) * (60 if length[2] == "min" else 1))
    while world.now < end:
        yield world.now - NOW, world.cycle()


def _given(words: str) -> World:
    facts = words.split(", ")
    world = World(spec=_spec(words), idempotent="a cloud without request ids" not in facts)
    for fact in facts:
        if length := re.fullmatch(r"a cycle every (\d+) s", fact):
            world.step = seconds(int(length[1]))
    return world


def _spec(words: str) -> Spec:
    numbers = {name: int(number) for name, number in re.findall(r"(\w+) (\d+)", words)}
    return Spec(
        name=PresetName("web"),
        count=numbers["count"],
        spec_hash=SPEC,
        check=Check() if "a check" in words else None,
        policy=Policy(
            max_surge=numbers.get("max_surge", 1),
            max_unavailable=numbers.get("max_unavailable", 1),
        ),
    )


def _happen(world: World, words: str) -> None:
    for pattern, action in WHEN.items():
        if match := re.fullmatch(pattern, words):
            action(world, *match.groups())
            return
    raise ValueError(f"nothing of the kind can happen: {words}")


def _lines(plan: Plan) -> str:
    group = Counter(each.status.name for each in plan.judged)
    state = ", ".join(f"{number} {status}" for status, number in sorted(group.items()))
    lines = [f"{state or 'nothing'}{': settled' if plan.is_settled else ''}"]
    creates = Counter((step.reason, step.evidence) for step in plan.creates)
    lines += [f"create {number} ({why}): {words}" for (why, words), number in creates.items()]
    lines += [
        f"terminate {step.vm.vm_id} ({step.reason.name}): {step.evidence}"
        for step in plan.terminations
    ]
    lines += [f"not more: {each.code}: {each.message}" for each in plan.refusals]
    return "\n".join(lines)


def _stamped(at: timedelta, lines: str) -> Iterator[str]:
    first, *rest = lines.splitlines()
    minutes, rest_seconds = divmod(int(at.total_seconds()), 60)
    yield f"  {minutes:02d}:{rest_seconds:02d}  {first}"
    for line in rest:
        yield f"         {line}"
