from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestrator import archive as module
from orchestrator.archive import Archive, Legacy
from orchestrator.authority import Authority
from orchestrator.model import Memory, PresetName, VmId, VmMemory
from orchestrator.records import preset_record
from tests.support.shell import WEB, Store, authority
from vmshepherd.orchestrator.v1 import record_pb2, view_pb2
from vmshepherd_kit.errors import Refused, SessionLost, Unavailable, VersionMismatch
from vmshepherd_kit.testing import FakeClock

VIEWS = (view_pb2.PresetView(name="web"), [view_pb2.VmView(vm_id="a"), view_pb2.VmView(vm_id="b")])


async def held(mine: Authority) -> int:
    token = await mine.hold(WEB)
    assert isinstance(token, int)
    return token


async def refused(kept: Archive, store: Store) -> None:
    """A write that a store refuses which fails over just now."""
    store.refusing["put_state"] = Unavailable("failing over")
    with pytest.raises(Unavailable):
        await kept.keep(WEB, Memory(accepted_count=3))
    store.refusing.clear()


def record(store: Store) -> record_pb2.PresetRecord:
    return preset_record(store.store._states["preset/web"].value)


def archive(store: Store, mine: Authority, clock: FakeClock) -> Archive:
    return Archive(store, mine, clock=clock)  # type: ignore[arg-type]


async def test_nothing_is_written_that_has_not_changed() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        await kept.load(WEB, await held(mine))
        memory = Memory(accepted_count=2)
        for _ in range(3):
            await kept.keep(WEB, memory, shown="as before", views=lambda: VIEWS)
        assert store.calls["put_state"] == 1
        await kept.keep(WEB, memory, shown="otherwise", views=lambda: VIEWS)
        await kept.keep(WEB, Memory(accepted_count=3), shown="otherwise", views=lambda: VIEWS)
        assert store.calls["put_state"] == 3
        assert store.calls["get_state"] == 1


async def test_what_people_see_stays_in_the_store_while_intents_are_written() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        token = await held(mine)
        await kept.load(WEB, token)
        await kept.keep(WEB, Memory(), shown="now", views=lambda: VIEWS)
        await kept.keep(WEB, Memory(accepted_count=9))
        assert [each.vm_id for each in record(store).vm_views] == ["a", "b"]
        # And so they do under the next holder, before its first cycle ends.
        again = archive(store, mine, clock)
        await again.load(WEB, token)
        await again.keep(WEB, Memory(accepted_count=10))
        assert [each.vm_id for each in record(store).vm_views] == ["a", "b"]
        assert record(store).view.name == "web"


@pytest.mark.parametrize(("jump", "is_new"), [(3600, True), (-3600, True), (5, False)])
async def test_when_the_clock_is_set_every_timer_starts_anew(jump: int, is_new: bool) -> None:  # noqa: FBT001
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    booting = Memory(vms={VmId("a"): VmMemory(first_seen=clock.wall())})
    async with mine.kept():
        kept = archive(store, mine, clock)
        token = await held(mine)
        await kept.load(WEB, token)
        await kept.keep(WEB, booting)
        clock._wall += timedelta(seconds=jump)
        found = (await kept.load(WEB, token)).vms[VmId("a")]
        assert (found.first_seen == clock.wall()) is is_new
        await clock.advance(timedelta(seconds=2))
        assert (await kept.load(WEB, token)).vms[VmId("a")] == found


async def test_under_a_new_token_every_timer_starts_anew() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    long_ago = clock.wall() - timedelta(days=1)
    sick = VmMemory(first_seen=long_ago, failures=3, failing_since=long_ago, is_unhealthy=True)
    memory = Memory(vms={VmId("a"): sick})
    async with mine.kept():
        kept = archive(store, mine, clock)
        token = await held(mine)
        await kept.load(WEB, token)
        await kept.keep(WEB, memory)
        assert await kept.load(WEB, token) == memory
        await mine.release(WEB)
        newer = await held(mine)
        assert newer > token
        again = await kept.load(WEB, newer)
        assert again.vms[VmId("a")] == VmMemory(first_seen=clock.wall())


async def test_a_record_of_a_newer_version_is_not_touched() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        token = await held(mine)
        await kept.load(WEB, token)
        await kept.keep(WEB, Memory(accepted_count=1))
        value = record_pb2.PresetRecord(schema_version=2).SerializeToString()
        states = store.store._states
        states["preset/web"] = replace(states["preset/web"], value=value)
        kept.forget(WEB)
        with pytest.raises(Refused) as caught:
            await kept.load(WEB, token)
        assert caught.value.reason == "RECORD_TOO_NEW"
        with pytest.raises(Refused):
            await kept.peek(WEB)
        with pytest.raises(SessionLost):
            await kept.keep(WEB, Memory())
        await kept.clear(WEB)
        assert states["preset/web"].value == value


async def test_a_record_that_was_read_slowly_replaces_no_newer_one() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        token = await held(mine)
        newer = Memory(accepted_count=7)

        async def meanwhile() -> None:
            store.before.clear()
            await kept.load(WEB, token)
            await kept.keep(WEB, newer)

        store.before["get_state"] = meanwhile
        assert await kept.load(WEB, token) == newer
        await kept.keep(WEB, Memory(accepted_count=8))
        assert record(store).accepted_count == 8


async def test_a_write_without_an_answer_is_read_again() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        token = await held(mine)
        await kept.load(WEB, token)
        store.refusing["put_state"] = Unavailable("no answer")
        with pytest.raises(Unavailable):
            await kept.keep(WEB, Memory(accepted_count=1))
        store.refusing.clear()
        with pytest.raises(SessionLost):
            await kept.keep(WEB, Memory(accepted_count=1))
        assert await kept.load(WEB, token) == Memory()
        await kept.keep(WEB, Memory(accepted_count=2))
        kept._copies[WEB].version = 0
        with pytest.raises(VersionMismatch):
            await kept.keep(WEB, Memory(accepted_count=3))


@pytest.mark.parametrize("survives", [True, False])
async def test_what_a_store_that_failed_over_forgot_is_still_known_to_the_holder(
    survives: bool,  # noqa: FBT001
) -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        token = await held(mine)
        await kept.load(WEB, token)
        await kept.keep(WEB, Memory(accepted_count=1))
        copied = dict(store.store._states) if survives else {}
        await kept.keep(WEB, Memory(accepted_count=2), shown="now", views=lambda: VIEWS)
        store.store._states = copied
        await refused(kept, store)
        assert await kept.load(WEB, token) == Memory(accepted_count=2)
        await kept.keep(WEB, Memory(accepted_count=4))
        assert record(store).accepted_count == 4
        assert [each.vm_id for each in record(store).vm_views] == ["a", "b"]


async def test_what_a_store_forgot_is_known_however_often_it_fails_until_it_is_written_again() -> (
    None
):
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        token = await held(mine)
        await kept.load(WEB, token)
        await kept.keep(WEB, Memory(accepted_count=1))
        copied = dict(store.store._states)
        await kept.keep(WEB, Memory(accepted_count=2))
        store.store._states = copied
        for _ in range(3):
            await refused(kept, store)
            assert await kept.load(WEB, token) == Memory(accepted_count=2)
        await kept.keep(WEB, Memory(accepted_count=4))
        assert record(store).accepted_count == 4


async def test_what_a_store_forgot_is_written_again_though_nothing_has_changed() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        token = await held(mine)
        await kept.load(WEB, token)
        await kept.keep(WEB, Memory(accepted_count=1), shown="as before", views=lambda: VIEWS)
        copied = dict(store.store._states)
        await kept.keep(WEB, Memory(accepted_count=2), shown="as before", views=lambda: VIEWS)
        store.store._states = copied
        await refused(kept, store)
        memory = await kept.load(WEB, token)
        await kept.keep(WEB, memory, shown="as before", views=lambda: VIEWS)
        assert record(store).accepted_count == 2


async def test_what_another_holder_wrote_counts_whatever_this_one_remembers() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        token = await held(mine)
        await kept.load(WEB, token)
        await kept.keep(WEB, Memory(accepted_count=1))
        copied = dict(store.store._states)
        await kept.keep(WEB, Memory(accepted_count=2))
        store.store._states = copied
        await refused(kept, store)
        assert (await kept.load(WEB, token + 1)).accepted_count == 1
        kept.forget(WEB)
        assert (await kept.load(WEB, token)).accepted_count == 1


async def test_a_record_too_large_is_stored_without_its_views(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LARGEST", 100)
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        await kept.load(WEB, await held(mine))
        many = [view_pb2.VmView(vm_id=f"vm-{number}") for number in range(100)]
        await kept.keep(WEB, Memory(accepted_count=4), shown=1, views=lambda: (VIEWS[0], many))
        assert not record(store).vm_views
        assert record(store).accepted_count == 4


async def test_nothing_is_remembered_of_what_is_not_held() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        await kept.load(PresetName("other"), 7)
        assert not kept._copies
        await kept.load(WEB, await held(mine))
        kept.forget_all()
        assert not kept._copies


WILL = record_pb2.Will(provider="sim", spec_hash="spec-1")


async def test_the_last_will_is_written_with_whatever_is_kept_next_and_survives_its_holder() -> (
    None
):
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        await kept.load(WEB, await held(mine))
        kept.bequeath(WEB, Legacy(WILL))
        await kept.keep(WEB, Memory())
        assert record(store).will == WILL
        assert store.calls["put_state"] == 1
        await kept.keep(WEB, Memory())
        assert store.calls["put_state"] == 1
        # That it is removed is worth a write of its own, and is no timer that starts anew.
        removed = clock.wall()
        kept.bequeath(WEB, Legacy(WILL, removed))
        await kept.keep(WEB, Memory())
        await mine.release(WEB)
        await clock.advance(timedelta(hours=1))
        await kept.load(WEB, await held(mine))
        assert kept.legacy(WEB) == Legacy(WILL, removed)
        assert await kept.peek(WEB) == (Memory(), Legacy(WILL, removed))


async def test_a_removal_that_was_written_by_a_clock_ahead_of_ours_began_now() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        token = await held(mine)
        await kept.load(WEB, token)
        kept.bequeath(WEB, Legacy(WILL, clock.wall() + timedelta(days=1)))
        await kept.keep(WEB, Memory())
        kept.forget(WEB)
        await kept.load(WEB, token)
        assert kept.legacy(WEB).removed == clock.wall()


async def test_nothing_is_remembered_of_a_preset_that_is_over() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        kept = archive(store, mine, clock)
        token = await held(mine)
        await kept.load(WEB, token)
        await kept.clear(WEB)
        assert "preset/web" not in store.store._states
        kept.bequeath(WEB, Legacy(WILL, clock.wall()))
        vms = {VmId("a"): VmMemory(first_seen=clock.wall())}
        await kept.keep(WEB, Memory(vms=vms, accepted_count=1), views=lambda: VIEWS)
        await kept.clear(WEB)
        left = record(store)
        assert not left.HasField("will")
        assert not left.HasField("removed_time")
        assert not left.HasField("view")
        assert not left.vms
        assert not left.vm_views
