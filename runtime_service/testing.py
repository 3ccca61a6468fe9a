# ruff: noqa: S101, D102, PLR2004
"""What every store must do, as tests: subclass `RuntimeStoreContract` and give it a `lab`.

    class TestMine(RuntimeStoreContract):
        @pytest.fixture
        async def lab(self):
            async with Lab.running(open_store, advance=clock.advance) as lab:
                yield lab

A durable store subclasses `DurableStoreContract` instead.  `advance` moves the store's clock: that
of a fake one, or a real one by waiting, with a `ttl` that is worth waiting for.  Only sessions that
are to expire live so short: a busy machine has that long for what a test does with them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Final

import pytest

from vmshepherd_kit.errors import BadRequest, SessionLost

from .domain import (
    ANSWER_BYTES,
    MIB,
    PAGE_BYTES,
    Acquired,
    Event,
    EventFilter,
    EventQuery,
    FencingToken,
    Held,
    HeldLock,
    LockWish,
    NewSession,
    SessionId,
    StaleToken,
    State,
    StateWrite,
    VersionConflict,
    Written,
)
from .port import RuntimeStore

MAX_EVENTS: Final = 200
"""How many events the journals of these tests must be opened to hold."""

_LIFE: Final = timedelta(minutes=10)
"""Of sessions whose end nobody waits for: however slow the machine, they do not expire."""
_LONG_AGO: Final = datetime(2020, 2, 29, 12, 30, 45, 123456, tzinfo=UTC)


class Lab:
    """An open store, its clock, and the few steps that most tests begin with."""

    def __init__(
        self,
        open_store: Callable[[], AbstractAsyncContextManager[RuntimeStore]],
        advance: Callable[[timedelta], Awaitable[None]],
        ttl: timedelta,
    ) -> None:
        self._open_store = open_store
        self._opened = AsyncExitStack()
        self._numbers = count(1)
        self.advance = advance
        self.ttl = ttl
        self.store: RuntimeStore

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        open_store: Callable[[], AbstractAsyncContextManager[RuntimeStore]],
        *,
        advance: Callable[[timedelta], Awaitable[None]],
        ttl: timedelta = timedelta(seconds=10),
    ) -> AsyncIterator[Lab]:
        """A lab whose store is open within the block."""
        lab = cls(open_store, advance, ttl)
        try:
            await lab.reopen()
            yield lab
        finally:
            await lab._opened.aclose()

    async def reopen(self) -> None:
        """Close the store and open it again, as a restart of the service does."""
        await self._opened.aclose()
        self.store = await self._opened.enter_async_context(self._open_store())

    async def session(
        self, *, ttl: timedelta = _LIFE, lock_delay: timedelta = timedelta(0)
    ) -> SessionId:
        """A new session."""
        number = next(self._numbers)
        new = NewSession(
            session_id=SessionId(f"session-{number}"),
            owner=f"owner-{number}",
            ttl=ttl,
            lock_delay=lock_delay,
            labels={"host": f"h{number}"},
        )
        return (await self.store.open_session(new)).session_id

    async def lock(self, session: SessionId, name: str, *, floor: int = 0) -> FencingToken:
        """The token of a lock that must be free."""
        [grant] = await self.store.try_lock(session, [LockWish(name, floor)])
        assert isinstance(grant, Acquired)
        return grant.fencing_token

    async def is_refused(self, session: SessionId, name: str) -> Held:
        """Who holds a lock that must be taken."""
        [grant] = await self.store.try_lock(session, [LockWish(name)])
        assert isinstance(grant, Held)
        return grant

    async def state(self, name: str) -> State | None:
        """One state."""
        [state] = await self.store.get_states([name])
        return state

    async def written(self, values: Mapping[str, bytes]) -> tuple[SessionId, FencingToken]:
        """A session that holds the locks of these names and has written these values."""
        session = await self.session()
        grants = await self.store.try_lock(session, [LockWish(name) for name in values])
        writes = [
            put(name, value, token=grant.fencing_token)
            for (name, value), grant in zip(values.items(), grants, strict=True)
            if isinstance(grant, Acquired)
        ]
        for write in writes:
            assert await self.store.put_states(session, [write]) == [Written(1)]
        assert len(writes) == len(values)
        return session, writes[-1].fencing_token


def put(name: str, value: bytes, *, token: int, version: int = 0) -> StateWrite:
    """A write."""
    return StateWrite(
        name=name, value=value, fencing_token=FencingToken(token), expected_version=version
    )


def happened(number: int, *, preset: str = "", vm_id: str = "", kind: str = "") -> Event:
    """An event."""
    time = _LONG_AGO + timedelta(seconds=number)
    return Event(event_id=f"event-{number}", time=time, preset=preset, vm_id=vm_id, kind=kind)


class SessionContract:
    """Sessions live by the store's clock."""

    async def test_a_session_lives_while_it_is_refreshed(self, lab: Lab) -> None:
        # Long, and refreshed often: the machine may stand still for nine tenths of it.
        ttl = lab.ttl * 3
        session = await lab.session(ttl=ttl)
        for _ in range(12):
            await lab.advance(ttl * 0.1)
            assert (await lab.store.refresh_session(session)).remaining <= ttl
        assert await lab.lock(session, "a")

    async def test_a_refresh_with_labels_replaces_them_and_one_without_keeps_them(
        self, lab: Lab
    ) -> None:
        session = await lab.session()
        assert (await lab.store.refresh_session(session)).labels == {"host": "h1"}
        told = await lab.store.refresh_session(session, {"share": "60", "ort": "Köln"})
        assert told.labels == {"share": "60", "ort": "Köln"}
        await lab.store.refresh_session(session)
        page = await lab.store.list_sessions(after=0, limit=10)
        assert [each.labels for each in page.items] == [{"share": "60", "ort": "Köln"}]

    async def test_an_expired_session_is_lost_even_if_nobody_took_over(self, lab: Lab) -> None:
        session = await lab.session(ttl=lab.ttl)
        await lab.advance(lab.ttl * 1.1)
        with pytest.raises(SessionLost):
            await lab.store.refresh_session(session)
        with pytest.raises(SessionLost):
            await lab.store.refresh_session(session)

    async def test_a_lost_session_gets_and_writes_nothing(self, lab: Lab) -> None:
        session = await lab.session(ttl=lab.ttl, lock_delay=lab.ttl)
        token = await lab.lock(session, "a")
        await lab.advance(lab.ttl * 1.1)
        with pytest.raises(SessionLost):
            await lab.store.try_lock(session, [LockWish("b")])
        with pytest.raises(SessionLost):
            await lab.store.put_states(session, [put("a", b"late", token=token)])
        assert await lab.state("a") is None

    async def test_an_unknown_session_is_a_lost_one(self, lab: Lab) -> None:
        with pytest.raises(SessionLost):
            await lab.store.refresh_session(SessionId("nobody"))

    async def test_a_closed_session_is_gone_and_closing_it_again_is_no_error(
        self, lab: Lab
    ) -> None:
        session = await lab.session()
        assert await lab.store.close_session(session)
        assert not await lab.store.close_session(session)
        with pytest.raises(SessionLost):
            await lab.store.refresh_session(session)

    async def test_live_sessions_are_listed_in_the_order_of_their_opening(self, lab: Lab) -> None:
        ids = [await lab.session() for _ in range(4)]
        await lab.store.close_session(ids[1])
        first = await lab.store.list_sessions(after=0, limit=2)
        assert [s.session_id for s in first.items] == [ids[0], ids[2]]
        assert first.more
        second = await lab.store.list_sessions(after=first.items[-1].number, limit=2)
        assert [(s.session_id, s.owner, s.labels) for s in second.items] == [
            (ids[3], "owner-4", {"host": "h4"})
        ]
        assert not second.more

    async def test_an_expired_session_is_not_listed(self, lab: Lab) -> None:
        lives, expires = await lab.session(), await lab.session(ttl=lab.ttl)
        page = await lab.store.list_sessions(after=0, limit=10)
        assert [s.session_id for s in page.items] == [lives, expires]
        await lab.advance(lab.ttl * 1.1)
        page = await lab.store.list_sessions(after=0, limit=10)
        assert [s.session_id for s in page.items] == [lives]

    async def test_labels_come_back_as_they_were_told(self, lab: Lab) -> None:
        session = await lab.session()
        labels = {"\0 and \\u0000": 'a "quoted"\n\0\x7f\u2028\U0010ffff', "": ""}
        assert (await lab.store.refresh_session(session, labels)).labels == labels
        page = await lab.store.list_sessions(after=0, limit=10)
        assert [each.labels for each in page.items] == [labels]


class LockContract:
    """One holder a name, and tokens that only grow."""

    async def test_a_second_holder_is_told_no_and_not_by_an_error(self, lab: Lab) -> None:
        holder, other = await lab.session(), await lab.session()
        await lab.lock(holder, "a")
        held = await lab.is_refused(other, "a")
        assert held.owner == "owner-1"
        assert timedelta(0) < held.remaining <= _LIFE

    async def test_asked_again_after_a_lost_reply_the_token_is_the_same(self, lab: Lab) -> None:
        session = await lab.session()
        assert await lab.lock(session, "a") == await lab.lock(session, "a")

    async def test_a_floor_above_the_token_that_is_held_gives_a_greater_one(self, lab: Lab) -> None:
        session = await lab.session()
        token = await lab.lock(session, "a")
        newer = await lab.lock(session, "a", floor=token + 5)
        assert newer == token + 6
        assert await lab.lock(session, "a", floor=token) == newer

    async def test_every_new_grant_has_a_greater_token(self, lab: Lab) -> None:
        tokens = []
        for floor in (0, 0, 10**15, 0):
            session = await lab.session()
            tokens.append(await lab.lock(session, "a", floor=floor))
            await lab.store.close_session(session)
        assert tokens == sorted(set(tokens))
        assert tokens[0] > 0
        assert tokens[2] > 10**15

    async def test_a_name_asked_for_twice_at_once_is_granted_once(self, lab: Lab) -> None:
        session = await lab.session()
        first, second = await lab.store.try_lock(session, [LockWish("a"), LockWish("a")])
        assert first == second

    async def test_a_crashed_holder_keeps_its_lock_for_life_and_delay(self, lab: Lab) -> None:
        crashed = await lab.session(ttl=lab.ttl, lock_delay=lab.ttl * 2)
        token = await lab.lock(crashed, "a")
        await lab.advance(lab.ttl * 1.2)
        held = await lab.is_refused(await lab.session(), "a")
        assert lab.ttl < held.remaining < lab.ttl * 2
        await lab.advance(lab.ttl * 2)
        assert await lab.lock(await lab.session(), "a") > token

    async def test_a_closed_session_frees_its_locks_at_once(self, lab: Lab) -> None:
        session = await lab.session(lock_delay=lab.ttl * 5)
        token = await lab.lock(session, "a")
        await lab.store.close_session(session)
        assert await lab.lock(await lab.session(), "a") > token

    async def test_an_expired_session_cannot_shorten_its_lock_delay(self, lab: Lab) -> None:
        expired = await lab.session(ttl=lab.ttl, lock_delay=lab.ttl * 5)
        token = await lab.lock(expired, "a")
        await lab.advance(lab.ttl * 1.1)
        assert not await lab.store.close_session(expired)
        assert await lab.store.unlock(expired, [HeldLock("a", token)]) == [False]
        await lab.is_refused(await lab.session(), "a")

    async def test_an_unlocked_lock_is_free_at_once(self, lab: Lab) -> None:
        holder, other = await lab.session(), await lab.session()
        token = await lab.lock(holder, "a")
        lock = HeldLock("a", token)
        assert await lab.store.unlock(holder, [lock, lock]) == [True, False]
        assert await lab.lock(other, "a") > token

    async def test_nobody_else_can_unlock_and_no_other_token_does(self, lab: Lab) -> None:
        holder, other = await lab.session(), await lab.session()
        token = await lab.lock(holder, "a")
        right, wrong = HeldLock("a", token), HeldLock("a", FencingToken(token + 1))
        never = HeldLock("never", token)
        assert await lab.store.unlock(other, [right]) == [False]
        assert await lab.store.unlock(SessionId("nobody"), [right]) == [False]
        assert await lab.store.unlock(holder, [wrong, never]) == [False, False]
        assert (await lab.is_refused(other, "a")).owner == "owner-1"

    async def test_of_many_who_ask_at_once_each_lock_has_one_winner(self, lab: Lab) -> None:
        sessions = [await lab.session() for _ in range(20)]
        wishes = [LockWish(f"preset/{i}") for i in range(50)]
        answers = await asyncio.gather(*(lab.store.try_lock(s, wishes) for s in sessions))
        for grants in zip(*answers, strict=True):
            assert sum(isinstance(grant, Acquired) for grant in grants) == 1

    async def test_a_thousand_locks_are_one_call(self, lab: Lab) -> None:
        session, other = await lab.session(), await lab.session()
        wishes = [LockWish(f"preset/{i}") for i in range(1000)]
        grants = await lab.store.try_lock(session, wishes)
        assert sum(isinstance(grant, Acquired) for grant in grants) == 1000
        refused = await lab.store.try_lock(other, wishes)
        assert sum(isinstance(grant, Held) for grant in refused) == 1000

    async def test_every_name_ever_locked_is_listed_in_order(self, lab: Lab) -> None:
        session = await lab.session()
        tokens = {name: await lab.lock(session, name) for name in ("b", "é", "a")}
        await lab.store.unlock(session, [HeldLock("b", tokens["b"])])
        first = await lab.store.list_locks(after="", limit=2)
        second = await lab.store.list_locks(after="b", limit=2)
        assert (first.more, second.more) == (True, False)
        assert [(k.name, k.owner, k.fencing_token) for k in (*first.items, *second.items)] == [
            ("a", "owner-1", tokens["a"]),
            ("b", None, tokens["b"]),
            ("é", "owner-1", tokens["é"]),
        ]

    async def test_tokens_grow_across_restarts(self, lab: Lab) -> None:
        session = await lab.session()
        token = await lab.lock(session, "a")
        for _ in range(5):
            token = await lab.lock(session, "a")
            await lab.store.unlock(session, [HeldLock("a", token)])
        await lab.advance(lab.ttl)
        await lab.reopen()
        assert await lab.lock(await lab.session(), "a") > token


class StateContract:
    """States are written by the holder of their lock upon the version it knows, or not at all."""

    async def test_a_state_that_was_never_written_is_none(self, lab: Lab) -> None:
        assert await lab.store.get_states(["a", "b"]) == [None, None]

    async def test_versions_count_the_writes(self, lab: Lab) -> None:
        session, token = await lab.written({"a": b"one"})
        writes = [put("a", b"two\x00\xff", token=token, version=1)]
        assert await lab.store.put_states(session, writes) == [Written(2)]
        state = await lab.state("a")
        assert state is not None
        assert (state.value, state.version, state.fencing_token) == (b"two\x00\xff", 2, token)

    async def test_a_write_upon_another_version_is_refused(self, lab: Lab) -> None:
        session, token = await lab.written({"a": b"one"})
        for version in (0, 2):
            write = put("a", b"two", token=token, version=version)
            assert await lab.store.put_states(session, [write]) == [VersionConflict(1)]
        assert (state := await lab.state("a"))
        assert state.value == b"one"

    async def test_a_repeated_write_is_a_conflict_and_not_written_twice(self, lab: Lab) -> None:
        session, token = await lab.written({"a": b"one"})
        again = put("a", b"one", token=token)
        assert await lab.store.put_states(session, [again]) == [VersionConflict(1)]

    async def test_an_update_of_what_is_not_there_is_a_conflict(self, lab: Lab) -> None:
        session = await lab.session()
        token = await lab.lock(session, "a")
        write = put("a", b"x", token=token, version=1)
        assert await lab.store.put_states(session, [write]) == [VersionConflict(0)]

    async def test_a_successor_fences_its_predecessor(self, lab: Lab) -> None:
        session, token = await lab.written({"a": b"one"})
        await lab.store.unlock(session, [HeldLock("a", token)])
        newer = await lab.lock(await lab.session(), "a")
        late = put("a", b"late", token=token, version=1)
        assert await lab.store.put_states(session, [late]) == [StaleToken(newer)]
        guessed = replace(late, fencing_token=newer)
        assert await lab.store.put_states(session, [guessed]) == [StaleToken(newer)]
        assert (state := await lab.state("a"))
        assert state.value == b"one"

    async def test_a_token_from_before_the_same_session_locked_anew_is_stale(
        self, lab: Lab
    ) -> None:
        session, token = await lab.written({"a": b"one"})
        newer = await lab.lock(session, "a", floor=token)
        late = put("a", b"late", token=token, version=1)
        assert await lab.store.put_states(session, [late]) == [StaleToken(newer)]

    async def test_a_lock_that_was_given_back_guards_no_write(self, lab: Lab) -> None:
        session, token = await lab.written({"a": b"one"})
        await lab.store.unlock(session, [HeldLock("a", token)])
        write = put("a", b"two", token=token, version=1)
        assert await lab.store.put_states(session, [write]) == [StaleToken(token)]

    async def test_a_lock_of_another_name_guards_nothing(self, lab: Lab) -> None:
        session = await lab.session()
        token = await lab.lock(session, "a")
        assert await lab.store.put_states(session, [put("b", b"", token=token)]) == [StaleToken(0)]

    async def test_one_stale_item_does_not_spoil_the_others(self, lab: Lab) -> None:
        session, token = await lab.written({"a": b"", "b": b"", "c": b""})
        await lab.store.unlock(session, [HeldLock("c", token)])
        grants = await lab.store.try_lock(session, [LockWish("a"), LockWish("b")])
        tokens = [grant.fencing_token for grant in grants if isinstance(grant, Acquired)]
        writes = [
            put("c", b"new", token=token, version=1),
            put("a", b"new", token=tokens[0], version=1),
            put("b", b"new", token=tokens[1], version=7),
        ]
        outcomes = await lab.store.put_states(session, writes)
        assert outcomes == [StaleToken(token), Written(2), VersionConflict(1)]
        states = await lab.store.get_states(["a", "b", "c"])
        assert [state and state.value for state in states] == [b"new", b"", b""]

    async def test_a_thousand_states_are_one_call(self, lab: Lab) -> None:
        session = await lab.session()
        names = [f"preset/{i:04}" for i in range(1000)]
        grants = await lab.store.try_lock(session, [LockWish(name) for name in names])
        tokens = [grant.fencing_token for grant in grants if isinstance(grant, Acquired)]
        writes = [put(n, n.encode(), token=t) for n, t in zip(names, tokens, strict=True)]
        assert await lab.store.put_states(session, writes) == [Written(1)] * 1000
        states = await lab.store.get_states(names)
        assert [state and state.value for state in states] == [name.encode() for name in names]

    async def test_states_are_listed_by_prefix_in_order(self, lab: Lab) -> None:
        names = ["b/1", "a_/2", "ab/3", "a_", "a_/1", "a%", "a_\U0010ffff"]
        await lab.written(dict.fromkeys(names, b""))
        first = await lab.store.list_states(prefix="a_", after="", limit=2)
        second = await lab.store.list_states(prefix="a_", after=first.items[-1].name, limit=2)
        assert (first.more, second.more) == (True, False)
        found = [state.name for state in (*first.items, *second.items)]
        assert found == ["a_", "a_/1", "a_/2", "a_\U0010ffff"]
        everything = await lab.store.list_states(prefix="", after="", limit=10)
        assert [state.name for state in everything.items] == sorted(names)

    async def test_a_prefix_that_no_name_can_have_finds_nothing(self, lab: Lab) -> None:
        await lab.written({"a": b""})
        page = await lab.store.list_states(prefix="\0", after="", limit=10)
        assert (page.items, page.more) == ((), False)

    async def test_a_page_of_large_states_is_a_short_one(self, lab: Lab) -> None:
        values = {f"s{i}": bytes(MIB) for i in range(4)}
        await lab.written(values)
        found: list[str] = []
        more = True
        while more:
            after = found[-1] if found else ""
            page = await lab.store.list_states(prefix="", after=after, limit=10)
            assert 0 < sum(state.size for state in page.items) <= PAGE_BYTES
            found += [state.name for state in page.items]
            more = page.more
        assert found == list(values)

    async def test_more_than_an_answer_holds_is_refused(self, lab: Lab) -> None:
        values = {f"s{i}": bytes(MIB) for i in range(ANSWER_BYTES // MIB + 1)}
        await lab.written(values)
        with pytest.raises(BadRequest, match="ask for fewer"):
            await lab.store.get_states(list(values))
        with pytest.raises(BadRequest, match="ask for fewer"):
            await lab.store.get_states(["s0"] * len(values))
        assert all(await lab.store.get_states(["s0", "s1"]))


class JournalContract:
    """Events are kept once, in order, and the oldest are forgotten first."""

    async def test_events_come_back_as_they_were_told(self, lab: Lab) -> None:
        told = Event(
            event_id="e",
            time=_LONG_AGO,
            preset="web",
            vm_id="vm-1",
            kind="VM_CREATED",
            reason="MISSING",
            message="eine VM für »web«",
            actor="replica-1",
            fencing_token=7,
            evidence={"request_id": "r"},
            severity=3,
        )
        await lab.store.append_events([told, replace(told, event_id="f", fencing_token=None)])
        page = await lab.store.read_events(EventQuery(ascending=True))
        assert [stored.event for stored in page.events] == [
            told,
            replace(told, event_id="f", fencing_token=None),
        ]

    async def test_whatever_text_an_event_holds_it_is_kept_and_found(self, lab: Lab) -> None:
        text = 'a "quoted" \\ \\u0000 \0\n\x7f\u2028\U0010ffff'
        odd = Event(
            event_id="odd",
            time=_LONG_AGO,
            preset=text,
            vm_id=text,
            kind=text,
            reason=text,
            message=text,
            actor=text,
            evidence={text: text},
        )
        likeness = replace(odd, event_id="like", preset=text.replace("\0", "\\u0000"))
        await lab.store.append_events([odd, likeness])
        wanted = EventFilter(preset=text, vm_id=text)
        page = await lab.store.read_events(EventQuery(filter=wanted))
        assert [stored.event for stored in page.events] == [odd]

    async def test_an_event_may_name_whatever_is_as_long_as_an_event(self, lab: Lab) -> None:
        # Nothing that a store could compress.
        long = "".join(chr(0x4E00 + i * i * 7919 % 20_000) for i in range(5_000))
        told = replace(happened(1), preset=long, vm_id=long[::-1])
        await lab.store.append_events([told, replace(told, event_id="f", preset=long[:-1])])
        wanted = EventFilter(preset=long, vm_id=long[::-1])
        page = await lab.store.read_events(EventQuery(filter=wanted))
        assert [stored.event for stored in page.events] == [told]

    async def test_an_event_is_stored_once_however_often_it_is_sent(self, lab: Lab) -> None:
        [one] = await lab.store.append_events([happened(1)])
        two, again, three, two_again = await lab.store.append_events(
            [happened(2), happened(1), happened(3), happened(2)]
        )
        assert one < two < three
        assert (again, two_again) == (one, two)
        page = await lab.store.read_events(EventQuery(ascending=True))
        assert [stored.sequence for stored in page.events] == [one, two, three]

    async def test_events_are_read_in_either_direction_page_by_page(self, lab: Lab) -> None:
        sequences = await lab.store.append_events([happened(i) for i in range(5)])
        for ascending in (True, False):
            found: list[int] = []
            more = True
            while more:
                after = found[-1] if found else None
                query = EventQuery(ascending=ascending, after=after, limit=2)
                page = await lab.store.read_events(query)
                found += [stored.sequence for stored in page.events]
                more = page.more
            assert found == sorted(sequences, reverse=not ascending)

    @pytest.mark.parametrize(
        ("wanted", "found"),
        [
            (EventFilter(preset="web"), [1, 2]),
            (EventFilter(vm_id="vm-2"), [2, 3]),
            (EventFilter(kinds=frozenset({"A", "C"})), [1, 3]),
            (EventFilter(since=_LONG_AGO + timedelta(seconds=2)), [2, 3]),
            (EventFilter(preset="web", vm_id="vm-2", kinds=frozenset({"B"})), [2]),
            (EventFilter(preset="w"), []),
        ],
    )
    async def test_only_what_is_meant_is_found(
        self, lab: Lab, wanted: EventFilter, found: list[int]
    ) -> None:
        events = [
            happened(1, preset="web", vm_id="vm-1", kind="A"),
            happened(2, preset="web", vm_id="vm-2", kind="B"),
            happened(3, preset="db", vm_id="vm-2", kind="C"),
        ]
        await lab.store.append_events(events)
        page = await lab.store.read_events(EventQuery(filter=wanted, ascending=True))
        assert [stored.event for stored in page.events] == [events[i - 1] for i in found]

    async def test_the_oldest_events_are_forgotten_and_it_is_told(self, lab: Lab) -> None:
        beginning = (await lab.store.read_events(EventQuery())).newest
        sequences = [
            sequence
            for i in range(0, MAX_EVENTS + 30, 10)
            for sequence in await lab.store.append_events([happened(i + j) for j in range(10)])
        ]
        page = await lab.store.read_events(EventQuery(ascending=True, limit=MAX_EVENTS * 2))
        assert [stored.sequence for stored in page.events] == sequences[-MAX_EVENTS:]
        assert beginning == sequences[0] - 1
        assert page.forgotten == sequences[29]
        assert page.newest == sequences[-1]

    async def test_more_than_the_journal_holds_at_once_leaves_the_newest(self, lab: Lab) -> None:
        sequences = await lab.store.append_events([happened(i) for i in range(MAX_EVENTS * 2)])
        page = await lab.store.read_events(EventQuery(ascending=True, limit=MAX_EVENTS * 2))
        assert [stored.sequence for stored in page.events] == sequences[MAX_EVENTS:]

    async def test_an_empty_journal_says_where_it_stands(self, lab: Lab) -> None:
        page = await lab.store.read_events(EventQuery())
        assert not page.events
        assert not page.more
        assert page.forgotten == page.newest

    async def test_a_page_of_large_events_is_a_short_one(self, lab: Lab) -> None:
        large = [replace(happened(i), message="ü" * 8000, preset="p" * 100) for i in range(180)]
        await lab.store.append_events(large)
        page = await lab.store.read_events(EventQuery(ascending=True, limit=1000))
        assert 0 < sum(stored.size for stored in page.events) <= PAGE_BYTES
        assert page.more

    async def test_who_waits_is_woken_by_the_next_event(self, lab: Lab) -> None:
        newest = (await lab.store.read_events(EventQuery())).newest
        waiting = asyncio.create_task(lab.store.grown_beyond(newest))
        await asyncio.wait([waiting], timeout=0.05)
        assert not waiting.done()
        [sequence] = await lab.store.append_events([happened(1)])
        async with asyncio.timeout(10):
            await waiting
            await lab.store.grown_beyond(sequence - 1)

    async def test_sequences_grow_across_restarts(self, lab: Lab) -> None:
        [before] = await lab.store.append_events([happened(1)])
        await lab.advance(lab.ttl)
        await lab.reopen()
        [after] = await lab.store.append_events([happened(2)])
        assert after > before
        async with asyncio.timeout(10):
            await lab.store.grown_beyond(before)


class RuntimeStoreContract(SessionContract, LockContract, StateContract, JournalContract):
    """All that the port demands."""


class DurableStoreContract(RuntimeStoreContract):
    """And what was answered is there after a restart."""

    async def test_all_that_was_answered_is_there_after_a_restart(self, lab: Lab) -> None:
        session, token = await lab.written({"a": b"one"})
        [sequence] = await lab.store.append_events([happened(1)])
        await lab.reopen()
        async with asyncio.timeout(10):
            await lab.store.grown_beyond(sequence - 1)
        assert (await lab.store.refresh_session(session)).owner == "owner-1"
        assert await lab.lock(session, "a") == token
        await lab.is_refused(await lab.session(), "a")
        assert (state := await lab.state("a"))
        assert (state.value, state.version) == (b"one", 1)
        assert await lab.store.append_events([happened(1)]) == [sequence]

    async def test_a_lock_that_was_free_keeps_its_token_after_a_restart(self, lab: Lab) -> None:
        session = await lab.session()
        token = await lab.lock(session, "a", floor=41)
        await lab.store.close_session(session)
        await lab.reopen()
        assert await lab.lock(await lab.session(), "a") == token + 1
