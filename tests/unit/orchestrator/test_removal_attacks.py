"""Ways in which the VMs of a removed preset could be lost to a mistake, and are not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from orchestrator.board import Shown
from orchestrator.clients.presets import declared
from tests.support.shell import WEB, preset
from tests.unit.orchestrator.test_cycle import Place, codes, place, remembered, remove
from vmshepherd.orchestrator.v1 import record_pb2, view_pb2
from vmshepherd.preset.v1 import preset_pb2
from vmshepherd_kit.errors import Unavailable

GRACE = timedelta(minutes=20)


def mortal(grace: timedelta = GRACE, **spec: Any) -> Any:
    """A preset whose VMs are destroyed some time after its removal."""
    policy = preset_pb2.Policy(
        on_remove=preset_pb2.ON_REMOVE_DELETE,
        removal_grace=Duration(seconds=int(grace.total_seconds())),
    )
    return preset(count=1, policy=policy, **spec)


async def removed(here: Place, grace: timedelta = GRACE) -> Shown:
    """A preset with a VM that was just removed."""
    here.presets.declared[WEB] = mortal(grace)
    await here.run()
    await here.run()
    return await remove(here)


async def wait(here: Place, duration: timedelta) -> None:
    """Let time pass, looked at now and then."""
    await here.clock.advance(duration / 2)
    await here.cycles.run(WEB)
    await here.clock.advance(duration / 2)


async def is_spared(here: Place) -> bool:
    await here.cycles.run(WEB)
    return len(here.iaas.vms) == 1


async def test_a_grace_that_was_waited_ends() -> None:
    async with place() as here:
        await removed(here)
        await wait(here, GRACE)
        assert not await is_spared(here)


async def test_a_clock_that_is_set_forward_does_not_end_the_grace() -> None:
    async with place() as here:
        await removed(here)
        here.clock.jump(timedelta(days=2))
        assert await is_spared(here)
        await wait(here, GRACE - timedelta(seconds=1))
        assert await is_spared(here)
        await here.clock.advance(timedelta(seconds=1))
        assert not await is_spared(here)


async def test_a_clock_that_is_set_back_does_not_lengthen_the_grace() -> None:
    async with place() as here:
        await removed(here)
        here.clock.jump(timedelta(days=-2))
        await wait(here, GRACE)
        assert not await is_spared(here)


@pytest.mark.parametrize("days", [-2, 0, 2])
async def test_one_whose_grace_ends_soon_is_looked_at_then_though_the_clock_was_set(
    days: int,
) -> None:
    async with place() as here:
        await removed(here)
        here.clock.jump(timedelta(days=days))
        left = timedelta(seconds=10)
        await here.clock.advance(GRACE - left)
        assert await here.cycles.run(WEB) == left


async def test_a_holder_whose_clock_is_ahead_does_not_end_the_grace() -> None:
    async with place() as here:
        await removed(here)
        await wait(here, GRACE / 2)
        await here.cycles.run(WEB)
        await here.authority.release(WEB)
        here.cycles.archive.forget_all()
        here.clock.jump(timedelta(days=2))
        assert await is_spared(here)
        await wait(here, GRACE / 2 - timedelta(seconds=1))
        assert await is_spared(here)
        # What the former holder waited counts.
        await here.clock.advance(timedelta(seconds=1))
        assert not await is_spared(here)


async def test_nothing_is_written_for_the_grace_of_vms_that_stay_for_good() -> None:
    async with place() as here:
        await here.run()
        await here.run()
        await remove(here)
        await here.clock.advance(timedelta(minutes=5))
        await here.run()
        written = here.store.calls["put_state"]
        await here.clock.advance(timedelta(minutes=5))
        await here.run()
        assert here.store.calls["put_state"] == written


async def test_one_that_came_back_while_the_cloud_was_away_has_a_whole_grace_again() -> None:
    async with place() as here:
        await removed(here)
        await wait(here, GRACE - timedelta(seconds=1))
        here.presets.declared[WEB] = mortal()
        here.iaas.unlistable = Unavailable("the cloud is away")
        await here.run()
        assert not (await remembered(here)).HasField("removed_time")
        await here.clock.advance(GRACE)
        here.iaas.unlistable = None
        await remove(here)
        assert await is_spared(here)


async def test_one_that_came_back_broken_has_a_whole_grace_again() -> None:
    async with place() as here:
        await removed(here)
        await wait(here, GRACE - timedelta(seconds=1))
        here.presets.declared[WEB] = declared(preset_pb2.Preset(name=WEB))
        assert codes(await here.run())[-1] == "NEVER_READ"
        await here.clock.advance(GRACE)
        await remove(here)
        assert await is_spared(here)


async def test_nothing_is_destroyed_once_the_declaration_is_back_though_it_was_decided() -> None:
    async with place() as here:
        here.presets.declared[WEB] = mortal(timedelta(0))
        await here.run()
        await here.run()
        here.presets.declared.clear()
        list_vms = here.iaas.list_vms

        async def is_back(*asked: Any) -> Any:
            here.presets.declared[WEB] = mortal(timedelta(0))
            return await list_vms(*asked)

        here.iaas.list_vms = is_back  # type: ignore[method-assign, assignment]
        assert await is_spared(here)
        assert not here.store.told("VM_TERMINATING")


async def test_nothing_is_destroyed_when_nobody_can_tell_any_more_though_it_was_decided() -> None:
    async with place() as here:
        here.presets.declared[WEB] = mortal(timedelta(0))
        await here.run()
        await here.run()
        here.presets.declared.clear()
        list_vms = here.iaas.list_vms

        async def is_lost(*asked: Any) -> Any:
            here.presets.is_synced = False
            return await list_vms(*asked)

        here.iaas.list_vms = is_lost  # type: ignore[method-assign, assignment]
        assert await is_spared(here)


async def test_a_plan_destroys_nothing_before_every_source_was_read() -> None:
    async with place() as here:
        await removed(here)
        await wait(here, GRACE)
        here.presets.is_synced = False
        _, plan, _ = await here.cycles.plan(WEB)
        assert not plan.steps
        assert "REMOVALS_NEED_APPROVAL" in {each.code for each in plan.refusals}


async def test_the_last_word_before_the_removal_counts_though_no_cycle_has_heard_it() -> None:
    async with place() as here:
        here.presets.declared[WEB] = mortal(timedelta(0))
        await here.run()
        await here.run()
        # Edited, and removed before anybody looked.
        here.presets.lasts[WEB] = preset(count=1)
        await remove(here)
        assert await is_spared(here)
        assert (await remembered(here)).will.policy.on_remove != preset_pb2.ON_REMOVE_DELETE


async def test_an_older_word_that_this_replica_heard_last_makes_nothing_worse() -> None:
    async with place() as here:
        here.presets.declared[WEB] = preset(count=1)
        await here.run()
        await here.run()
        here.presets.lasts[WEB] = mortal(timedelta(0))
        await remove(here)
        assert await is_spared(here)


def held_back(here: Place) -> str:
    shown = here.cycles.board.get(WEB)
    assert shown is not None
    said = [each.message for each in shown.conditions if each.code == "REMOVALS_NEED_APPROVAL"]
    return said[0] if said else ""


async def approve(here: Place, count: int = 0) -> None:
    def change(record: record_pb2.OperatorRecord) -> None:
        record.approved_count = count

    await here.cycles.desk.change(WEB, change)


async def test_while_a_file_was_never_understood_it_may_be_the_one_that_declares_it() -> None:
    async with place() as here:
        await removed(here)
        await wait(here, GRACE)
        fault = preset_pb2.Finding(file="front.yaml", message="is no YAML")
        here.presets.read = [preset_pb2.Source(name="local", findings=[fault])]
        assert await is_spared(here)
        assert "front.yaml was refused" in held_back(here)
        # It was not removed with others: once that file is understood nothing holds it back.
        here.presets.understood = {"front.yaml"}
        assert not await is_spared(here)


async def test_whoever_knows_what_a_refused_file_means_may_approve() -> None:
    async with place() as here:
        fault = preset_pb2.Finding(file="front.yaml", message="is no YAML")
        here.presets.read = [preset_pb2.Source(name="local", findings=[fault])]
        await removed(here, timedelta(0))
        assert await is_spared(here)
        await approve(here)
        assert not await is_spared(here)


async def test_while_a_source_is_unreadable_it_may_have_come_back_whatever_was_approved() -> None:
    async with place() as here:
        here.presets.read = [preset_pb2.Source(name="git", error="no route")]
        await removed(here, timedelta(0))
        await approve(here)
        assert await is_spared(here)
        assert "git: no route" in held_back(here)
        here.presets.read = []
        assert not await is_spared(here)


async def test_while_the_sources_cannot_be_asked_nothing_goes() -> None:
    async with place() as here:
        await removed(here)
        await wait(here, GRACE)

        async def refuse() -> Any:
            raise Unavailable("the preset service is away")

        here.presets.sources = refuse  # type: ignore[method-assign]
        assert await is_spared(here)
        assert "the preset service is away" in held_back(here)


async def test_of_one_that_is_over_no_wish_is_kept_for_the_next_of_its_name() -> None:
    async with place() as here:
        await removed(here)

        def wish(record: record_pb2.OperatorRecord) -> None:
            record.approved_count = 0
            record.pause.actor = "anna"
            record.pause.processes.append(view_pb2.PROCESS_CREATE)
            record.resumes = 3

        await here.cycles.desk.change(WEB, wish)
        here.iaas.vms.clear()
        assert await here.cycles.run(WEB) is None
        left = await here.cycles.desk.read(WEB)
        assert not left.HasField("pause")
        assert not left.HasField("approved_count")
        # Whoever compares it with what he saw must not take a new one for an old one.
        assert left.resumes == 3


async def test_an_approval_that_was_given_while_the_one_before_was_used_up_stays() -> None:
    async with place() as here:
        await here.run()
        await approve(here, 1)
        list_vms = here.iaas.list_vms

        async def meanwhile(*asked: Any) -> Any:
            await approve(here, 40)
            return await list_vms(*asked)

        here.iaas.list_vms = meanwhile  # type: ignore[method-assign, assignment]
        await here.run()
        assert (await here.cycles.desk.read(WEB)).approved_count == 40
