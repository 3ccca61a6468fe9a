"""What is remembered of VMs: each difference is told once, and what is gone stays so."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, cast

import pytest

from iaas_service.domain import Changed, Gone, Vm, VmId, VmState
from iaas_service.drivers.openstack import memory as memory_module
from iaas_service.drivers.openstack import servers
from iaas_service.drivers.openstack.api import Api
from iaas_service.drivers.openstack.memory import Memory
from tests.unit.iaas_service.openstack.captured import ACTIVE, FAILED

HERE, ELSEWHERE = (cast(Api, object()) for _ in range(2))
VM = servers.vm(ACTIVE)
SILENT = replace(servers.vm(FAILED), fault="")


@pytest.fixture
def memory() -> Memory:
    return Memory()


async def told(memory: Memory, *deeds: Any) -> list[Changed | Gone]:
    """What is told of each deed; of one that changes nothing, nothing is."""
    found: list[Any] = []
    with memory.feed.subscribe() as changes:
        for deed in deeds:
            deed()
            reading = asyncio.ensure_future(changes.next())
            await asyncio.sleep(0)
            if reading.done():
                found += reading.result()
            reading.cancel()
    return found


async def test_each_difference_is_told_once(memory: Memory) -> None:
    stopped = replace(VM, state=VmState.STOPPED)
    seen = (VM, VM, stopped, stopped, VM)
    changes = await told(memory, *(lambda vm=vm: memory.saw(HERE, vm) for vm in seen))
    assert [change.vm for change in changes] == [VM, stopped, VM]


async def test_what_is_gone_is_told_as_it_was_and_once(memory: Memory) -> None:
    memory.saw(HERE, VM)
    bury = [lambda: memory.bury(VM.vm_id)] * 2
    [change] = await told(memory, *bury)
    assert isinstance(change, Gone)
    assert (change.vm.state, change.vm.metadata) == (VmState.TERMINATED, VM.metadata)
    assert memory.place(VM.vm_id) is None
    assert memory.last(VM.vm_id) is None


async def test_an_answer_that_was_long_under_way_revives_nobody(memory: Memory) -> None:
    memory.bury(VM.vm_id)
    assert await told(memory, lambda: memory.saw(HERE, VM)) == []
    assert memory.of(HERE) == []


def test_a_fault_is_kept_until_the_vm_is_no_failed_one_any_more(memory: Memory) -> None:
    told_once = servers.vm(FAILED)
    memory.saw(HERE, told_once)
    assert memory.saw(HERE, SILENT).fault == told_once.fault
    assert memory.saw(HERE, replace(SILENT, state=VmState.RUNNING)).fault == ""
    assert memory.saw(HERE, SILENT).fault == ""


def test_a_vm_that_cannot_be_shown_is_still_where_it_was(memory: Memory) -> None:
    memory.saw(HERE, VM)
    memory.exists(HERE, VM.vm_id)
    assert memory.last(VM.vm_id) == VM
    memory.exists(ELSEWHERE, VmId("never-seen"))
    assert memory.of(ELSEWHERE) == ["never-seen"]
    assert memory.last(VmId("never-seen")) is None


def test_a_place_knows_its_own_vms_alone(memory: Memory) -> None:
    memory.saw(HERE, VM)
    memory.saw(ELSEWHERE, SILENT)
    assert (memory.of(HERE), memory.of(ELSEWHERE)) == ([VM.vm_id], [SILENT.vm_id])


def test_what_is_gone_is_not_remembered_without_end(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "_GONE", 2)
    vms: list[Vm] = [replace(VM, vm_id=VmId(f"vm-{n}")) for n in range(3)]
    for vm in vms:
        memory.bury(vm.vm_id)
    for vm in vms:
        memory.saw(HERE, vm)
    assert memory.of(HERE) == ["vm-0"]
