"""Several runtime_services over one ensemble, each with a clock of its own: what one says is so for
all, and nobody ends a session that is alive.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from kazoo.exceptions import ConnectionLoss, NoNodeError

from runtime_service.domain import (
    Event,
    EventQuery,
    HeldLock,
    LockWish,
    SessionId,
    StaleToken,
    VersionConflict,
    Written,
)
from runtime_service.drivers.zookeeper import ZookeeperRuntime
from runtime_service.drivers.zookeeper.operations import Delete, Operation, Set
from tests.support.zookeeper import Ensemble, ensemble_of_this_run
from tests.support.zookeeper_stores import TTL, event, lock, opened, session, write
from vmshepherd_kit.errors import SessionLost, Unavailable
from vmshepherd_kit.testing import FakeClock

pytestmark = pytest.mark.xdist_group("zookeeper")

LONG = timedelta(minutes=10)


@pytest.fixture
def node(pytestconfig: pytest.Config) -> Ensemble:
    return ensemble_of_this_run(pytestconfig, nodes=1)


def unnoticed(clock: FakeClock, duration: timedelta) -> None:
    """Let time pass, but wake nobody: what follows is done by the next call, by no look."""
    clock._move_to(clock.elapsed() + duration)


def before_commit(
    store: ZookeeperRuntime, when: type, happen: Callable[[], Awaitable[object]]
) -> None:
    """Once, right before the store commits an operation of that kind, something else happens."""
    commit = store._connection.commit

    async def after_that(*operations: Operation) -> list[Any]:
        if any(isinstance(each, when) for each in operations):
            store._connection.commit = commit  # type: ignore[method-assign]
            await happen()
        return await commit(*operations)

    store._connection.commit = after_that  # type: ignore[method-assign]


def lose_the_next_answer(store: ZookeeperRuntime) -> None:
    """The next transaction is done, and the connection breaks before its answer comes."""
    commit = store._connection.commit

    async def lost(*operations: Operation) -> list[Any]:
        store._connection.commit = commit  # type: ignore[method-assign]
        await commit(*operations)
        raise ConnectionLoss

    store._connection.commit = lost  # type: ignore[method-assign]


async def test_a_lock_excludes_across_stores(node: Ensemble) -> None:
    room = node.room()
    async with opened(node.servers, room) as one, opened(node.servers, room) as two:
        mine, other = await session(one, "mine", ttl=LONG), await session(two, "other", ttl=LONG)
        token = await lock(one, mine)
        assert token
        assert await lock(two, other) is None
        assert await one.unlock(mine, [HeldLock("a", token)]) == [True]
        taken = await lock(two, other)
        assert taken
        assert taken > token
        late = await one.put_states(mine, [write(b"late", token)])
        assert late == [StaleToken(taken)]


async def test_who_waits_at_one_store_is_woken_by_an_event_through_another(node: Ensemble) -> None:
    room = node.room()
    async with opened(node.servers, room) as one, opened(node.servers, room) as two:
        waiting = asyncio.create_task(two.grown_beyond(0))
        [sequence] = await one.append_events([event("e")])
        async with asyncio.timeout(10):
            await waiting
        page = await two.read_events(EventQuery())
        assert [stored.sequence for stored in page.events] == [sequence]


async def test_events_appended_through_many_stores_at_once_are_all_there_once(
    node: Ensemble,
) -> None:
    room = node.room()
    # Their clocks stand still: no look in the background helps.
    async with (
        opened(node.servers, room, clock=FakeClock()) as one,
        opened(node.servers, room, clock=FakeClock()) as two,
    ):
        batches = [[event(f"{i}-{j}", "x" * 900) for j in range(5)] for i in range(20)]
        told = await asyncio.gather(
            *(store.append_events(batch) for batch in batches for store in (one, two))
        )
        assert told[::2] == told[1::2]
        page = await two.read_events(EventQuery(ascending=True, limit=1000))
        assert [stored.sequence for stored in page.events] == list(range(1, 101))
        assert {e.event.event_id: e.sequence for e in page.events} == {
            each.event_id: sequence
            for batch, sequences in zip(batches, told[::2], strict=True)
            for each, sequence in zip(batch, sequences, strict=True)
        }


async def test_a_session_that_is_refreshed_through_one_store_is_alive_for_the_other(
    node: Ensemble,
) -> None:
    room, clock, fast = node.room(), FakeClock(), FakeClock()
    async with (
        opened(node.servers, room, clock=clock) as one,
        opened(node.servers, room, clock=fast) as two,
    ):
        holder, other = await session(one, "holder"), await session(two, "other", ttl=LONG)
        assert await lock(one, holder)
        for _ in range(5):
            assert await lock(two, other) is None
            unnoticed(fast, TTL * 0.9)
            unnoticed(clock, TTL * 0.9)
            await one.refresh_session(holder)
            # Whatever the other saw last, it sees the new beat before it judges.
            unnoticed(fast, TTL * 0.9)


async def test_a_refresh_that_comes_first_prevents_the_end(node: Ensemble) -> None:
    room, clock, fast = node.room(), FakeClock(), FakeClock()
    async with (
        opened(node.servers, room, clock=clock) as one,
        opened(node.servers, room, clock=fast) as two,
    ):
        holder, other = await session(one, "holder"), await session(two, "other", ttl=LONG)
        token = await lock(one, holder)
        assert await lock(two, other) is None
        unnoticed(fast, TTL * 1.5)
        before_commit(two, Delete, lambda: one.refresh_session(holder))
        assert await lock(two, other) is None
        assert await one.put_states(holder, [write(b"alive", token)]) == [Written(1)]


async def test_a_session_that_one_store_refused_comes_not_back_through_another(
    node: Ensemble,
) -> None:
    room, clock, slow = node.room(), FakeClock(), FakeClock()
    async with (
        opened(node.servers, room, clock=clock) as one,
        opened(node.servers, room, clock=slow) as two,
    ):
        holder = await session(one, "holder", lock_delay=TTL * 5)
        token = await lock(one, holder)
        assert (await two.list_sessions(after=0, limit=10)).items
        unnoticed(clock, TTL * 1.1)
        with pytest.raises(SessionLost):
            await one.refresh_session(holder)
        with pytest.raises(SessionLost):
            await two.refresh_session(holder)
        with pytest.raises(SessionLost):
            await two.put_states(holder, [write(b"late", token)])
        assert not (await two.list_sessions(after=0, limit=10)).items


async def test_what_one_store_says_is_free_is_free_for_all(node: Ensemble) -> None:
    room, clock, slow = node.room(), FakeClock(), FakeClock()
    async with (
        opened(node.servers, room, clock=clock) as one,
        opened(node.servers, room, clock=slow) as two,
    ):
        holder, other = await session(one, "holder"), await session(two, "other", ttl=LONG)
        assert await lock(one, holder)
        assert await lock(two, other) is None
        unnoticed(clock, TTL * 1.1)
        assert [each.owner for each in (await one.list_locks(after="", limit=9)).items] == [None]
        assert await lock(two, other)


async def test_a_lock_delay_is_waited_for_by_whoever_sees_the_end_later(node: Ensemble) -> None:
    room, clock, late = node.room(), FakeClock(), FakeClock()
    async with opened(node.servers, room, clock=clock) as one:
        holder = await session(one, "holder", lock_delay=TTL * 2)
        assert await lock(one, holder)
        unnoticed(clock, TTL * 1.1)
        with pytest.raises(SessionLost):
            await one.refresh_session(holder)
        async with opened(node.servers, room, clock=late) as two:
            other = await session(two, "other", ttl=LONG)
            assert await lock(two, other) is None
            unnoticed(late, TTL * 1.9)
            assert await lock(two, other) is None
            unnoticed(late, TTL * 0.2)
            assert await lock(two, other)


async def test_a_dead_owners_session_ends_although_nobody_asks(node: Ensemble) -> None:
    room = node.room()
    async with opened(node.servers, room) as one:
        await session(one, "dead", ttl=timedelta(milliseconds=300))
        known = f"{room}/store/sessions"
        async with asyncio.timeout(20):
            while await one._connection.children(known):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_no_act_of_a_session_comes_after_its_end(node: Ensemble) -> None:
    room = node.room()
    async with opened(node.servers, room) as one, opened(node.servers, room) as two:
        holder = await session(one, "holder", ttl=LONG)
        token = await lock(one, holder)
        assert token
        before_commit(one, object, lambda: two.close_session(holder))
        assert await one.put_states(holder, [write(b"late", token)]) == [StaleToken(token)]
        assert await two.get_states(["a"]) == [None]

        again = await session(one, "again", ttl=LONG)
        before_commit(one, object, lambda: two.close_session(again))
        with pytest.raises(SessionLost):
            await lock(one, again, "b")
        assert await lock(two, await session(two, "third", ttl=LONG), "b")


async def test_a_write_upon_a_lock_that_is_taken_meanwhile_is_stale(node: Ensemble) -> None:
    room = node.room()
    async with opened(node.servers, room) as one, opened(node.servers, room) as two:
        holder, other = await session(one, "holder", ttl=LONG), await session(two, "o", ttl=LONG)
        token = await lock(one, holder)
        assert token

        async def hand_over() -> None:
            await two.unlock(holder, [HeldLock("a", token)])
            assert await lock(two, other)

        before_commit(one, object, hand_over)
        [outcome] = await one.put_states(holder, [write(b"late", token)])
        assert isinstance(outcome, StaleToken)
        assert outcome.newest > token


async def test_of_two_who_give_a_lock_back_or_close_a_session_one_is_told_so(
    node: Ensemble,
) -> None:
    room = node.room()
    async with opened(node.servers, room) as one, opened(node.servers, room) as two:
        holder = await session(one, "holder", ttl=LONG)
        token = await lock(one, holder)
        assert token
        held = [HeldLock("a", token)]
        before_commit(one, Set, lambda: two.unlock(holder, held))
        assert await one.unlock(holder, held) == [False]
        before_commit(one, Delete, lambda: two.close_session(holder))
        assert not await one.close_session(holder)


async def test_of_two_writes_upon_one_version_one_is_refused(node: Ensemble) -> None:
    room = node.room()
    async with opened(node.servers, room) as one, opened(node.servers, room) as two:
        holder = await session(one, "holder", ttl=LONG)
        token = await lock(one, holder)
        before_commit(one, object, lambda: two.put_states(holder, [write(b"first", token)]))
        assert await one.put_states(holder, [write(b"second", token)]) == [VersionConflict(1)]
        third = write(b"third", token, version=1)
        before_commit(one, object, lambda: two.put_states(holder, [third]))
        fourth = write(b"fourth", token, version=1)
        assert await one.put_states(holder, [fourth]) == [VersionConflict(2)]
        [state] = await one.get_states(["a"])
        assert state
        assert state.value == b"third"


async def test_what_lost_its_answer_is_told_as_it_was_done(node: Ensemble) -> None:
    room = node.room()
    async with opened(node.servers, room) as one:
        lose_the_next_answer(one)
        holder = await session(one, "holder", ttl=LONG)
        lose_the_next_answer(one)
        token = await lock(one, holder)
        assert token == 1
        lose_the_next_answer(one)
        assert await one.put_states(holder, [write(b"one", token)]) == [Written(1)]
        lose_the_next_answer(one)
        assert await one.put_states(holder, [write(b"two", token, version=1)]) == [Written(2)]
        lose_the_next_answer(one)
        assert (await one.refresh_session(holder, {"a": "b"})).labels == {"a": "b"}
        lose_the_next_answer(one)
        assert await one.append_events([event("e"), event("f")]) == [1, 2]
        lose_the_next_answer(one)
        assert await one.unlock(holder, [HeldLock("a", token)]) == [True]
        assert await one.unlock(holder, [HeldLock("a", token)]) == [False]
        lose_the_next_answer(one)
        assert await one.close_session(holder)
        assert not await one.close_session(holder)


async def test_names_are_whatever_people_call_things(node: Ensemble) -> None:
    names = ["/", "//", ".", "..", "a/b", "a", "%2F", "ü" * 256, "\U0001f411" * 256, "zookeeper"]
    async with opened(node.servers, node.room()) as one:
        holder = await session(one, "../../ö", ttl=LONG)
        grants = await one.try_lock(holder, [LockWish(name) for name in names])
        assert len(grants) == len(names)
        for name in names:
            put = await one.put_states(holder, [write(name.encode(), 1, name=name)])
            assert put == [Written(1)]
        states = await one.get_states(names)
        assert [state and state.value.decode() for state in states] == names
        listed = await one.list_locks(after="", limit=100)
        assert [each.name for each in listed.items] == sorted(names)


async def test_a_value_of_a_mebibyte_that_cannot_be_compressed_is_kept(node: Ensemble) -> None:
    room = node.room()
    async with opened(node.servers, room) as one, opened(node.servers, room) as two:
        holder = await session(one, "holder", ttl=LONG)
        token = await lock(one, holder)
        kept = f"{room}/store/states/a"
        for version, size in enumerate((2**20, 10, 2**20, 2**20, 0)):
            value = os.urandom(size)
            if size == 2**20:
                lose_the_next_answer(one)
            outcome = await one.put_states(holder, [write(value, token, version=version)])
            assert outcome == [Written(version + 1)]
            [state] = await two.get_states(["a"])
            assert state
            assert state.value == value
            # Nothing is left of the values before.
            assert len(await one._connection.children(kept)) == (3 if size else 0) * (size > 10)


async def test_parts_that_were_swept_before_they_were_named_are_written_again(
    node: Ensemble,
) -> None:
    room = node.room()
    async with opened(node.servers, room) as one, opened(node.servers, room) as two:
        holder = await session(one, "holder", ttl=LONG)
        token = await lock(one, holder)
        assert await one.put_states(holder, [write(b"small", token)]) == [Written(1)]
        commit, path = one._connection.commit, f"{room}/store/states/a"

        async def swept(*operations: Operation) -> list[Any]:
            parts = await two._connection.children(path)
            if len(parts) == 3:
                one._connection.commit = commit  # type: ignore[method-assign]
                await two._connection.commit(*(Delete(f"{path}/{part}") for part in parts))
            return await commit(*operations)

        one._connection.commit = swept  # type: ignore[method-assign]
        value = os.urandom(2**20)
        assert await one.put_states(holder, [write(value, token, version=1)]) == [Written(2)]
        [state] = await two.get_states(["a"])
        assert state
        assert state.value == value


async def test_a_batch_of_events_of_many_mebibytes_is_stored_whole(node: Ensemble) -> None:
    room = node.room()
    events = [event(f"e{i}", os.urandom(4000).hex()) for i in range(600)]
    async with opened(node.servers, room, max_events=1000) as one:
        lose_the_next_answer(one)
        assert await one.append_events(events) == list(range(1, 601))
        assert await one.append_events([event("last")]) == [601]
        async with opened(node.servers, room, max_events=1000) as two:
            found: list[Event] = []
            while len(found) < 601:
                page = await two.read_events(
                    EventQuery(ascending=True, after=len(found), limit=1000)
                )
                found += [stored.event for stored in page.events]
            assert found == [*events, event("last")]
            more = [event(f"f{i}", os.urandom(4000).hex()) for i in range(600)]
            await two.append_events(more)
            await two.append_events([event(f"g{i}") for i in range(900)])
            await two.append_events([event(f"h{i}", "x" * 3000) for i in range(10)])
            # What is forgotten is deleted, in both places.
            assert len(await two._connection.children(f"{room}/store/parts")) < 8
            page = await two.read_events(EventQuery(ascending=True, limit=1))
            assert (page.forgotten, page.newest) == (1111, 2111)


async def test_events_that_were_half_stored_are_not_there(node: Ensemble) -> None:
    room = node.room()
    async with opened(node.servers, room) as one:
        commit = one._connection.commit
        lost = iter([ConnectionLoss()] * 5)

        async def never(*operations: Operation) -> list[Any]:
            if any(each.path.endswith("/journal") for each in operations):
                raise next(lost, Unavailable("it was tried for long enough"))
            return await commit(*operations)

        one._connection.commit = never  # type: ignore[method-assign]
        events = [event(f"e{i}", os.urandom(4000).hex()) for i in range(300)]
        with pytest.raises(Unavailable):
            await one.append_events(events)
        one._connection.commit = commit  # type: ignore[method-assign]
        assert not (await one.read_events(EventQuery())).events
        assert await one.append_events(events[:200]) == list(range(1, 201))
        page = await one.read_events(EventQuery(ascending=True, limit=1000))
        assert page.newest == 200
        # What was left of it is swept.
        assert len(await one._connection.children(f"{room}/store/parts")) < 8


async def test_an_emptied_node_is_not_believed(node: Ensemble) -> None:
    room = node.room()
    async with opened(node.servers, room) as one, opened(node.servers, room) as two:
        holder, other = await session(one, "holder", ttl=LONG), await session(two, "o", ttl=LONG)
        token = await lock(one, holder)
        assert await one.put_states(holder, [write(b"one", token)]) == [Written(1)]
        ask, lies = two._connection._ask, iter(range(6))

        async def emptied(path: str, *sends: Any) -> list[Any]:
            answers = await ask(path, *sends)
            if answers[-1] and len(answers) == 3 and next(lies, None) is not None:
                nothing = await ask(path, *(lambda zk: zk.exists_async("/nowhere") for _ in "."))
                nodes = answers[1]
                gone = [NoNodeError() for _ in nodes]
                return [answers[0], gone, *nothing]
            return answers

        two._connection._ask = emptied  # type: ignore[method-assign]
        [state] = await two.get_states(["a"])
        assert state
        assert await lock(two, other) is None
        assert (await two.refresh_session(holder)).owner == "holder"


async def test_a_holder_that_was_overlooked_loses_nothing(node: Ensemble) -> None:
    room = node.room()
    async with opened(node.servers, room) as one, opened(node.servers, room) as two:
        holder, other = await session(one, "holder", ttl=LONG), await session(two, "o", ttl=LONG)
        assert await lock(one, holder)
        find, overlooked = two._registry.find, iter([True])

        async def blind(ids: Any, *, lax: bool = False) -> Any:
            wanted = set(ids)
            if len(wanted) > 1 and next(overlooked, False):
                wanted -= {SessionId("holder")}
            return await find(wanted, lax=lax)

        two._registry.find = blind  # type: ignore[method-assign]
        assert await lock(two, other) is None
        assert next(overlooked, None) is None
