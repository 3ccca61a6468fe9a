"""What becomes of VMs whose preset names another provider than the one that they run at."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.suite import Place, place, until
from vmshepherd.orchestrator.v1 import view_pb2 as view


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Place]:
    async with place(tmp_path, clouds=("sim", "other")) as found:
        yield found


async def test_a_preset_does_not_leave_its_vms_behind(here: Place) -> None:
    here.declare(count=2, policy={"replace": "rolling"})
    replica = await here.replica()
    await replica.settled()
    before = {vm.vm_id for vm in await replica.vms()}
    here.declare(count=2, iaas="other", policy={"replace": "rolling"})
    await replica.becomes("web", lambda seen: seen.phase == view.PRESET_PHASE_BLOCKED)
    [condition] = [c for c in (await replica.preset()).conditions if c.code == "PROVIDER_CHANGED"]
    assert "for provider 'other' now" in condition.message
    assert condition.clause == "iaas.provider"
    assert {vm.vm_id for vm in await replica.vms()} == before == {*here.world.records}
    assert not here.clouds["other"].world.records
    assert "VM_GONE" not in {each.kind for each in await here.events()}


async def test_after_a_takeover_it_does_not_either(here: Place) -> None:
    here.declare(count=2)
    first = await here.replica()
    await first.settled()
    await first.stop()
    here.declare(count=2, iaas="other")
    replica = await here.replica()
    await replica.becomes("web", lambda seen: seen.phase == view.PRESET_PHASE_BLOCKED)
    assert "PROVIDER_CHANGED" in await replica.codes()
    assert len(here.world.records) == 2


async def test_it_moves_once_people_have_ended_what_runs_there(here: Place) -> None:
    here.declare(count=2)
    replica = await here.replica()
    await replica.settled()
    here.declare(count=2, iaas="other")
    await replica.becomes("web", lambda seen: seen.phase == view.PRESET_PHASE_BLOCKED)
    for vm in await replica.vms():
        await replica.ask("TerminateVm", preset="web", vm_id=vm.vm_id, actor="anna")

    async def have_moved() -> bool:
        return not here.world.records and len(here.clouds["other"].world.records) == 2

    await until(have_moved)


async def test_when_the_former_provider_is_back_all_is_as_before(here: Place) -> None:
    here.declare(count=2)
    replica = await here.replica()
    await replica.settled()
    before = {*here.world.records}
    here.declare(count=2, iaas="other")
    await replica.becomes("web", lambda seen: seen.phase == view.PRESET_PHASE_BLOCKED)
    here.declare(count=2)
    await replica.settled()
    assert {*here.world.records} == before
