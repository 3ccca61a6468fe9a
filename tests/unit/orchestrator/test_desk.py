from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator.desk import Desk
from orchestrator.model import PresetName, VmId
from runtime_service.domain import LockWish, NewSession, SessionId
from tests.support.shell import WEB, Store, authority
from vmshepherd.orchestrator.v1 import record_pb2
from vmshepherd_kit.errors import Refused, Unavailable, VersionMismatch
from vmshepherd_kit.testing import FakeClock


@asynccontextmanager
async def desks(clock: FakeClock, store: Store) -> AsyncIterator[tuple[Desk, Desk]]:
    mine, yours = authority(store, clock), authority(store, clock, owner="you")
    async with mine.kept(), yours.kept():
        yield (
            Desk(store, mine, clock=clock),  # type: ignore[arg-type]
            Desk(store, yours, clock=clock),  # type: ignore[arg-type]
        )


def wanting(vm_id: str) -> record_pb2.TerminationWish:
    return record_pb2.TerminationWish(vm_id=vm_id)


async def test_wishes_of_many_at_two_replicas_do_not_lose_each_other() -> None:
    clock = FakeClock()
    store = Store(clock)
    async with desks(clock, store) as both:
        writing = [
            asyncio.create_task(
                both[number % 2].change(
                    WEB,
                    lambda record, n=number: record.terminations.append(wanting(f"vm-{n}")),  # type: ignore[misc]
                )
            )
            for number in range(10)
        ]
        while not all(task.done() for task in writing):
            await clock.advance(timedelta(milliseconds=50))
        wished = {wish.vm_id for wish in (await both[0].wishes(WEB)).terminations}
        assert wished == {f"vm-{number}" for number in range(10)}


async def test_wishes_that_are_done_are_struck_and_the_others_stay() -> None:
    clock = FakeClock()
    store = Store(clock)
    async with desks(clock, store) as (desk, _):
        for name in ("a", "b", "c"):
            await desk.change(WEB, lambda r, n=name: r.terminations.append(wanting(n)))  # type: ignore[misc]
        await desk.forget(WEB, [VmId("a"), VmId("c"), VmId("unknown")])
        assert [wish.vm_id for wish in (await desk.wishes(WEB)).terminations] == ["b"]


async def test_protections_go_with_their_vms_and_approvals_when_they_are_struck() -> None:
    clock = FakeClock()
    store = Store(clock)
    async with desks(clock, store) as (desk, _):

        def all_of_them(record: record_pb2.OperatorRecord) -> None:
            record.approved_count = 0
            record.protections.extend(record_pb2.Protection(vm_id=name) for name in ("a", "b"))
            record.terminations.append(wanting("b"))

        await desk.change(WEB, all_of_them)
        await desk.forget(WEB, [], gone=[VmId("a")])
        wishes = await desk.wishes(WEB)
        assert wishes.protections == {VmId("b")}
        assert wishes.approved_count == 0
        assert [wish.vm_id for wish in wishes.terminations] == ["b"]
        await desk.strike_approval(WEB)
        assert (await desk.wishes(WEB)).approved_count is None
        written = store.calls["put_state"]
        await desk.strike_approval(WEB)
        assert store.calls["put_state"] == written


async def test_a_wish_is_not_written_while_another_replica_keeps_the_lock() -> None:
    clock = FakeClock()
    store = Store(clock)
    session = SessionId("stuck")
    new = NewSession(session_id=session, owner="stuck", ttl=timedelta(minutes=5))
    await store.store.open_session(new)
    await store.store.try_lock(session, [LockWish("operator/web")])
    async with desks(clock, store) as (desk, _):
        changing = asyncio.create_task(desk.change(WEB, lambda r: r.ClearField("pause")))
        other = asyncio.create_task(
            desk.change(PresetName("other"), lambda r: r.ClearField("pause"))
        )
        await clock.advance(timedelta(milliseconds=60))
        # Nobody waits for the presets of others.
        assert other.done()
        assert not changing.done()
        await clock.advance(timedelta(seconds=2))
        with pytest.raises(VersionMismatch, match=r"by .*: try again; .* in \d+ s at the latest"):
            await changing


async def test_a_caller_that_goes_leaves_neither_half_a_wish_nor_a_lock() -> None:
    clock = FakeClock()
    store = Store(clock)
    async with desks(clock, store) as (desk, other):

        async def slow() -> None:
            store.before.clear()
            await clock.sleep(timedelta(seconds=1))

        store.before["put_state"] = slow
        asking = asyncio.create_task(
            desk.change(WEB, lambda r: r.terminations.append(wanting("a")))
        )
        await clock.advance(timedelta(milliseconds=500))
        asking.cancel()
        await clock.advance(timedelta(seconds=1))
        assert asking.cancelled()
        assert [wish.vm_id for wish in (await other.wishes(WEB)).terminations] == ["a"]
        await other.change(WEB, lambda r: r.ClearField("pause"))


async def test_a_wish_is_stored_though_its_lock_cannot_be_freed() -> None:
    clock = FakeClock()
    store = Store(clock)
    async with desks(clock, store) as (desk, _):
        store.refusing["unlock"] = Unavailable("away")
        record = await desk.change(WEB, lambda r: r.terminations.append(wanting("a")))
        assert [wish.vm_id for wish in record.terminations] == ["a"]
        store.refusing.clear()
        await desk.change(WEB, lambda r: r.terminations.append(wanting("b")))
        assert len((await desk.wishes(WEB)).terminations) == 2


async def test_without_a_session_people_are_told_to_come_again() -> None:
    clock = FakeClock()
    store = Store(clock)
    desk = Desk(store, authority(store, clock), clock=clock)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        await desk.change(WEB, lambda r: r.ClearField("pause"))


async def test_wishes_of_a_newer_version_are_not_touched() -> None:
    clock = FakeClock()
    store = Store(clock)
    async with desks(clock, store) as (desk, _):
        await desk.change(WEB, lambda r: r.terminations.append(wanting("a")))
        state = store.store._states["operator/web"]
        newer = record_pb2.OperatorRecord(schema_version=2).SerializeToString()
        store.store._states["operator/web"] = replace(state, value=newer)
        with pytest.raises(Refused):
            await desk.change(WEB, lambda r: r.ClearField("pause"))
        assert store.store._states["operator/web"].value == newer
