from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from orchestrator.authority import RECKONING
from orchestrator.clients.runtime import Held, Wish
from orchestrator.model import PresetName
from runtime_service.domain import SessionId
from tests.support.shell import WEB, Store, authority, soon
from vmshepherd_kit.errors import OutcomeUnknown, SessionLost, StaleFencingToken, Unavailable
from vmshepherd_kit.testing import FakeClock

SECOND = timedelta(seconds=1)


async def hang(clock: FakeClock, seconds: float) -> None:
    await clock.sleep(timedelta(seconds=seconds))


async def test_the_end_of_authority_is_counted_from_before_the_request() -> None:
    clock = FakeClock()
    store = Store(clock)
    store.before["open_session"] = lambda: hang(clock, 2)
    mine = authority(store, clock)
    block = mine.kept()
    keeping = asyncio.ensure_future(block.__aenter__())
    await clock.advance(2 * SECOND)
    await keeping
    # ttl 20 s less a margin of 4 s, from the moment at which the request left.
    assert mine.remaining() == timedelta(seconds=14)
    await block.__aexit__(None, None, None)


async def test_a_refresh_moves_the_end_by_when_it_was_sent() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        store.before["refresh_session"] = lambda: hang(clock, 1)
        await clock.advance(timedelta(seconds=6))
        assert mine.remaining() == timedelta(seconds=15)


async def test_refreshes_that_hang_end_authority_and_then_the_session() -> None:
    clock = FakeClock()
    store, changes = Store(clock), list[bool]()
    mine = authority(store, clock, changed=changes.append)

    async def no_answer() -> None:
        await clock.sleep(timedelta(seconds=3))
        raise OutcomeUnknown("no answer")

    async with mine.kept():
        await mine.hold(WEB)
        store.before["refresh_session"] = no_answer
        await clock.advance(timedelta(seconds=15.9))
        assert mine.remaining() > timedelta(0)
        await clock.advance(timedelta(seconds=0.2))
        with pytest.raises(SessionLost):
            mine.remaining()
        with pytest.raises(SessionLost):
            await mine.hold(WEB)
        assert changes == [True]
        await clock.advance(timedelta(seconds=3))
        assert changes[:2] == [True, False]
        assert mine.token(WEB) is None
        # Before the store could give the lock to another.
        assert clock.elapsed() < timedelta(seconds=20)


async def test_an_answer_that_the_session_is_lost_drops_locks_and_opens_another() -> None:
    clock = FakeClock()
    store, changes = Store(clock), list[bool]()
    mine = authority(store, clock, changed=changes.append)
    async with mine.kept():
        token = await mine.hold(WEB)
        first = mine.session_id
        await store.store.close_session(SessionId(first))
        await clock.advance(timedelta(seconds=5))
        assert changes == [True, False, True]
        assert mine.session_id not in {"", first}
        assert mine.token(WEB) is None
        again = await mine.hold(WEB)
        assert isinstance(again, int)
        assert isinstance(token, int)
        assert again > token


async def test_the_end_frees_what_was_held() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine, yours = authority(store, clock), authority(store, clock, owner="you")
    async with yours.kept():
        async with mine.kept():
            await mine.hold(WEB)
            held = await yours.hold(WEB)
            assert isinstance(held, Held)
            assert held.owner == "me"
        assert isinstance(await yours.hold(WEB), int)


async def test_a_lock_that_is_granted_to_a_former_session_is_nobodys() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        first, granting = mine.session_id, store.try_lock

        async def answer_late(wish: Wish) -> int | Held:
            answer = await granting(wish)
            await store.store.close_session(SessionId(first))
            await clock.sleep(timedelta(seconds=6))
            return answer

        store.try_lock = answer_late  # type: ignore[method-assign]
        holding = asyncio.create_task(mine.hold(WEB))
        await clock.advance(timedelta(seconds=7))
        with pytest.raises(SessionLost):
            await holding
        assert mine.token(WEB) is None


async def test_a_lock_that_was_outgrown_is_taken_again_above_the_floor() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        token = await mine.hold(WEB)
        assert isinstance(token, int)
        floor = token + 1000
        await mine.yield_to(WEB, StaleFencingToken("older", floor=str(floor)))
        again = await mine.hold(WEB)
        assert isinstance(again, int)
        assert again > floor


async def test_a_lock_that_cannot_be_freed_is_given_up_all_the_same() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        await mine.hold(WEB)
        store.refusing["unlock"] = Unavailable("the store is away")
        await mine.yield_to(WEB, StaleFencingToken("older", floor="7"))
        assert mine.token(WEB) is None


async def test_a_lock_that_could_not_be_freed_is_freed_as_soon_as_the_store_is_back() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine, yours = authority(store, clock), authority(store, clock, owner="you")
    async with mine.kept(), yours.kept():
        await mine.hold(WEB)
        store.refusing["unlock"] = Unavailable("the store is away")
        await mine.release(WEB)
        await clock.advance(timedelta(seconds=11))
        assert isinstance(await yours.hold(WEB), Held)
        store.refusing.clear()
        await clock.advance(timedelta(seconds=5))
        assert isinstance(await yours.hold(WEB), int)


async def test_a_lock_that_is_being_given_back_is_not_given_out_under_its_former_token() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    async with mine.kept():
        former = await mine.hold(WEB)
        store.refusing["unlock"] = Unavailable("the store is away")
        await mine.release(WEB)
        assert isinstance(await mine.hold(WEB), Held)
        assert mine.token(WEB) is None
        store.refusing.clear()
        newer = await mine.hold(WEB)
        assert isinstance(former, int)
        assert isinstance(newer, int)
        assert newer > former


async def test_a_lock_that_was_granted_without_our_hearing_it_is_freed() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine, other = authority(store, clock), authority(store, clock, owner="b")
    async with mine.kept(), other.kept():
        wish = Wish(mine.session_id, "preset/web", 0)
        assert isinstance(await store.try_lock(wish), int)
        assert isinstance(await other.hold(WEB), Held)
        await clock.advance(RECKONING + timedelta(seconds=5))
        assert isinstance(await other.hold(WEB), int)


async def test_a_lock_that_is_held_or_asked_for_is_not_taken_for_one_that_is_left() -> None:
    clock = FakeClock()
    store = Store(clock)
    mine = authority(store, clock)
    other = PresetName("other")
    async with mine.kept():
        token = await mine.hold(WEB)
        # Granted while the locks are listed, and its answer comes later.
        store.after["try_lock"] = lambda: hang(clock, 40)
        asking = asyncio.ensure_future(mine.hold(other))
        await clock.advance(RECKONING + timedelta(seconds=15))
        assert mine.token(other) == await asking
        assert not store.calls["unlock"]
        assert await mine.hold(WEB) == token


async def test_what_others_should_know_goes_along_with_a_refresh_and_at_once_when_asked() -> None:
    clock = FakeClock()
    store, labels = Store(clock), {"share": "100"}
    mine = authority(store, clock, labels=lambda: dict(labels))

    async def told() -> list[str]:
        return [session.labels["share"] for session in await store.sessions()]

    async with mine.kept():
        assert await told() == ["100"]
        labels["share"] = "70"
        assert await told() == ["100"]
        await mine.announce()
        assert await told() == ["70"]
        labels["share"] = "50"
        await clock.advance(timedelta(seconds=5))
        assert await told() == ["50"]


async def test_a_start_without_a_store_does_not_wait_for_it() -> None:
    clock = FakeClock()
    store = Store(clock)
    store.refusing["open_session"] = Unavailable("the store is away")
    mine = authority(store, clock)
    async with mine.kept():
        with pytest.raises(SessionLost, match="the store is away"):
            mine.remaining()
        del store.refusing["open_session"]
        await clock.advance(SECOND)
        assert mine.remaining() > timedelta(0)
    await soon(clock)
