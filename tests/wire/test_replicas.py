"""Two orchestrators at one store and one cloud, over real gRPC: one holds, one waits its turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.suite import SHORT_SESSION, Place, Replica, place, until
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd_kit.errors import Unavailable

ELSEWHERE = view.PRESET_PHASE_ELSEWHERE


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as found:
        yield found


async def two(here: Place, count: int = 2, **config: Any) -> tuple[Replica, Replica]:
    """Who holds the preset, and who would look after it if that one were gone."""
    here.declare(count=count)
    replicas = [await here.replica(interval="200ms", **config) for _ in range(2)]
    holders: list[Replica] = []

    async def is_settled() -> bool:
        nonlocal holders
        holders = [each for each in replicas if holds(each)]
        return {home(each, "web") for each in replicas} == {owner(each) for each in holders}

    await until(is_settled)
    [holder] = holders
    token = holder.parts.cycles.authority.token("web")
    await holder.becomes("web", lambda seen: seen.fencing_token == token)
    await holder.settled()
    [other] = [each for each in replicas if each is not holder]
    await until(lambda: is_shown_elsewhere(other))
    return holder, other


async def is_shown_elsewhere(replica: Replica) -> bool:
    shown = replica.parts.cycles.board.get("web")
    return shown is not None and shown.phase.name == "ELSEWHERE"


def owner(replica: Replica) -> str:
    name = replica.parts.cycles.authority.owner
    assert isinstance(name, str)
    return name


def home(replica: Replica, preset: str) -> str:
    """Who looks after a preset, as a replica sees it."""
    name = replica.parts.cycles.replicas.home(preset)
    assert isinstance(name, str)
    return name


def held_by(replica: Replica) -> set[str]:
    return set(replica.parts.cycles.authority.tokens())


def holds(replica: Replica) -> bool:
    return "web" in held_by(replica)


async def test_one_replica_holds_and_both_answer(here: Place) -> None:
    first, second = await two(here)
    assert holds(first)
    assert not holds(second)
    mine, others = await first.preset(), await second.preset()
    assert others.owner == mine.owner
    assert others.vms_by_status == {"RUNNING": 2}
    assert [vm.vm_id for vm in await second.vms()] == [vm.vm_id for vm in await first.vms()]
    info = await second.ask("GetInfo")
    held = {each.owner: [it.preset for it in each.presets] for each in info.replicas}
    assert held == {owner(first): ["web"], owner(second): []}
    [told] = next(each.presets for each in info.replicas if each.presets)
    assert told.fencing_token == mine.fencing_token


async def test_what_is_asked_of_one_replica_is_done_by_the_other(here: Place) -> None:
    _, second = await two(here)
    victim = (await second.vms())[0].vm_id
    await second.ask("TerminateVm", preset="web", vm_id=victim, actor="anna")

    async def is_gone() -> bool:
        return victim not in here.world.records

    await until(is_gone)


@pytest.mark.parametrize("names", [["web"], []])
async def test_a_look_that_is_asked_of_one_replica_is_taken_by_the_other(
    here: Place, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await two(here)
    woken = asyncio.Event()
    # Alarms wake presets by these two; nothing else happens that would.

    def wake(found: set[str]) -> None:
        # Chunks without events come, too.
        if found:
            woken.set()

    monkeypatch.setattr(first.parts.schedule, "wake", wake)
    monkeypatch.setattr(first.parts.schedule, "wake_all", woken.set)
    await second.ask("ReconcilePreset", presets=names)
    await asyncio.wait_for(woken.wait(), 20)


async def test_whoever_waits_at_one_replica_is_answered_when_the_other_has_looked(
    here: Place,
) -> None:
    first, second = await two(here)
    here.declare(count=3)
    await first.becomes("web", lambda seen: seen.count == 3)
    await first.settled()
    seen = await second.look("web")
    assert seen["web"].owner == owner(first)
    # The cycle began after it was asked for, at the holder.
    asked, done = [
        next(e for e in await here.events() if e.kind == kind)
        for kind in ("RECONCILE_ASKED", "RECONCILE_DONE")
    ]
    assert (asked.actor, done.actor) == (owner(second), owner(first))
    assert asked.evidence["ask"] == done.evidence["ask"]
    last = (await first.preset()).last_cycle_time.ToDatetime()
    assert last >= asked.time.ToDatetime()


async def test_all_presets_can_be_waited_for_at_any_replica(here: Place) -> None:
    for name in ("a", "b", "c", "d"):
        here.declare(name, count=1)
    first, second = await two(here)
    answer = await second.ask("ReconcilePreset", deadline=30, wait=True)
    assert [result.preset for result in answer.results] == ["a", "b", "c", "d", "web"]
    assert all(result.status.code == 0 for result in answer.results), answer
    assert {result.view.owner for result in answer.results} == {owner(first), owner(second)}
    # One word a replica does for all of its presets.
    done = [event.actor for event in await here.events() if event.kind == "RECONCILE_DONE"]
    assert done == [owner(first)]


async def test_a_holder_that_does_not_answer_is_named(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may need more than a moment for the answer.
    monkeypatch.setattr("orchestrator.looks.SLACK", timedelta(seconds=8))
    first, second = await two(here)
    first.gates["runtime"].hold("AppendEvents")
    answer = await second.ask("ReconcilePreset", deadline=10, presets=["web"], wait=True)
    [result] = answer.results
    assert f"held by {owner(first)}" in result.status.message
    assert not result.HasField("view")
    first.gates["runtime"].let_in("AppendEvents")


async def test_a_plan_of_another_replica_is_made_of_what_the_holder_remembers(here: Place) -> None:
    first, second = await two(here)
    here.declare(count=20)
    await second.becomes("web", lambda seen: seen.count == 20)
    await first.becomes("web", lambda seen: seen.count == 20)
    await first.look("web")
    plan = (await second.ask("PlanPreset", preset="web")).plan
    # Planned from nothing, 18 VMs would be made at once: the count was accepted for none yet.
    assert [each.code for each in plan.refusals] == ["COUNT_NEEDS_APPROVAL"]
    assert not plan.steps


async def test_without_the_store_a_replica_tells_of_what_others_hold_that_nobody_can_tell(
    here: Place,
) -> None:
    first, second = await two(here)
    second.gates["runtime"].refusing.update(
        {name: Unavailable("the store is away") for name in ("GetStates", "ListStates")}
    )
    [shown] = (await second.ask("ListPresets")).presets
    assert (shown.phase, shown.owner, shown.count) == (ELSEWHERE, owner(first), 2)
    [condition] = shown.conditions
    assert condition.code == "STORE_UNREACHABLE"
    assert "the store is away" in condition.message
    assert not (await second.vms())
    second.gates["runtime"].refusing["ListSessions"] = Unavailable("the store is away")
    info = await second.ask("GetInfo")
    assert "the store is away" in info.replicas_error
    assert info.presets_by_phase == {"ELSEWHERE": 1}
    assert not (await first.ask("GetInfo")).replicas_error


async def test_vms_of_a_preset_that_was_removed_a_moment_ago_are_shown_by_every_replica(
    here: Place,
) -> None:
    first, second = await two(here)
    # As it is read once a minute: before the removal.
    await second.ask("ListPresets")
    first.gates["runtime"].hold("PutStates")
    here.remove()

    async def is_known() -> bool:
        return not second.parts.cycles.presets.names()

    await until(is_known)
    [shown] = (await second.ask("ListPresets")).presets
    assert shown.phase == view.PRESET_PHASE_REMOVED
    assert shown.vms_by_status == {"RUNNING": 2}
    assert len((await second.ask("ListVms")).vms) == 2
    first.gates["runtime"].let_in()


async def test_a_preset_of_another_replica_is_not_shown_as_ours_when_our_session_is_lost(
    here: Place,
) -> None:
    _, second = await two(here, session=SHORT_SESSION)
    second.gates["runtime"].hold("RefreshSession", "OpenSession")

    async def is_told() -> bool:
        shown = second.parts.cycles.board.get("web")
        return "SESSION_LOST" in {each.code for each in shown.conditions}

    await until(is_told)
    assert await is_shown_elsewhere(second)
    assert (await second.preset()).vms_by_status == {"RUNNING": 2}
    second.gates["runtime"].let_in()


async def test_a_watch_that_falls_silent_is_begun_again(
    here: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As that of a runtime service that hangs, while others answer."""
    monkeypatch.setattr("orchestrator.alarms.SILENCE", timedelta(seconds=0.3))
    monkeypatch.setattr("runtime_service.servicer._BEAT", timedelta(hours=1))
    here.declare(count=1)
    replica = await here.replica()
    await replica.settled()

    async def is_begun_again() -> bool:
        return replica.gates["runtime"].calls["WatchEvents"] > 2

    await until(is_begun_again)


async def test_a_replica_that_ends_frees_its_presets_at_once(here: Place) -> None:
    first, second = await two(here)
    token = (await first.preset()).fencing_token
    await first.stop()

    async def is_taken_over() -> bool:
        return holds(second)

    # Its session would last far longer than this waits.
    await until(is_taken_over)
    await second.becomes("web", lambda seen: seen.fencing_token > token)
    await second.settled()
    assert here.alive() == 2


async def test_a_replica_that_dies_is_followed_when_its_session_and_the_delay_are_over(
    here: Place,
) -> None:
    first, second = await two(here, session=SHORT_SESSION)
    await first.die()
    [left] = [each for each in here.store._sessions.values() if each.owner == owner(first)]

    async def is_taken_over() -> bool:
        # Never two at a time, as each of them sees it.
        assert not (holds(second) and _may_act(first))
        return holds(second)

    await until(is_taken_over)
    assert here.clock.elapsed() >= left.frees_locks
    await second.settled()
    assert here.alive() == 2


def _may_act(replica: Replica) -> bool:
    authority = replica.parts.cycles.authority
    return bool(authority.session_id) and authority._until > authority._clock.elapsed()


async def test_what_a_former_holder_sends_too_late_is_refused(here: Place) -> None:
    first, second = await two(here, session=SHORT_SESSION)
    calls = here.clouds["sim"].calls
    first.gates["iaas"].hold("CreateVms")
    first.gates["runtime"].hold("RefreshSession", "OpenSession")
    here.declare(count=4)

    async def is_waiting() -> bool:
        return first.gates["iaas"].calls["CreateVms"] > 0

    await until(is_waiting)
    assert calls["create"] == 2

    async def is_taken_over() -> bool:
        return holds(second)

    await until(is_taken_over)
    await second.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 4})
    first.gates["iaas"].let_in()
    first.gates["runtime"].let_in()

    async def is_one_again() -> bool:
        return sorted([holds(first), holds(second)]) == [False, True]

    await until(is_one_again)
    await second.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 4})
    assert here.alive() == 4
    assert len(here.world.made) == 4


async def test_two_people_at_two_replicas_do_not_lose_each_others_wishes(here: Place) -> None:
    first, second = await two(here, count=6)
    # Nobody strikes a wish while they are written.
    for replica in (first, second):
        replica.gates["iaas"].hold("TerminateVms")
    vms = [vm.vm_id for vm in await first.vms()]
    asking = [
        replica.ask("TerminateVm", preset="web", vm_id=vm_id, actor="anna")
        for vm_id, replica in zip(vms, [first, second] * 3, strict=True)
    ]
    pausing = second.ask("PausePreset", preset="web", actor="bert", processes=[view.PROCESS_CREATE])
    await asyncio.gather(*asking, pausing)
    record = await first.parts.cycles.desk.read("web")
    assert {wish.vm_id for wish in record.terminations} == set(vms)
    assert record.pause.actor == "bert"
