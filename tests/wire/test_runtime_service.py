"""RuntimeService over a real server: what a client of the contract sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from runtime_service.config import Config
from runtime_service.domain import Event
from runtime_service.drivers.sqlite.tables import Tables
from runtime_service.server import running
from vmshepherd.runtime.v1 import event_pb2
from vmshepherd.runtime.v1 import runtime_service_pb2 as pb
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from vmshepherd_kit import dial, stamps
from vmshepherd_kit.clock import SeededChance
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import (
    BadRequest,
    NotFound,
    ResumeTokenTooOld,
    SessionLost,
    ShepherdError,
    StaleFencingToken,
    Unavailable,
    VersionMismatch,
)
from vmshepherd_kit.serve import Listen, Server
from vmshepherd_kit.status import from_proto
from vmshepherd_kit.testing import FakeClock

TTL = timedelta(seconds=30)
MAX_EVENTS = 300
MANY = 10_001


class Client:
    """A stub, and the steps that most tests begin with."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = RuntimeServiceStub(channel)

    async def session(self, owner: str = "replica-1") -> str:
        request = pb.OpenSessionRequest(owner=owner, ttl=stamps.to_duration(TTL))
        return (await dial.ask(self.stub.OpenSession, request)).session.session_id

    async def try_lock(self, session: str, *names: str) -> list[pb.LockResult]:
        wishes = [pb.LockWish(name=name) for name in names]
        request = pb.TryLockRequest(session_id=session, wishes=wishes)
        return list((await dial.ask(self.stub.TryLock, request)).results)

    async def token(self, session: str, name: str) -> int:
        [result] = await self.try_lock(session, name)
        assert result.WhichOneof("answer") == "acquired"
        return result.acquired.fencing_token

    async def put(self, session: str, *writes: pb.StateWrite) -> list[pb.WriteResult]:
        request = pb.PutStatesRequest(session_id=session, writes=writes)
        return list((await dial.ask(self.stub.PutStates, request)).results)

    async def append(self, *numbers: int, preset: str = "") -> list[int]:
        events = [event_pb2.Event(event_id=f"event-{n}", preset=preset) for n in numbers]
        request = pb.AppendEventsRequest(events=events)
        return list((await dial.ask(self.stub.AppendEvents, request)).sequences)

    @asynccontextmanager
    async def watch(
        self, *, after: int | None = None, preset: str = ""
    ) -> AsyncIterator[AsyncIterator[pb.WatchEventsResponse]]:
        wanted = event_pb2.EventFilter(preset=preset)
        request = pb.WatchEventsRequest(filter=wanted, after_sequence=after)
        async with aclosing(dial.listen(self.stub.WatchEvents, request)) as watch:
            yield watch


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite"])
async def server(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock
) -> AsyncIterator[Server]:
    suite = Suite(suite_id="test", state_dir=tmp_path, base_dir=tmp_path, embedded=False)
    config = Config(
        listen=Listen(address="127.0.0.1:0"),
        driver=request.param,
        options={"max_events": MAX_EVENTS},
    )
    async with running(config, suite=suite, clock=clock, chance=SeededChance(1)) as server:
        yield server


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    async with dial.channel(server.address) as channel:
        yield Client(channel)


def write(
    name: str, token: int | None, version: int | None = 0, value: bytes = b"v"
) -> pb.StateWrite:
    return pb.StateWrite(name=name, value=value, fencing_token=token, expected_version=version)


def error(
    result: pb.LockResult | pb.UnlockResult | pb.StateResult | pb.WriteResult,
) -> ShepherdError:
    failed = from_proto(result.status)
    assert failed is not None
    return failed


def fields(refusal: pytest.ExceptionInfo[BadRequest]) -> list[str]:
    return [violation.field for violation in refusal.value.violations]


# Sessions


async def test_a_session_is_opened_refreshed_and_closed(client: Client, clock: FakeClock) -> None:
    answer = await dial.ask(
        client.stub.OpenSession,
        pb.OpenSessionRequest(
            owner="me",
            ttl=stamps.to_duration(TTL),
            lock_delay=stamps.to_duration(TTL * 2),
            labels={"host": "h"},
        ),
    )
    session = answer.session
    assert (session.owner, dict(session.labels)) == ("me", {"host": "h"})
    assert stamps.from_duration(session.ttl) == stamps.from_duration(session.remaining) == TTL
    assert stamps.from_duration(session.lock_delay) == TTL * 2
    await clock.advance(TTL / 2)
    request = pb.RefreshSessionRequest(session_id=session.session_id)
    refreshed = (await dial.ask(client.stub.RefreshSession, request)).session
    assert stamps.from_duration(refreshed.remaining) == TTL
    assert stamps.from_duration(refreshed.age) == TTL / 2
    closing = pb.CloseSessionRequest(session_id=session.session_id)
    assert (await dial.ask(client.stub.CloseSession, closing)).existed
    assert not (await dial.ask(client.stub.CloseSession, closing)).existed


async def test_an_expired_session_is_told_to_stop(client: Client, clock: FakeClock) -> None:
    session = await client.session()
    token = await client.token(session, "a")
    await clock.advance(TTL)
    with pytest.raises(SessionLost):
        await dial.ask(client.stub.RefreshSession, pb.RefreshSessionRequest(session_id=session))
    with pytest.raises(SessionLost):
        await client.try_lock(session, "a")
    with pytest.raises(SessionLost):
        await client.put(session, write("a", token))


@pytest.mark.parametrize(
    ("owner", "ttl", "lock_delay", "labels", "field"),
    [
        ("", 1, 0, {}, "owner"),
        ("x" * 257, 1, 0, {}, "owner"),
        ("a\nb", 1, 0, {}, "owner"),
        ("me", 0.099, 0, {}, "ttl"),
        ("me", 600.001, 0, {}, "ttl"),
        ("me", -1, 0, {}, "ttl"),
        ("me", 1, 601, {}, "lock_delay"),
        ("me", 1, -1, {}, "lock_delay"),
        ("me", 1, 0, {"k": "v" * 5000}, "labels"),
    ],
)
async def test_a_senseless_session_is_refused(
    client: Client, owner: str, ttl: float, lock_delay: float, labels: dict[str, str], field: str
) -> None:
    request = pb.OpenSessionRequest(
        owner=owner,
        ttl=stamps.to_duration(timedelta(seconds=ttl)),
        lock_delay=stamps.to_duration(timedelta(seconds=lock_delay)),
        labels=labels,
    )
    with pytest.raises(BadRequest) as refusal:
        await dial.ask(client.stub.OpenSession, request)
    assert fields(refusal) == [field]


async def test_sessions_are_listed_without_their_ids(client: Client) -> None:
    for number in range(3):
        await client.session(f"replica-{number}")
    owners, token = [], ""
    for _ in range(2):
        request = pb.ListSessionsRequest(page_size=2, page_token=token)
        page = await dial.ask(client.stub.ListSessions, request)
        assert not any(session.session_id for session in page.sessions)
        owners += [session.owner for session in page.sessions]
        token = page.next_page_token
    assert (owners, token) == (["replica-0", "replica-1", "replica-2"], "")


# Locks


async def test_contention_is_an_answer(client: Client) -> None:
    holder, other = await client.session("holder"), await client.session("other")
    await client.token(holder, "a")
    free, taken = await client.try_lock(other, "b", "a")
    assert (free.name, free.WhichOneof("answer")) == ("b", "acquired")
    assert (taken.name, taken.WhichOneof("answer")) == ("a", "held")
    assert taken.held.owner == "holder"
    assert stamps.from_duration(taken.held.remaining) == TTL
    assert taken.status.code == 0


async def test_a_lock_changes_hands_with_a_greater_token(client: Client) -> None:
    first, second = await client.session(), await client.session()
    token = await client.token(first, "a")
    lock = pb.HeldLock(name="a", fencing_token=token)
    request = pb.UnlockRequest(session_id=second, locks=[lock])
    [result] = (await dial.ask(client.stub.Unlock, request)).results
    assert not result.released
    request = pb.UnlockRequest(session_id=first, locks=[lock])
    [result] = (await dial.ask(client.stub.Unlock, request)).results
    assert result.released
    assert await client.token(second, "a") > token


async def test_one_senseless_wish_does_not_spoil_the_others(client: Client) -> None:
    wishes = [
        pb.LockWish(name="a"),
        pb.LockWish(name=""),
        pb.LockWish(name="x" * 257),
        pb.LockWish(name="c\x00"),
        pb.LockWish(name="d", floor=-1),
        pb.LockWish(name="e", floor=2**61),
        pb.LockWish(name="f" * 256, floor=2**61 - 1),
    ]
    request = pb.TryLockRequest(session_id=await client.session(), wishes=wishes)
    results = (await dial.ask(client.stub.TryLock, request)).results
    assert [result.WhichOneof("answer") for result in results] == [
        "acquired",
        *[None] * 5,
        "acquired",
    ]
    assert all(isinstance(error(result), BadRequest) for result in results[1:6])
    assert results[6].acquired.fencing_token == 2**61
    assert [result.name for result in results] == [wish.name for wish in wishes]


async def test_a_lock_is_freed_only_under_a_token(client: Client) -> None:
    session = await client.session()
    await client.token(session, "a")
    locks = [pb.HeldLock(name="a", fencing_token=t) for t in (None, 0, -1, 2**62)]
    request = pb.UnlockRequest(session_id=session, locks=locks)
    results = (await dial.ask(client.stub.Unlock, request)).results
    assert all(isinstance(error(result), BadRequest) for result in results)
    assert not any(result.released for result in results)


async def test_locks_are_listed_in_pages(client: Client) -> None:
    session = await client.session("me")
    await client.try_lock(session, "c", "a", "b")
    names, token = [], ""
    for _ in range(2):
        request = pb.ListLocksRequest(page_size=2, page_token=token)
        page = await dial.ask(client.stub.ListLocks, request)
        names += [(lock.name, lock.owner, lock.fencing_token > 0) for lock in page.locks]
        token = page.next_page_token
    assert names == [("a", "me", True), ("b", "me", True), ("c", "me", True)]
    assert token == ""


# States


async def test_a_state_is_written_and_read(client: Client, clock: FakeClock) -> None:
    session = await client.session()
    token = await client.token(session, "a")
    [result] = await client.put(session, write("a", token, value=b"\x00\xff"))
    assert result.version == 1
    request = pb.GetStatesRequest(names=["a", "b"])
    found, missing = (await dial.ask(client.stub.GetStates, request)).results
    assert (found.state.value, found.state.version) == (b"\x00\xff", 1)
    assert found.state.fencing_token == token
    assert stamps.from_timestamp(found.state.written_time) == clock.wall()
    assert isinstance(error(missing), NotFound)


async def test_a_write_is_refused_alone_with_what_to_do(client: Client) -> None:
    session = await client.session()
    locks = await client.try_lock(session, "a", "b", "c", "d", "e", "f", "g")
    tokens = {lock.name: lock.acquired.fencing_token for lock in locks}
    results = await client.put(
        session,
        write("a", tokens["a"]),
        write("b", tokens["b"], version=3),
        write("c", tokens["c"] + 1),
        write("d", None),
        write("e", 0),
        write("f", -5),
        write("g", 2**62),
        write("", tokens["a"]),
        write("h", tokens["a"], value=bytes(2**20 + 1)),
        write("i", tokens["a"], version=None),
        write("j", tokens["a"], version=-1),
    )
    assert results[0].version == 1
    assert isinstance(error(results[1]), VersionMismatch)
    assert error(results[1]).facts["version"] == "0"
    assert isinstance(error(results[2]), StaleFencingToken)
    assert all(isinstance(error(result), BadRequest) for result in results[3:])


async def test_a_name_that_is_written_twice_at_once_is_refused_wholly(client: Client) -> None:
    session = await client.session()
    token = await client.token(session, "a")
    with pytest.raises(BadRequest) as refusal:
        await client.put(session, write("a", token), write("a", token, version=1))
    assert fields(refusal) == ["writes[1].name"]
    [result] = await client.put(session, write("a", token))
    assert result.version == 1


async def test_states_are_listed_by_prefix_in_pages(client: Client) -> None:
    session = await client.session()
    results = await client.try_lock(session, "p/1", "p/2", "p/3", "q")
    await client.put(session, *(write(r.name, r.acquired.fencing_token) for r in results))
    names, token = [], ""
    for _ in range(2):
        request = pb.ListStatesRequest(prefix="p/", page_size=2, page_token=token)
        page = await dial.ask(client.stub.ListStates, request)
        names += [state.name for state in page.states]
        token = page.next_page_token
    assert (names, token) == (["p/1", "p/2", "p/3"], "")


# Batches and pages


@pytest.mark.parametrize("count", [0, MANY])
async def test_a_batch_is_neither_empty_nor_boundless(client: Client, count: int) -> None:
    session = await client.session()
    with pytest.raises(BadRequest):
        await client.try_lock(session, *["a"] * count)
    unlock = pb.UnlockRequest(session_id=session, locks=[pb.HeldLock()] * count)
    with pytest.raises(BadRequest):
        await dial.ask(client.stub.Unlock, unlock)
    with pytest.raises(BadRequest):
        await dial.ask(client.stub.GetStates, pb.GetStatesRequest(names=["a"] * count))
    with pytest.raises(BadRequest):
        await client.put(session, *(write(f"n{i}", 1) for i in range(count)))
    with pytest.raises(BadRequest):
        await client.append(*range(count))


async def test_a_page_token_of_elsewhere_is_refused(client: Client) -> None:
    await client.session()
    await client.session()
    sessions = pb.ListSessionsRequest(page_size=1)
    of_sessions = (await dial.ask(client.stub.ListSessions, sessions)).next_page_token
    for foreign in ("nonsense", of_sessions):
        with pytest.raises(BadRequest):
            await dial.ask(client.stub.ListLocks, pb.ListLocksRequest(page_token=foreign))
        with pytest.raises(BadRequest):
            await dial.ask(client.stub.ListStates, pb.ListStatesRequest(page_token=foreign))
    with pytest.raises(BadRequest):
        await dial.ask(client.stub.ListEvents, pb.ListEventsRequest(page_token="nonsense"))
    with pytest.raises(BadRequest):
        await dial.ask(client.stub.ListSessions, pb.ListSessionsRequest(page_size=-1))


# Journal


async def test_events_are_listed_newest_first_unless_asked_otherwise(client: Client) -> None:
    one, two, three = await client.append(1, 2, 3)
    found, token = [], ""
    for _ in range(2):
        request = pb.ListEventsRequest(page_size=2, page_token=token)
        page = await dial.ask(client.stub.ListEvents, request)
        found += [event.sequence for event in page.events]
        token = page.next_page_token
    assert (found, token) == ([three, two, one], "")
    page = await dial.ask(client.stub.ListEvents, pb.ListEventsRequest(ascending=True))
    assert [event.sequence for event in page.events] == [one, two, three]


async def test_an_event_comes_back_as_it_was_told(client: Client) -> None:
    told = event_pb2.Event(
        event_id="e",
        time=stamps.to_timestamp(datetime(2026, 11, 22, 12, 0, 0, 250000, tzinfo=UTC)),
        preset="web",
        vm_id="vm",
        kind="VM_CREATED",
        reason="MISSING",
        message="one of three",
        actor="me",
        fencing_token=7,
        evidence={"request_id": "r"},
        severity=event_pb2.EVENT_SEVERITY_WARNING,
    )
    unknown = event_pb2.Event(event_id="f", severity=77, time=told.time)  # type: ignore[arg-type]
    request = pb.AppendEventsRequest(events=[told, unknown])
    told.sequence, unknown.sequence = (await dial.ask(client.stub.AppendEvents, request)).sequences
    page = await dial.ask(client.stub.ListEvents, pb.ListEventsRequest(ascending=True))
    assert list(page.events) == [told, unknown]


async def test_events_are_appended_all_or_none_and_once(client: Client) -> None:
    with pytest.raises(BadRequest) as refusal:
        await dial.ask(
            client.stub.AppendEvents,
            pb.AppendEventsRequest(events=[event_pb2.Event(event_id="x"), event_pb2.Event()]),
        )
    assert fields(refusal) == ["events[1].event_id"]
    large = event_pb2.Event(event_id="x", message="x" * 17_000)
    with pytest.raises(BadRequest):
        await dial.ask(client.stub.AppendEvents, pb.AppendEventsRequest(events=[large]))
    assert not (await dial.ask(client.stub.ListEvents, pb.ListEventsRequest())).events
    assert await client.append(1, 2) == await client.append(1, 2)


async def test_a_watch_begins_now_and_says_where(client: Client) -> None:
    [old] = await client.append(1)
    async with client.watch() as watch, asyncio.timeout(10):
        beginning = await anext(watch)
        assert (beginning.sequence, len(beginning.events)) == (old, 0)
        await client.append(2)
        chunk = await anext(watch)
        assert [event.event_id for event in chunk.events] == ["event-2"]


async def test_a_watch_of_which_nothing_is_to_be_told_says_that_it_is_there(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime_service.servicer._BEAT", timedelta(milliseconds=50))
    [old] = await client.append(1)
    async with client.watch() as watch, asyncio.timeout(10):
        told = [await anext(watch) for _ in range(3)]
        assert [(chunk.sequence, len(chunk.events)) for chunk in told] == [(old, 0)] * 3
        [new] = await client.append(2)
        while not (chunk := await anext(watch)).events:
            pass
        assert chunk.sequence == new


async def test_a_watch_resumes_in_chunks_behind_what_was_seen(client: Client) -> None:
    sequences = await client.append(*range(250))
    found: list[int] = []
    async with client.watch(after=sequences[4]) as watch, asyncio.timeout(10):
        async for chunk in watch:
            assert len(chunk.events) <= 100
            found += [event.sequence for event in chunk.events]
            assert chunk.sequence == (found[-1] if found else sequences[4])
            if found[-1:] == sequences[-1:]:
                break
    assert found == sequences[5:]


async def test_a_watch_from_zero_begins_with_the_oldest_event_there_is(client: Client) -> None:
    await client.append(*range(200))
    sequences = await client.append(*range(200, 500))
    async with client.watch(after=0) as watch, asyncio.timeout(10):
        await anext(watch)
        chunk = await anext(watch)
    assert [event.sequence for event in chunk.events] == sequences[:100]


async def test_a_watch_that_would_miss_events_is_refused(client: Client) -> None:
    first, *_ = await client.append(*range(10))
    await client.append(*range(100, 100 + MAX_EVENTS))
    for elsewhere in (first, 2**60):
        with pytest.raises(ResumeTokenTooOld):
            async with client.watch(after=elsewhere) as watch:
                await anext(watch)
    with pytest.raises(BadRequest):
        async with client.watch(after=-1) as watch:
            await anext(watch)


async def test_a_watcher_who_is_overtaken_by_forgetting_is_told(client: Client) -> None:
    async with client.watch() as watch, asyncio.timeout(10):
        await anext(watch)
        for hundred in range(5):
            # In one step, so that the watcher cannot keep up: more than the journal holds.
            await client.append(*range(hundred * 1000, hundred * 1000 + MAX_EVENTS + 1))
        with pytest.raises(ResumeTokenTooOld):
            async for _ in watch:
                pass


async def test_a_watcher_hears_only_what_it_asked_for_and_how_far_it_may_resume(
    client: Client,
) -> None:
    async with client.watch(preset="web") as watch, asyncio.timeout(20):
        beginning = await anext(watch)
        await client.append(*range(200), preset="db")
        await client.append(1000, preset="web")
        chunk = await anext(watch)
        assert [event.preset for event in chunk.events] == ["web"]
        for start in range(2000, 4000, 200):
            await client.append(*range(start, start + 200), preset="db")
        bookmark = await anext(watch)
        assert not bookmark.events
        assert bookmark.sequence > beginning.sequence + 1000


async def test_a_stalled_watcher_stalls_nobody(client: Client) -> None:
    async with client.watch(after=0) as stalled, client.watch() as watch:
        await anext(stalled)
        await anext(watch)
        async with asyncio.timeout(20):
            for start in range(0, 2000, 100):
                await client.append(*range(start, start + 100))
                assert (await anext(watch)).events
            await client.session()


async def test_a_watch_ends_when_the_server_drains(client: Client, server: Server) -> None:
    async with client.watch() as watch, asyncio.timeout(20):
        await anext(watch)
        draining = asyncio.create_task(server.drain(timedelta(seconds=5)))
        with pytest.raises(Unavailable):
            await anext(watch)
        await draining


# The composition


@asynccontextmanager
async def service(tmp_path: Path, **settings: object) -> AsyncIterator[Client]:
    suite = Suite(suite_id="test", state_dir=tmp_path, base_dir=tmp_path, embedded=False)
    config = Config.model_validate({"listen": {"address": "127.0.0.1:0"}, **settings})
    async with (
        running(config, suite=suite, clock=FakeClock(), chance=SeededChance(1)) as server,
        dial.channel(server.address) as channel,
    ):
        yield Client(channel)


async def test_without_settings_it_is_durable(tmp_path: Path) -> None:
    async with service(tmp_path) as client:
        [sequence] = await client.append(1)
    async with service(tmp_path) as client:
        assert await client.append(1) == [sequence]


async def test_a_full_store_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = Tables.append

    def beyond_the_end(tables: Tables, event: Event) -> int:
        tables._db.execute("PRAGMA max_page_count = 1")
        return append(tables, event)

    monkeypatch.setattr(Tables, "append", beyond_the_end)
    async with service(tmp_path) as client:
        session = await client.session()
        events = [event_pb2.Event(event_id=str(i), message="x" * 10_000) for i in range(300)]
        with pytest.raises(ShepherdError) as refusal:
            await dial.ask(client.stub.AppendEvents, pb.AppendEventsRequest(events=events))
        assert refusal.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refusal.value.reason == "STORE_FULL"
        assert "runtime.sqlite" in refusal.value.message
        await client.token(session, "a")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"driver": "oracle"},
            "there is no runtime driver 'oracle'; installed: .*postgres.*sqlite",
        ),
        ({"driver": "ZookeeperDriver"}, "runtime.options.servers: is required"),
        ({"options": {"pth": "x"}}, "runtime.options.pth: unknown key; did you mean 'path'"),
        ({"driver": "InMemoryDriver", "options": {"max_events": 0}}, "runtime.options.max_events"),
    ],
)
async def test_what_cannot_be_composed_is_refused_in_a_sentence(
    tmp_path: Path, settings: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ShepherdError, match=sentence):
        async with service(tmp_path, **settings):
            pass
