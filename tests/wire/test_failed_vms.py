"""What becomes of VMs that fail: repaired, kept for study, replaced, with all that is known."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from iaas_service.domain import VmId
from tests.support.suite import QUICK, Place, Replica, place, until
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd.runtime.v1.event_pb2 import Event

FLAVORS = {"flavor": "[small, large]"}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path) as found:
        yield found


async def serving(here: Place, **policy: Any) -> tuple[Replica, view.VmView]:
    """A preset of three, and the one of them that is about to fail."""
    here.declare(count=3, healthcheck=QUICK, policy={"startup_grace": 0, **policy})
    replica = await here.replica()
    await replica.settled()
    return replica, (await replica.vms())[0]


async def fails(here: Place, replica: Replica, vm: view.VmView) -> None:
    here.prober.sick.update(vm.addresses)
    await replica.look("web")


async def story(here: Place, vm_id: str) -> list[str]:
    """What was done to a VM, in order."""
    acts = ("VM_REBOOT", "VM_REBU", "VM_KEPT", "VM_TERMINAT", "REPAIR_FAILED")
    return [each.kind for each in await here.events(vm_id=vm_id) if each.kind.startswith(acts)]


async def told(here: Place, kind: str, vm_id: str) -> Event:
    found: list[Event] = []

    async def is_told() -> bool:
        found[:] = [each for each in await here.events(vm_id=vm_id) if each.kind == kind]
        return bool(found)

    await until(is_told, lambda: f"no {kind}")
    return found[0]


async def test_a_vm_is_rebooted_then_rebuilt_and_then_replaced(here: Place) -> None:
    replica, sick = await serving(here, reboots=1, rebuilds=1)
    await fails(here, replica, sick)
    await told(here, "VM_TERMINATED", sick.vm_id)
    await replica.settled()
    assert await story(here, sick.vm_id) == [
        "VM_REBOOTING",
        "VM_REBOOTED",
        "VM_REBUILDING",
        "VM_REBUILT",
        "VM_TERMINATING",
        "VM_TERMINATED",
    ]
    calls = here.clouds["sim"].calls
    assert (calls["reboot"], calls["rebuild"], calls["terminate"]) == (1, 1, 1)


async def test_a_vm_that_a_reboot_cures_is_left_alone_afterwards(here: Place) -> None:
    replica, sick = await serving(here, reboots=1)
    await fails(here, replica, sick)
    await told(here, "VM_REBOOTING", sick.vm_id)
    here.prober.sick.clear()
    await replica.settled()
    assert sick.vm_id in {vm.vm_id for vm in await replica.vms()}
    assert here.clouds["sim"].calls["terminate"] == 0


async def test_a_rebuilt_vm_is_the_same_vm_of_the_present_spec(here: Place) -> None:
    replica, sick = await serving(here, rebuilds=1)
    await fails(here, replica, sick)
    await told(here, "VM_REBUILT", sick.vm_id)
    here.prober.sick.clear()
    await replica.settled()
    [rebuilt] = [vm for vm in await replica.vms() if vm.vm_id == sick.vm_id]
    assert not rebuilt.outdated
    assert list(rebuilt.addresses) == list(sick.addresses)


async def test_the_console_of_a_vm_is_read_before_it_is_destroyed(here: Place) -> None:
    replica, sick = await serving(here)
    here.world.say(sick.vm_id, "".join(f"line {number}\n" for number in range(60)))
    await fails(here, replica, sick)
    event = await told(here, "VM_TERMINATING", sick.vm_id)
    assert event.evidence["console"].splitlines() == [f"line {at}" for at in range(10, 60)]
    assert event.evidence["last_probe"] == "UNHEALTHY: as the test says"
    assert event.evidence["failures"] == "1"
    await replica.settled()


async def test_a_console_that_does_not_answer_delays_the_destroy_and_does_not_stop_it(
    here: Place,
) -> None:
    replica, sick = await serving(here)
    replica.gates["iaas"].hold("GetVms")
    await fails(here, replica, sick)
    event = await told(here, "VM_TERMINATED", sick.vm_id)
    assert event.reason == "UNHEALTHY"
    [before] = [e for e in await here.events(vm_id=sick.vm_id) if e.kind == "VM_TERMINATING"]
    assert "could not be read" in before.evidence["console"]


async def test_a_failed_vm_is_kept_for_study_and_replaced_all_the_same(here: Place) -> None:
    replica, sick = await serving(here, keep_failed=1)
    here.world.say(sick.vm_id, "Kernel panic")
    await fails(here, replica, sick)
    event = await told(here, "VM_KEPT", sick.vm_id)
    assert (event.reason, event.evidence["console"]) == ("UNHEALTHY", "Kernel panic")
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 3, "KEPT": 1})
    await replica.look("web")
    assert VmId(sick.vm_id) in here.world.records
    assert await story(here, sick.vm_id) == ["VM_KEPT"]
    # It is not asked how it is any more.
    verdicts = [e.reason for e in await here.events(vm_id=sick.vm_id) if e.kind == "VM_PROBE"]
    assert verdicts == ["HEALTHY", "UNHEALTHY", "UNKNOWN"]


async def test_what_the_cloud_has_no_room_for_is_made_of_the_next_flavor(here: Place) -> None:
    here.world.quota_exceeded("small")
    here.declare(count=2, **FLAVORS)
    replica = await here.replica()
    await replica.becomes("web", lambda seen: seen.vms_by_status == {"RUNNING": 2})
    made = [each.evidence["flavor"] for each in await here.events() if each.kind == "VM_CREATED"]
    assert made == ["large", "large"]
    assert {vm.flavor for vm in here.world.vms} == {"large"}
    [refused, *_] = [each for each in await here.events() if each.kind == "CREATE_FAILED"]
    assert refused.reason == "QUOTA_EXCEEDED"


async def test_vms_are_spread_over_the_zones(here: Place) -> None:
    here.declare(count=4, network={"availability_zone": "[az1, az2]"})
    replica = await here.replica()
    await replica.settled()
    assert sorted(vm.zone for vm in here.world.vms) == ["az1", "az1", "az2", "az2"]
