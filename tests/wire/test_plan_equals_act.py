"""What PlanPreset says is what the next cycle does, no more and no less: over random lives of
presets, through the real cycle and servicer, as the cloud and the journal have it.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.act import act
from orchestrator.hands import Order
from orchestrator.model import Create, Observation, Plan, PresetName, Terminate
from orchestrator.model import Reason as Why
from tests.support.suite import QUICK, Place, Replica, place
from tests.wire.fortunes import Fortunes, StandingClock
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd.runtime.v1.event_pb2 import Event
from vmshepherd_kit.errors import ShepherdError

SEEDS = range(3)
ROUNDS = 14
LEAST_VARIETY = 12
# The longest time from a plan to the cycle that it is compared with.
BETWEEN = timedelta(seconds=10)
PRESETS = ["cache", "mail", "queue", "web", "worker"]
ACTIONS = {
    "VM_CREATING": view.STEP_ACTION_CREATE,
    "VM_TERMINATING": view.STEP_ACTION_TERMINATE,
    "VM_REBOOTING": view.STEP_ACTION_REBOOT,
    "VM_REBUILDING": view.STEP_ACTION_REBUILD,
    "VM_KEPT": view.STEP_ACTION_KEEP,
}
DONE = {
    "VM_CREATED": "create",
    "VM_TERMINATED": "terminate",
    "VM_REBOOTED": "reboot",
    "VM_REBUILT": "rebuild",
}
FAILED = {"CREATE_FAILED", "CREATE_UNKNOWN", "TERMINATE_FAILED", "REPAIR_FAILED"}
LONG_SESSION = {
    "ttl": "5m",
    "refresh": "5s",
    "rpc_timeout": "20s",
    "margin": "5s",
    "lock_delay": "0s",
}


# A breaker over all presets: each replica knows of those alone that it holds.
NEVER = {"count": 1_000_000}


@dataclass
class Told:
    """A plan, and what the cycle after it has done."""

    plan: view.Plan
    events: list[Event]
    made: set[str]
    gone: set[str]
    calls: Counter[str]
    shown: view.PresetView
    # Names of VMs follow from the holder's token: whoever has none cannot tell them.
    is_held: bool = True

    def check(self) -> None:
        """Every step, and no other."""
        planned = self._lines(map(_of_plan, self.plan.steps))
        done = self._lines(_of_event(each) for each in self.events if each.kind in ACTIONS)
        if self._has_failed_to_create():
            # A create that fails ends the creates: those behind it were not tried.
            assert Counter(done) <= Counter(planned)
            planned, done = _without_creates(planned), _without_creates(done)
        assert done == planned
        self._check_cloud()
        if not FAILED & {each.kind for each in self.events}:
            self._check_refusals()

    def _lines(self, lines: Iterable[Line]) -> list[Line]:
        return sorted(lines if self.is_held else map(_nameless, lines))

    def _check_cloud(self) -> None:
        """The cloud was asked for what was planned, and for nothing else."""
        steps = Counter(each.action for each in self.plan.steps)
        did = Counter(DONE[each.kind] for each in self.events if each.kind in DONE)
        for call in DONE.values():
            allowed = steps[view.StepAction.Value(f"STEP_ACTION_{call.upper()}")]
            assert did[call] <= allowed
            assert self.calls[call] <= allowed
        ends = {e.vm_id for e in self.plan.steps if e.action == view.STEP_ACTION_TERMINATE}
        assert self.gone == {e.vm_id for e in self.events if e.kind == "VM_TERMINATED"} & self.gone
        assert self.gone <= ends
        assert len(self.made) <= steps[view.STEP_ACTION_CREATE]
        if self.is_held:
            assert self.made <= {_name_of(step) for step in self.plan.steps}

    def _check_refusals(self) -> None:
        """What it says is not done, and why not, stands at the preset afterwards."""
        planned = {each.code: (each.message, each.clause) for each in self.plan.refusals}
        shown = {each.code: (each.message, each.clause) for each in self.shown.conditions}
        assert shown == planned
        look = self.shown.next_cycle_time.ToDatetime() - self.shown.last_cycle_time.ToDatetime()
        said = self.plan.next_look.ToTimedelta()
        # A grace is counted by the clock that runs, and some of it runs off between the two.
        least = said - BETWEEN if "PRESET_REMOVED" in planned else said
        assert least <= look <= said

    def _has_failed_to_create(self) -> bool:
        return bool({"CREATE_FAILED", "CREATE_UNKNOWN"} & {each.kind for each in self.events})


Line = tuple[int, str, str, str, str]


def _of_plan(step: view.PlanStep) -> Line:
    return step.action, step.vm_id, step.reason, step.evidence, step.clause


def _of_event(event: Event) -> Line:
    evidence = event.evidence.get("evidence", "")
    if event.kind == "VM_CREATING":
        named, why = event.message.removeprefix("creating ").split(": ", 1)
        parts = [f"{what} {event.evidence[what]}" for what in _PLACE if what in event.evidence]
        evidence = f"{named}{' (' + ', '.join(parts) + ')' if parts else ''}: {why}"
    return ACTIONS[event.kind], event.vm_id, event.reason, evidence, event.evidence["clause"]


_PLACE = ("image", "flavor", "zone")
# What of a name is unique.
_IDENTITY = re.compile("-[0-9a-f]{8}")


def _nameless(line: Line) -> Line:
    return *line[:3], _IDENTITY.sub("-", line[3], count=1), line[4]


def _nameless_plan(plan: view.Plan) -> tuple[list[Line], list[str]]:
    steps = sorted(_nameless(_of_plan(step)) for step in plan.steps)
    return steps, [f"{each.code} {each.message}" for each in plan.refusals]


def _without_creates(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line[0] != view.STEP_ACTION_CREATE]


def _name_of(step: view.PlanStep) -> str:
    return step.evidence.split(":")[0].split(" ")[0].rstrip(",")


@asynccontextmanager
async def lives(folder: Path, seed: int, **config: Any) -> AsyncIterator[Fortunes]:
    """A suite in which time stands, and no cycle runs but those that a test runs."""
    clock = StandingClock()
    async with place(folder, clock=clock, boot_time="5s", terminate_time="0s") as here:
        replica = await here.replica(session=LONG_SESSION, **config)
        still(replica)
        found = Fortunes(here, replica, clock, random.Random(seed), PRESETS)
        await found.begin()
        yield found


def still(replica: Replica) -> None:
    """Let nothing but a test look at presets."""

    async def nothing(_: PresetName) -> timedelta:
        return timedelta(hours=1)

    replica.parts.schedule._run = nothing


async def plan_of(replica: Replica, name: str) -> view.Plan:
    """Its plan for the preset."""
    plan: view.Plan = (await replica.ask("PlanPreset", preset=name)).plan
    return plan


async def told(found: Fortunes, name: str) -> Told | None:
    """Plan, then one cycle; None when there is nothing to plan, and nothing is done."""
    here, replica = found.here, found.replica
    is_held = replica.parts.cycles.authority.token(name) is not None
    before, calls, names = len(await here.events()), here.clouds["sim"].calls.copy(), _there(here)
    try:
        plan: view.Plan | None = await plan_of(replica, name)
    except ShepherdError as e:
        found.story.append(f"{name}: no plan: {e.message}")
        plan = None
    assert len(await here.events()) == before
    calls += Counter(list=here.clouds["sim"].calls["list"] - calls["list"])
    await replica.parts.cycles.run(PresetName(name))
    events = (await here.events())[before:]
    after = _there(here)
    if plan is None:
        assert names == after
        return None
    shown = replica.parts.cycles.board.get(PresetName(name))
    if shown is None:
        # Nothing is left of it, so nothing is shown.
        assert not plan.steps
        return None
    seen = Told(
        plan=plan,
        events=events,
        made={after[vm_id] for vm_id in after.keys() - names.keys()},
        gone=set(names.keys() - after.keys()),
        calls=here.clouds["sim"].calls - calls,
        shown=await replica.preset(name),
        is_held=is_held,
    )
    found.story += [f"{name}: {view.StepAction.Name(s.action)} {s.reason}" for s in plan.steps]
    return seen


def _there(here: Place) -> dict[str, str]:
    return {str(vm.vm_id): vm.name for vm in here.world.vms}


async def check_life(found: Fortunes) -> Counter[str]:
    """Live through it; how often each step and refusal was there."""
    seen = Counter[str]()
    for _ in range(ROUNDS):
        await found.go_on()
        for name in found.names:
            each = await told(found, name)
            if each is not None:
                each.check()
                seen.update(f"{s.action}/{s.reason}" for s in each.plan.steps)
                seen.update(r.code for r in each.plan.refusals)
    return seen


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_next_cycle_does_what_the_plan_says_and_nothing_else(
    tmp_path: Path, seed: int
) -> None:
    async with lives(tmp_path, seed) as found:
        try:
            seen = await check_life(found)
        finally:
            # Shown when it fails, and told from the seed alone.
            print("\n".join(found.story))  # noqa: T201
    # Lives in which nothing happens prove nothing.
    assert len(seen) >= LEAST_VARIETY, seen


async def test_a_replica_that_does_not_hold_a_preset_plans_the_same_but_for_names(
    tmp_path: Path,
) -> None:
    async with lives(tmp_path, SEEDS[0], breaker=NEVER) as found:
        other = await found.here.replica(session=LONG_SESSION, breaker=NEVER)
        still(other)
        steps = 0
        for _ in range(ROUNDS):
            await found.go_on()
            await found.is_known_to(other)
            for name in found.names:
                if await told(found, name) is None:
                    continue
                plans = [await plan_of(each, name) for each in (found.replica, other)]
                mine, theirs = (_nameless_plan(plan) for plan in plans)
                assert mine == theirs
                steps += len(mine)
    assert steps


Change = Callable[[Observation, Plan], Plan]


def a_step_less(_: Observation, plan: Plan) -> Plan:
    return replace(plan, steps=plan.steps[:-1])


def a_step_more(seen: Observation, plan: Plan) -> Plan:
    touched = {step.vm.vm_id for step in plan.terminations}
    more = [
        Terminate(vm=vm, reason=Why.SURPLUS, evidence="for no reason")
        for vm in seen.vms
        if vm.vm_id not in touched
    ]
    return replace(plan, steps=(*plan.steps, *more[:1]))


def on_other_evidence(_: Observation, plan: Plan) -> Plan:
    steps = tuple(replace(step, evidence="a hunch") for step in plan.steps)
    return replace(plan, steps=steps)


def under_another_name(_: Observation, plan: Plan) -> Plan:
    steps = tuple(
        replace(step, intent=replace(step.intent, name=f"{step.intent.name}x"))
        if isinstance(step, Create)
        else step
        for step in plan.steps
    )
    return replace(plan, steps=steps)


@pytest.mark.parametrize(
    "change", [a_step_less, a_step_more, on_other_evidence, under_another_name]
)
async def test_a_cycle_that_does_something_else_than_planned_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    async def other_act(order: Order, *rest: Any) -> Any:
        return await act(replace(order, plan=change(order.seen, order.plan)), *rest)

    async with lives(tmp_path, SEEDS[0]) as found:
        for name in found.names:
            # Held, and with VMs, before it goes wrong.
            await told(found, name)
        monkeypatch.setattr("orchestrator.cycle.act", other_act)
        with pytest.raises(AssertionError, match="assert"):
            await check_life(found)


async def test_an_approval_from_before_a_removal_is_no_part_of_the_plan_either(
    tmp_path: Path,
) -> None:
    async with lives(tmp_path, SEEDS[0]) as found:
        keys = {"count": 5, "flavor": "small", "healthcheck": QUICK}
        found.files["web"] = keys
        await found.published()
        await told(found, "web")
        del found.files["web"]
        await found.go_on()
        await told(found, "web")
        approving: dict[str, Any] = {"presets": ["web"], "approve_count": True, "actor": "ann"}
        await found.replica.ask("ReconcilePreset", **approving)
        found.files["web"] = {**keys, "count": 0}
        await found.published()
        back = await told(found, "web")
        assert back is not None
        back.check()
        assert "COUNT_NEEDS_APPROVAL" in {each.code for each in back.plan.refusals}
        assert not back.plan.steps


async def test_a_removed_preset_is_looked_at_when_its_grace_is_over_and_no_later(
    tmp_path: Path,
) -> None:
    async with lives(tmp_path, SEEDS[0]) as found:
        policy = {"on_remove": "delete", "removal_grace": "40s"}
        found.files["web"] = {"count": 1, "flavor": "small", "policy": policy}
        await found.published()
        await told(found, "web")
        del found.files["web"]
        await found.published()
        looks = list[timedelta]()
        for _ in range(2):
            each = await told(found, "web")
            assert each is not None
            each.check()
            looks.append(each.plan.next_look.ToTimedelta())
            # A date that is set, and nothing that was waited.
            found.clock.now += timedelta(seconds=30)
        assert timedelta(seconds=40) >= looks[0] > looks[1] > timedelta(seconds=10)
