"""The admin API over real gRPC, with every service and a simulated cloud behind it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.gate import Gate
from tests.support.suite import QUICK, Place, Replica, place, until
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd_kit import dial
from vmshepherd_kit.errors import BadRequest, NotFound, Refused, Unavailable

STEADY = view.PRESET_PHASE_STEADY


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as found:
        yield found


async def settled(here: Place, count: int = 2, **keys: Any) -> Replica:
    here.declare(count=count, **keys)
    replica = await here.replica()
    await replica.settled()
    return replica


async def test_a_declared_preset_is_made_and_shown(here: Place) -> None:
    replica = await settled(here, count=3)
    seen = await replica.preset()
    assert here.alive() == 3
    assert seen.vms_by_status == {"RUNNING": 3}
    assert seen.owner == replica.parts.informant.owner
    assert seen.fencing_token > 0
    [found] = (await replica.ask("ListPresets")).presets
    assert found.name == "web"
    assert found.count == 3


async def test_an_unknown_preset_is_told_with_the_nearest_known(here: Place) -> None:
    replica = await settled(here)
    for method in ("GetPreset", "PlanPreset"):
        with pytest.raises(NotFound, match="did you mean 'web'"):
            await replica.ask(method, preset="wbe")
    with pytest.raises(NotFound, match="did you mean 'web'"):
        await replica.ask("PausePreset", preset="wbe", actor="anna")
    answer = await replica.ask("ReconcilePreset", presets=["wbe", "web"], wait=True)
    assert [result.status.code for result in answer.results] == [5, 0]


async def test_presets_that_are_not_known_yet_are_not_said_to_be_unknown(here: Place) -> None:
    here.declare(count=1)
    replica = await here.replica(is_blind=True)
    with pytest.raises(Unavailable, match="not every source has been read"):
        await replica.ask("GetPreset", preset="web")
    replica.gates["preset"].let_in()
    await replica.becomes("web", lambda seen: seen.phase == STEADY)


@pytest.mark.parametrize(
    ("method", "fields", "field"),
    [
        ("GetPreset", {}, "preset"),
        ("PlanPreset", {}, "preset"),
        ("PausePreset", {"actor": "anna"}, "preset"),
        ("PausePreset", {"preset": "web"}, "actor"),
        ("PausePreset", {"preset": "web", "actor": "anna", "processes": [0]}, "processes"),
        ("PausePreset", {"preset": "web", "actor": "anna", "processes": [99]}, "processes"),
        ("PausePreset", {"preset": "web", "actor": "a" * 300}, "actor"),
        ("PausePreset", {"preset": "web", "actor": "anna", "reason": "r" * 2000}, "reason"),
        ("PausePreset", {"preset": "web", "actor": "a", "duration": timedelta(0)}, "duration"),
        ("PausePreset", {"preset": "web", "actor": "a", "duration": timedelta(9e6)}, "duration"),
        ("ResumePreset", {"preset": "web"}, "actor"),
        ("TerminateVm", {"preset": "web", "actor": "anna"}, "vm_id"),
        ("TerminateVm", {"preset": "web", "vm_id": "x"}, "actor"),
        ("GetVm", {}, "vm_id"),
        ("ExplainVm", {}, "vm_id"),
        ("ReconcilePreset", {"approve_count": True, "actor": "anna"}, "approve_count"),
        ("ReconcilePreset", {"approve_count": True, "presets": ["web"]}, "actor"),
        ("ReconcilePreset", {"presets": ["web"] * 10_001}, "presets"),
        ("ListVms", {"page_size": -1}, "page_size"),
    ],
)
async def test_what_is_missing_or_wrong_is_named(
    here: Place, method: str, fields: dict[str, Any], field: str
) -> None:
    here.declare(count=0)
    replica = await here.replica()
    await replica.settled()
    with pytest.raises(BadRequest) as caught:
        await replica.ask(method, **fields)
    assert [each.field for each in caught.value.violations] == [field]
    assert not (await replica.preset()).HasField("pause")


async def test_a_page_token_of_nobody_is_refused(here: Place) -> None:
    replica = await settled(here)
    for method in ("ListPresets", "ListVms", "ListEvents"):
        with pytest.raises(BadRequest):
            await replica.ask(method, page_token="made-up")


async def test_many_presets_are_listed_page_by_page_each_once(here: Place) -> None:
    names = [f"preset-{number:03}" for number in range(250)]
    for name in names:
        here.declare(name, count=0)
    replica = await here.replica()
    await replica.settled(names[-1])
    found, token = list[str](), ""
    while True:
        answer = await replica.ask("ListPresets", page_size=100, page_token=token)
        found += [each.name for each in answer.presets]
        token = answer.next_page_token
        if not token:
            break
    assert found == names


async def test_vms_are_listed_in_order_of_preset_and_id_each_once(here: Place) -> None:
    # Sorted as text with a separator, "web-2/…" would come before "web/…".
    for name in ("web", "web-2", "web.3", "a"):
        here.declare(name, count=2)
    replica = await here.replica()
    for name in ("web", "web-2", "web.3", "a"):
        await replica.settled(name)
    found, token = list[tuple[str, str]](), ""
    while True:
        answer = await replica.ask("ListVms", page_size=1, page_token=token)
        found += [(each.preset, each.vm_id) for each in answer.vms]
        token = answer.next_page_token
        if not token:
            break
    assert found == sorted(found)
    assert len(set(found)) == 8
    running = await replica.ask("ListVms", preset="web", statuses=[view.VM_STATUS_RUNNING])
    assert len(running.vms) == 2
    assert not (await replica.ask("ListVms", statuses=[view.VM_STATUS_ERROR])).vms


async def test_a_paused_preset_is_left_alone_and_says_by_whom(here: Place) -> None:
    replica = await settled(here)
    asked: dict[str, Any] = {"preset": "web", "actor": "anna", "reason": "a trial"}
    pause = (await replica.ask("PausePreset", **asked)).pause
    here.declare(count=4)
    seen = await replica.becomes("web", lambda seen: seen.count == 4 and seen.HasField("pause"))
    assert (await replica.look("web"))["web"].phase == view.PRESET_PHASE_PAUSED
    assert seen.pause == pause
    assert seen.pause.actor == "anna"
    assert here.alive() == 2
    assert (await replica.ask("ResumePreset", preset="web", actor="bert")).was_paused
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 4})
    assert not (await replica.preset()).HasField("pause")
    assert not (await replica.ask("ResumePreset", preset="web", actor="bert")).was_paused
    told = {each.kind: each.actor for each in await here.events(preset="web")}
    assert told["PRESET_PAUSED"] == "anna"
    assert told["PRESET_RESUMED"] == "bert"


async def test_a_vm_that_a_person_wants_gone_goes_and_is_replaced(here: Place) -> None:
    replica = await settled(here)
    victim = (await replica.vms())[0].vm_id
    asked: dict[str, Any] = {"preset": "web", "vm_id": victim, "actor": "anna", "reason": "odd"}
    assert (await replica.ask("TerminateVm", **asked)).existed

    async def is_replaced() -> bool:
        return victim not in here.world.records and here.alive() == 2

    await until(is_replaced)
    [told] = [each for each in await here.events(vm_id=victim) if each.kind == "VM_TERMINATING"]
    assert told.reason == "OPERATOR"
    assert "anna" in told.message
    await replica.settled()
    assert not (await replica.ask("TerminateVm", **asked)).existed
    assert not (await replica.parts.cycles.desk.read("web")).terminations


async def test_what_must_not_be_terminated_is_refused(here: Place) -> None:
    here.declare("other", count=1)
    replica = await settled(here)
    vm = (await replica.vms())[0].vm_id
    with pytest.raises(Refused) as caught:
        await replica.ask("TerminateVm", preset="other", vm_id=vm, actor="anna")
    assert caught.value.reason == "NOT_THIS_PRESET"
    here.world.lock(vm)
    await replica.look("web")
    with pytest.raises(Refused) as caught:
        await replica.ask("TerminateVm", preset="web", vm_id=vm, actor="anna")
    assert caught.value.reason == "PROTECTED"
    asked: dict[str, Any] = {"preset": "web", "vm_id": vm, "actor": "anna", "force": True}
    assert (await replica.ask("TerminateVm", **asked)).existed

    async def is_gone() -> bool:
        return vm not in here.world.records

    await until(is_gone)


async def test_a_count_that_is_held_back_is_made_once_approved(here: Place) -> None:
    replica = await settled(here)
    here.declare(count=20)
    await replica.becomes("web", lambda seen: seen.count == 20)
    await replica.look("web")
    assert "COUNT_NEEDS_APPROVAL" in await replica.codes()
    assert here.alive() == 2
    approving: dict[str, Any] = {
        "approve_count": True,
        "actor": "anna",
        "presets": ["nobody", "web"],
    }
    answer = await replica.ask("ReconcilePreset", wait=True, **approving)
    assert [result.status.code for result in answer.results] == [5, 0]
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 20})


async def test_an_approval_is_used_up_by_the_change_that_it_was_for(here: Place) -> None:
    replica = await settled(here)
    asked: dict[str, Any] = {"approve_count": True, "actor": "anna", "presets": ["web"]}

    async def becomes_none(*, by_approval: bool) -> None:
        here.declare(count=0)
        await replica.becomes("web", lambda seen: seen.count == 0)
        await replica.look("web")
        assert "COUNT_NEEDS_APPROVAL" in await replica.codes()
        if by_approval:
            await replica.ask("ReconcilePreset", wait=True, **asked)
            await replica.becomes("web", lambda seen: not seen.vms_by_status)

    await becomes_none(by_approval=True)
    here.declare(count=2)
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 2})
    await becomes_none(by_approval=False)
    assert here.alive() == 2


async def test_a_plan_changes_nothing_and_is_what_the_next_cycle_does(here: Place) -> None:
    here.declare(count=3, healthcheck=QUICK)
    # Nobody tells it that VMs die: the next cycle comes when it is asked for.
    replica = await here.replica(is_deaf=True)
    await replica.settled()
    victim = (await replica.vms())[0].vm_id
    await replica.look("web")
    here.world.kill(victim)
    calls, states = here.clouds["sim"].calls.copy(), dict(here.store._states)
    plans = [(await replica.ask("PlanPreset", preset="web")).plan for _ in range(2)]
    assert plans[0] == plans[1]
    assert here.clouds["sim"].calls - calls == {"list": 2}
    assert here.store._states == states
    assert plans[0].next_look.ToTimedelta() > timedelta(0)
    before = len(await here.events())
    await replica.look("web")
    done = [
        (each.kind, each.vm_id, each.reason)
        for each in (await here.events())[before:]
        if each.kind in {"VM_CREATING", "VM_TERMINATING"}
    ]
    kinds = {view.STEP_ACTION_CREATE: "VM_CREATING", view.STEP_ACTION_TERMINATE: "VM_TERMINATING"}
    planned = [(kinds[each.action], each.vm_id, each.reason) for each in plans[0].steps]
    assert sorted(done) == sorted(planned)
    assert {kind for kind, _, _ in done} == set(kinds.values())


async def test_user_data_appear_in_no_answer_event_state_or_log(
    here: Place, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    canary = "CANARY-3b1f"
    here.world.next_create_fails(Unavailable("not now"))
    with caplog.at_level(logging.DEBUG):
        replica = await settled(here, userdata=canary)
        vm = (await replica.vms())[0].vm_id
        answers = [
            await replica.ask("ListPresets"),
            await replica.ask("GetPreset", preset="web"),
            await replica.ask("PlanPreset", preset="web"),
            await replica.ask("ReconcilePreset", wait=True),
            await replica.ask("ListVms"),
            await replica.ask("ExplainVm", vm_id=vm),
            await replica.ask("ListEvents", page_size=1000),
            await replica.ask("GetInfo"),
        ]
    assert "sha256:" in (await replica.preset()).user_data_digest
    assert here.world.records[next(iter(here.world.records))].order.spec.user_data == canary
    shown = capfd.readouterr()
    states = b"".join(each.value for each in here.store._states.values()).decode(errors="replace")
    for text in (*map(str, answers), states, caplog.text, shown.out, shown.err):
        assert canary not in text


async def test_the_state_of_the_suite_is_told_with_every_service_hanging(here: Place) -> None:
    replica = await settled(here)
    answer = await replica.ask("GetInfo")
    assert all(each.reachable for each in answer.backends)
    [told] = answer.replicas
    assert [held.preset for held in told.presets] == ["web"]
    assert told.presets[0].fencing_token == (await replica.preset()).fencing_token
    assert told.share == 100
    assert answer.presets_by_phase == {"STEADY": 1}
    for gate in replica.gates.values():
        gate.cut()
    # Far sooner than any of them would be given up by itself.
    async with asyncio.timeout(9):
        answer = await replica.ask("GetInfo", deadline=60)
    assert [each.reachable for each in answer.backends] == [False] * 4
    assert all(each.error for each in answer.backends)


async def test_a_vm_that_is_gone_is_explained_from_its_events(here: Place) -> None:
    replica = await settled(here)
    victim = (await replica.vms())[0].vm_id
    assert (await replica.ask("GetVm", vm_id=victim)).vm.preset == "web"
    here.world.vanish(victim)

    async def is_noticed() -> bool:
        return victim not in {vm.vm_id for vm in await replica.vms()}

    await until(is_noticed)
    await replica.settled()
    answer = await replica.ask("ExplainVm", vm_id=victim)
    assert not answer.HasField("vm")
    kinds = [event.kind for event in answer.events]
    assert kinds[0] == "VM_CREATED"
    assert kinds[-1] == "VM_GONE"
    with pytest.raises(NotFound):
        await replica.ask("GetVm", vm_id=victim)
    with pytest.raises(NotFound):
        await replica.ask("ExplainVm", vm_id="never-seen")


async def test_events_are_told_as_they_happen(here: Place) -> None:
    replica = await settled(here)
    request = api.WatchEventsRequest(after_sequence=0)
    request.filter.kinds.append("VM_CREATED")
    found = list[str]()
    async with aclosing(dial.listen(replica.stub.WatchEvents, request)) as stream:
        async for chunk in stream:
            found += [event.preset for event in chunk.events]
            if len(found) == 2:
                break
    assert found == ["web", "web"]


async def gives_up(asking: Coroutine[Any, Any, Any], gate: Gate, method: str) -> None:
    """Ask, and wait no longer once this call is held at the gate."""
    gate.hold(method)
    before = gate.calls[method]

    async def is_held() -> bool:
        return gate.calls[method] > before

    caller = asyncio.create_task(asking)
    await until(is_held)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_a_caller_that_gives_up_cancels_no_cycle(here: Place) -> None:
    replica = await settled(here)
    before = (await replica.preset()).last_cycle_time.ToDatetime(UTC)
    asking = replica.ask("ReconcilePreset", presets=["web"], wait=True)
    await gives_up(asking, replica.gates["iaas"], "ListVms")
    replica.gates["iaas"].let_in()
    seen = await replica.becomes("web", lambda seen: seen.last_cycle_time.ToDatetime(UTC) > before)
    assert seen.phase == STEADY


async def test_a_caller_that_gives_up_leaves_no_lock_of_wishes_behind(here: Place) -> None:
    replica = await settled(here)
    asking = replica.ask("PausePreset", preset="web", actor="anna")
    await gives_up(asking, replica.gates["runtime"], "PutStates")
    replica.gates["runtime"].let_in()

    async def is_free() -> bool:
        page = await here.store.list_locks(after="", limit=100)
        return {each.name: each.owner for each in page.items}["operator/web"] is None

    await until(is_free)
    record = await replica.parts.cycles.desk.read("web")
    assert record.pause.actor == "anna"


def stamp(moment: timedelta) -> str:
    return (datetime.now(UTC) + moment).isoformat()


async def test_a_vm_is_replaced_before_its_announced_end(here: Place) -> None:
    replica = await settled(here)
    old = (await replica.vms())[0].vm_id
    here.grow_old(old)
    here.world.relabel(old, iaas_timed_shutdown=stamp(timedelta(minutes=5)))

    async def is_replaced() -> bool:
        return old not in here.world.records

    await until(is_replaced)
    await replica.settled()
    assert here.alive() == 2
    events = await here.events(preset="web")
    [gone] = [each for each in events if each.kind == "VM_TERMINATING"]
    assert (gone.vm_id, gone.reason) == (old, "TIMED_SHUTDOWN")
    made = [each.sequence for each in events if each.kind == "VM_CREATED"]
    assert len(made) == 3
    assert made[-1] < gone.sequence


async def test_the_check_of_a_preset_is_applied(here: Place) -> None:
    replica = await settled(here, healthcheck=QUICK, policy={"startup_grace": 0})
    sick = (await replica.vms())[0]
    here.prober.sick.add(sick.addresses[0])

    async def is_replaced() -> bool:
        return sick.vm_id not in here.world.records

    await replica.look("web")
    await until(is_replaced)
    assert (await replica.settled()).vms_by_status == {"RUNNING": 2}


async def test_the_journal_tells_what_happened_before_what_was_done_about_it(here: Place) -> None:
    replica = await settled(here)
    victim = (await replica.vms())[0].vm_id
    here.world.kill(victim)

    async def is_replaced() -> bool:
        return len([e for e in await here.events() if e.kind == "VM_CREATED"]) > 2

    await until(is_replaced)
    events = await here.events()
    died = next(at for at, each in enumerate(events) if each.reason == "TERMINATED")
    made = max(at for at, each in enumerate(events) if each.kind == "VM_CREATING")
    assert events[died].vm_id == victim
    assert died < made
