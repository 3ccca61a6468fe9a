"""Presets that their sources do not declare any more, over real gRPC: what becomes of their VMs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.suite import Place, Replica, place, until
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd_kit.errors import NotFound, Refused

REMOVED = view.PRESET_PHASE_REMOVED
HELD = "REMOVALS_NEED_APPROVAL"
DELETE: dict[str, Any] = {"on_remove": "delete", "removal_grace": "0s"}
APPROVE: dict[str, Any] = {"approve_count": True, "actor": "anna"}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as found:
        # One stays: where none is declared any more, nothing is destroyed unasked.
        found.declare("other", count=0)
        yield found


async def settled(here: Place, count: int = 2, **policy: Any) -> Replica:
    here.declare(count=count, policy=policy)
    replica = await here.replica()
    await replica.settled()
    return replica


async def removed(here: Place, replica: Replica, name: str = "web") -> view.PresetView:
    here.remove(name)
    return await replica.becomes(name, lambda seen: seen.phase == REMOVED)


async def removed_together(here: Place, replica: Replica, *names: str) -> view.PresetView:
    """The last of presets that vanish at one moment, as in one commit, once all are held back."""
    replica.gates["iaas"].hold("ListVms")
    for name in names:
        here.remove(name)

    async def are_gone() -> bool:
        return not {*replica.parts.cycles.presets.names()} & {*names}

    await until(are_gone)
    replica.gates["iaas"].let_in()
    seen = view.PresetView()
    for name in names:
        seen = await replica.becomes(name, lambda seen: HELD in {c.code for c in seen.conditions})
    return seen


async def is_listed(replica: Replica, name: str = "web") -> bool:
    return name in {each.name for each in (await replica.ask("ListPresets")).presets}


async def is_over(here: Place, replica: Replica) -> None:
    async def check() -> bool:
        return not here.alive() and not await is_listed(replica)

    await until(check)


async def test_its_vms_run_on_and_are_shown_and_it_says_so(here: Place) -> None:
    replica = await settled(here)
    seen = await removed(here, replica)
    assert dict(seen.vms_by_status) == {"RUNNING": 2}
    [condition] = seen.conditions
    assert condition.code == "PRESET_REMOVED"
    assert "on_remove: keep" in condition.message
    assert condition.clause == "policy.on_remove, policy.removal_grace"
    # What the cloud says of them is noticed, and nothing is done about it.
    victim = (await replica.vms())[0].vm_id
    here.world.kill(victim)
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 1, "TERMINATED": 1})
    assert here.alive() == 2


async def test_one_that_comes_back_goes_on_as_if_nothing_had_happened(here: Place) -> None:
    replica = await settled(here, count=3, on_remove="delete")
    before = set(here.world.records)
    await removed(here, replica)
    here.declare(count=3, policy={"on_remove": "delete"})
    seen = await replica.settled()
    assert set(here.world.records) == before
    assert not seen.conditions
    record = await here.record()
    assert record.accepted_count == 3
    assert not record.HasField("removed_time")


async def test_its_vms_go_as_slowly_as_any_when_its_last_word_said_so(here: Place) -> None:
    replica = await settled(here, count=3, **DELETE)
    await removed(here, replica)
    await is_over(here, replica)
    gone = [each for each in await here.events() if each.kind == "VM_TERMINATING"]
    assert [each.reason for each in gone] == ["PRESET_REMOVED"] * 3
    told = [each.kind for each in await here.events(preset="web")]
    assert told.index("PRESET_ENDED") > max(
        at for at, kind in enumerate(told) if kind == "VM_TERMINATED"
    )


async def test_of_one_that_is_over_nothing_is_kept_and_its_name_is_free(here: Place) -> None:
    replica = await settled(here, **DELETE)
    await removed(here, replica)
    await is_over(here, replica)

    async def is_free() -> bool:
        page = await here.store.list_locks(after="", limit=100)
        return {each.name: each.owner for each in page.items}["preset/web"] is None

    await until(is_free)
    assert not (await here.record()).vms
    # Nobody who comes later finds it either.
    another = await here.replica()
    assert not await is_listed(another)
    with pytest.raises(NotFound):
        await another.ask("GetPreset", preset="web")
    here.declare(count=1)
    await replica.settled()
    assert here.alive() == 1


async def test_a_replica_that_never_saw_it_declared_brings_it_to_its_end(here: Place) -> None:
    first = await settled(here, **DELETE)
    await first.stop()
    here.remove()
    assert here.alive() == 2
    await is_over(here, await here.replica())


async def test_the_grace_is_not_begun_anew_by_another_holder(here: Place) -> None:
    first = await settled(here, on_remove="delete")
    await removed(here, first)
    since = (await here.record()).removed_time
    assert since.seconds
    await first.stop()
    second = await here.replica()
    seen = await second.becomes("web", lambda seen: seen.phase == REMOVED and bool(seen.owner))
    assert (await here.record()).removed_time == since
    [condition] = seen.conditions
    assert "and are then destroyed (on_remove: delete)" in condition.message
    assert here.alive() == 2


async def test_too_many_at_once_wait_for_a_person_who_approves_each(here: Place) -> None:
    for name in ("web", "cache"):
        here.declare(name, count=1, policy=DELETE)
    replica = await here.replica()
    for name in ("web", "cache"):
        await replica.settled(name)
    before = (await replica.preset("web")).owner
    seen = await removed_together(here, replica, "web", "cache")
    [held] = [each for each in seen.conditions if each.code == HELD]
    assert "2 of 3 presets are removed" in held.message
    assert "vmshepherd preset reconcile cache --approve-count" in held.message
    assert held.clause == "orchestrator.removals.percent"
    assert here.alive() == 2
    answer = await replica.ask("ReconcilePreset", presets=["cache"], **APPROVE)
    assert [each.status.code for each in answer.results] == [0]

    async def is_gone() -> bool:
        return not await is_listed(replica, "cache")

    await until(is_gone)
    # The other one was not approved: that it is the last of them makes no difference.
    await replica.look("web")
    assert HELD in await replica.codes("web")
    await replica.stop()
    another = await here.replica()
    await another.becomes("web", lambda seen: bool(seen.owner) and seen.owner != before)
    assert HELD in await another.codes("web")
    assert here.alive() == 1


async def test_a_word_that_was_given_before_is_no_approval_of_a_removal(here: Place) -> None:
    here.declare("cache", count=1, policy=DELETE)
    replica = await settled(here, **DELETE)
    await replica.settled("cache")

    def approve(record: Any) -> None:
        record.approved_count = 0

    for name in ("web", "cache"):
        await replica.parts.cycles.desk.change(name, approve)
    await removed_together(here, replica, "web", "cache")
    assert here.alive() == 3
    assert not (await replica.parts.cycles.desk.read("web")).HasField("approved_count")


async def test_an_approved_removal_is_no_approval_once_it_came_back(here: Place) -> None:
    replica = await settled(here, on_remove="delete")
    await removed(here, replica)
    await replica.ask("ReconcilePreset", presets=["web"], wait=True, **APPROVE)
    assert (await replica.parts.cycles.desk.read("web")).approved_count == 0
    here.declare(count=2, policy={"on_remove": "delete"})
    await replica.settled()
    assert not (await replica.parts.cycles.desk.read("web")).HasField("approved_count")


async def test_an_unmanaged_one_is_never_touched(here: Place) -> None:
    replica = await settled(here, **DELETE)
    here.declare(count=2, policy=DELETE, unmanaged=True)
    await replica.becomes("web", lambda seen: seen.phase == view.PRESET_PHASE_UNMANAGED)
    await removed(here, replica)
    seen = (await replica.look("web"))["web"]
    assert "UNMANAGED" in {each.code for each in seen.conditions}
    assert here.alive() == 2


async def test_one_that_an_older_version_left_behind_is_shown_and_left_alone(here: Place) -> None:
    first = await settled(here)
    await first.stop()
    here.remove()
    record = await here.record()
    record.ClearField("will")
    here.write_record(record)
    replica = await here.replica()
    [seen] = [each for each in (await replica.ask("ListPresets")).presets if each.name == "web"]
    assert (seen.name, seen.phase, dict(seen.vms_by_status)) == ("web", REMOVED, {"RUNNING": 2})
    with pytest.raises(Refused) as caught:
        await replica.ask("PlanPreset", preset="web")
    assert caught.value.reason == "PRESET_REMOVED"
    assert here.alive() == 2


async def test_people_may_plan_pause_and_end_its_vms_one_by_one(here: Place) -> None:
    replica = await settled(here, **DELETE)
    await replica.ask("PausePreset", preset="web", actor="anna", reason="not yet")
    await removed(here, replica)
    plan = (await replica.ask("PlanPreset", preset="web")).plan
    assert not plan.steps
    assert "PAUSED" in {each.code for each in plan.refusals}
    assert here.alive() == 2
    await replica.ask("ResumePreset", preset="web", actor="anna")
    await is_over(here, replica)


async def test_a_vm_of_it_that_a_person_wants_gone_goes_and_is_not_replaced(here: Place) -> None:
    replica = await settled(here)
    await removed(here, replica)
    victim = (await replica.vms())[0].vm_id
    assert (await replica.ask("TerminateVm", preset="web", vm_id=victim, actor="anna")).existed
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 1})
    await replica.look("web")
    assert here.alive() == 1


async def test_while_nobody_can_tell_whether_it_came_back_nothing_goes(here: Place) -> None:
    replica = await settled(here, **DELETE)
    presets = replica.parts.cycles.presets
    replica.gates["iaas"].hold("ListVms")
    before = presets._token
    here.remove()

    async def is_known() -> bool:
        # The bookmark that follows says that all is well; what goes wrong goes wrong after it.
        return bool(presets.names() == ["other"] and presets._token != before)

    await until(is_known)
    presets.error = "the preset service is away"
    replica.gates["iaas"].let_in()
    seen = await replica.becomes("web", lambda seen: HELD in {c.code for c in seen.conditions})
    assert "the preset service is away" in str(seen.conditions)
    assert here.alive() == 2
    presets.error = ""
    replica.parts.schedule.wake(["web"])
    await is_over(here, replica)
