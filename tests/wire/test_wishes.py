"""What people ask of presets and VMs, and what they are told of it, over real gRPC."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.suite import QUICK, Place, Replica, place, until
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd_kit.errors import NotFound, Refused


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as found:
        yield found


async def settled(here: Place, count: int = 2, *, is_deaf: bool = False, **keys: Any) -> Replica:
    here.declare(count=count, **keys)
    replica = await here.replica(is_deaf=is_deaf)
    await replica.settled()
    return replica


def protecting(vm_id: str, *, on: bool = True, **more: str) -> dict[str, Any]:
    return {"preset": "web", "vm_id": vm_id, "protected": on, "actor": "anna", **more}


async def test_a_vm_that_a_person_protects_stays_though_it_is_one_too_many(here: Place) -> None:
    replica = await settled(here, count=2)
    chosen, other = [vm.vm_id for vm in await replica.vms()]
    asked = protecting(chosen, reason="being looked at")
    assert not (await replica.ask("ProtectVm", **asked)).was_protected
    assert (await replica.ask("ProtectVm", **asked)).was_protected
    await replica.look("web")
    shown = {vm.vm_id: vm.protected for vm in await replica.vms()}
    assert shown == {chosen: True, other: False}
    here.declare(count=1)
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 1})
    assert [*here.world.records] == [chosen]
    told = [each for each in await here.events(vm_id=chosen) if each.kind == "VM_PROTECTED"]
    assert (told[0].actor, told[0].message) == ("anna", "anna protects it: being looked at")


async def test_a_protection_outlives_the_replica_that_was_asked(here: Place) -> None:
    first = await settled(here)
    chosen = (await first.vms())[0].vm_id
    await first.ask("ProtectVm", **protecting(chosen))
    await first.stop()
    second = await here.replica()
    await second.settled()
    await second.look("web")
    assert [vm.protected for vm in await second.vms() if vm.vm_id == chosen] == [True]


async def test_nobody_destroys_it_by_mistake_and_one_who_insists_does(here: Place) -> None:
    replica = await settled(here)
    chosen = (await replica.vms())[0].vm_id
    await replica.ask("ProtectVm", **protecting(chosen, reason="evidence"))
    wanted: dict[str, Any] = {"preset": "web", "vm_id": chosen, "actor": "bert"}
    with pytest.raises(
        Refused, match=f"anna: evidence; end that .* vm unprotect {chosen}"
    ) as caught:
        await replica.ask("TerminateVm", **wanted)
    assert caught.value.reason == "PROTECTED"
    assert here.alive() == 2
    await replica.ask("TerminateVm", force=True, **wanted)

    async def is_gone() -> bool:
        return chosen not in here.world.records

    await until(is_gone)
    await replica.settled()

    async def is_struck() -> bool:
        return not (await replica.parts.cycles.desk.read("web")).protections

    await until(is_struck)


async def test_who_protects_a_vm_takes_back_an_older_wish_to_have_it_gone(here: Place) -> None:
    replica = await settled(here, count=1)
    [vm] = await replica.vms()
    # The wish waits: the cloud does not list all of its VMs.
    here.world.cell_down()
    await replica.ask("TerminateVm", preset="web", vm_id=vm.vm_id, actor="anna")
    await replica.ask("ProtectVm", **protecting(vm.vm_id))
    await replica.ask("ProtectVm", **protecting(vm.vm_id, on=False))
    here.world.cell_down(False)
    await replica.look("web")
    assert [*here.world.records] == [vm.vm_id]


async def test_a_protection_that_ended_protects_no_more(here: Place) -> None:
    replica = await settled(here, count=1)
    [vm] = await replica.vms()
    assert not (await replica.ask("ProtectVm", **protecting(vm.vm_id, on=False))).was_protected
    await replica.ask("ProtectVm", **protecting(vm.vm_id))
    assert (await replica.ask("ProtectVm", **protecting(vm.vm_id, on=False))).was_protected
    await replica.look("web")
    assert not (await replica.vms())[0].protected
    told = [each.kind for each in await here.events(vm_id=vm.vm_id)]
    assert [kind for kind in told if "PROTECTED" in kind] == ["VM_PROTECTED", "VM_UNPROTECTED"]


async def test_only_a_vm_of_the_preset_can_be_protected(here: Place) -> None:
    here.declare("other", count=1)
    replica = await settled(here)
    await replica.settled("other")
    chosen = (await replica.vms())[0].vm_id
    with pytest.raises(NotFound, match=r"no preset has a VM 'nobody'$"):
        await replica.ask("ProtectVm", **protecting("nobody"))
    for near in (chosen[:9], (await replica.vms())[0].name):
        for method in ("GetVm", "ExplainVm"):
            with pytest.raises(NotFound, match=f"did you mean '{chosen}' of preset web"):
                await replica.ask(method, vm_id=near)
    with pytest.raises(Refused) as caught:
        await replica.ask("ProtectVm", **{**protecting(chosen), "preset": "other"})
    assert caught.value.reason == "NOT_THIS_PRESET"
    with pytest.raises(NotFound, match="did you mean 'web'"):
        await replica.ask("ProtectVm", **{**protecting(chosen), "preset": "wbe"})
    assert not (await replica.parts.cycles.desk.read("web")).protections


async def test_each_resume_is_counted_though_nothing_was_paused(here: Place) -> None:
    replica = await settled(here)
    asked: dict[str, Any] = {"preset": "web", "actor": "anna"}
    assert not (await replica.ask("ResumePreset", **asked)).was_paused
    await replica.ask("PausePreset", **asked)
    assert (await replica.ask("ResumePreset", **asked)).was_paused
    assert (await replica.parts.cycles.desk.read("web")).resumes == 2
    await replica.look("web")
    assert (await here.record()).resumes_seen == 2


async def test_each_step_and_each_refusal_of_a_plan_names_the_clause_that_decided(
    here: Place,
) -> None:
    replica = await settled(here, count=3, is_deaf=True)
    for vm in (await replica.vms())[:2]:
        here.world.kill(vm.vm_id)
    here.declare(count=3, policy={"max_deletions_per_cycle": 0})
    await replica.ask("PausePreset", preset="web", actor="anna", processes=[view.PROCESS_CREATE])
    plan = (await replica.ask("PlanPreset", preset="web")).plan
    assert {each.code for each in plan.refusals} == {"PAUSED"}
    assert all(each.clause for each in (*plan.steps, *plan.refusals))
    assert {(each.action, each.reason) for each in plan.steps} == {
        (view.STEP_ACTION_TERMINATE, "DEAD")
    }


async def test_an_outdated_vm_says_so_and_the_preset_how_many(here: Place) -> None:
    replica = await settled(here)
    here.declare(count=2, image="other")
    await replica.becomes("web", lambda seen: seen.outdated == 2)
    await replica.look("web")
    assert all(vm.outdated for vm in await replica.vms())
    [condition] = (await replica.preset()).conditions
    assert (condition.code, condition.clause) == ("OUTDATED", "policy.replace")
    assert (await replica.preset()).phase == view.PRESET_PHASE_STEADY
    assert "OUTDATED" in {each.code for each in (await here.record()).view.conditions}
    assert [each.outdated for each in (await here.record()).vm_views] == [True, True]


async def test_a_vm_that_is_to_be_replaced_says_why_before_it_goes(here: Place) -> None:
    policy = {"replace": "rolling", "max_surge": 1, "max_unavailable": 0, "min_healthy_time": "1h"}
    replica = await settled(here, count=1, policy=policy)
    old = (await replica.vms())[0].vm_id
    here.declare(count=1, policy=policy, image="other")
    await replica.becomes("web", lambda seen: seen.outdated == 1)

    async def is_leaving() -> bool:
        leaving = {vm.vm_id: vm.leaving_reason for vm in await replica.vms()}
        return leaving.get(old) == "OUTDATED"

    await until(is_leaving)


async def test_a_failed_vm_that_is_kept_says_until_when(here: Place) -> None:
    policy = {"keep_failed": 1, "startup_grace": "0s", "breaker_count": 9}
    replica = await settled(here, count=2, healthcheck=QUICK, policy=policy)
    sick = (await replica.vms())[0]
    here.prober.sick |= set(sick.addresses)
    await replica.look("web")
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 2, "KEPT": 1})
    [kept] = [vm for vm in await replica.vms() if vm.vm_id == sick.vm_id]
    lasts = kept.kept_until_time.ToDatetime() - kept.since_time.ToDatetime()
    assert abs(lasts.total_seconds() - 86400) < 60
    assert (await replica.ask("ListVms", statuses=[view.VM_STATUS_KEPT])).vms[0].vm_id == kept.vm_id
    assert [e.kind for e in await here.events(vm_id=sick.vm_id)].count("VM_KEPT") == 1


async def test_the_breaker_of_all_presets_is_as_configured_and_can_be_changed(here: Place) -> None:
    policy = {"startup_grace": "0s", "breaker_count": 99}
    for name in ("web", "cache"):
        here.declare(name, count=2, healthcheck=QUICK, policy=policy)
    replica = await here.replica(breaker={"count": 2, "percent": 50})
    for name in ("web", "cache"):
        await replica.settled(name)
        for vm in await replica.vms(name):
            here.prober.sick |= set(vm.addresses)
    for _ in range(2):
        await replica.look("web", "cache")
    assert "BREAKER_OPEN" in await replica.codes("web")
    [condition] = [c for c in (await replica.preset()).conditions if c.code == "BREAKER_OPEN"]
    assert "limit: 2 and 50 %" in condition.message
    config = replica.parts.cycles.config
    looser = config.model_copy(update={"breaker": config.breaker.model_copy(update={"count": 50})})
    await replica.running.reload(looser)
    await replica.look("web", "cache")
    assert "BREAKER_OPEN" not in await replica.codes("web")


async def test_what_a_probe_says_is_told_when_it_says_something_else(here: Place) -> None:
    policy = {"startup_grace": "0s"}
    check = {**QUICK, "fall": 5}
    replica = await settled(here, count=1, healthcheck=check, policy=policy)
    [vm] = await replica.vms()
    here.prober.sick |= set(vm.addresses)
    for _ in range(3):
        await replica.look("web")
    told = [e.reason for e in await here.events(vm_id=vm.vm_id) if e.kind == "VM_PROBE"]
    assert told == ["HEALTHY", "UNHEALTHY"]


async def test_a_repair_is_planned_as_it_is_then_done(here: Place) -> None:
    policy = {"startup_grace": "0s", "reboots": 1, "breaker_count": 9}
    replica = await settled(here, count=2, is_deaf=True, healthcheck=QUICK, policy=policy)
    sick = (await replica.vms())[0]
    await replica.look("web")
    here.prober.sick |= set(sick.addresses)
    plan = (await replica.ask("PlanPreset", preset="web")).plan
    [step] = plan.steps
    assert (step.action, step.vm_id) == (view.STEP_ACTION_REBOOT, sick.vm_id)
    assert (step.reason, step.clause) == ("UNHEALTHY", "policy.reboots")
    before = len(await here.events())
    await replica.look("web")
    done = [(e.kind, e.vm_id, e.reason) for e in (await here.events())[before:]]
    assert ("VM_REBOOTING", sick.vm_id, "UNHEALTHY") in done
    assert "VM_TERMINATING" not in {kind for kind, _, _ in done}
