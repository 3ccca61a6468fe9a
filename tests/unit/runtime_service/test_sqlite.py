from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runtime_service.domain import (
    Acquired,
    Event,
    EventQuery,
    FencingToken,
    Held,
    LockWish,
    NewSession,
    Session,
    SessionId,
    StateWrite,
    Written,
)
from runtime_service.drivers.sqlite import SqliteOptions, SqliteRuntime, file
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import QuotaExceeded, Refused, SessionLost, Unavailable
from vmshepherd_kit.testing import FakeClock

TTL = timedelta(seconds=30)
DELAY = timedelta(seconds=60)
NEVER = datetime(2030, 1, 1, tzinfo=UTC)

Open = Callable[..., AbstractAsyncContextManager[SqliteRuntime]]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "runtime.sqlite"


@pytest.fixture
def open_store(path: Path, clock: FakeClock) -> Open:
    def opened(
        *, embedded: bool = False, clock: FakeClock = clock
    ) -> AbstractAsyncContextManager[SqliteRuntime]:
        where = path.parent
        suite = Suite(suite_id="test", state_dir=where, base_dir=where.parent, embedded=embedded)
        return SqliteRuntime.open(SqliteOptions(), suite=suite, clock=clock)

    return opened


@pytest.fixture
async def store(open_store: Open) -> AsyncIterator[SqliteRuntime]:
    async with open_store() as store:
        yield store


@pytest.fixture
def boot(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    def now(name: str) -> None:
        monkeypatch.setattr(file, "this_boot", lambda: name)

    now("first boot")
    return now


async def session(store: SqliteRuntime, name: str = "one") -> Session:
    new = NewSession(session_id=SessionId(name), owner=name, ttl=TTL, lock_delay=DELAY)
    return await store.open_session(new)


async def locked(store: SqliteRuntime, name: str, *, by: str = "one") -> FencingToken:
    [grant] = await store.try_lock(SessionId(by), [LockWish(name)])
    assert isinstance(grant, Acquired)
    return grant.fencing_token


def event(number: int) -> Event:
    return Event(event_id=str(number), time=NEVER, message="x" * 1000)


def content(path: Path) -> bytes:
    return path.read_bytes()


def made(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)


def limit_pages(store: SqliteRuntime, more: int) -> None:
    """As if the disk had so many pages left."""
    db = store._writer._db
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    db.execute(f"PRAGMA max_page_count = {pages + more}")


async def in_thread(store: SqliteRuntime, work: Callable[[], None]) -> None:
    await asyncio.get_running_loop().run_in_executor(store._writer._thread, work)


# Whose file it is


async def test_the_file_is_for_our_eyes_only(store: SqliteRuntime, path: Path) -> None:
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert {"runtime.sqlite", "runtime.sqlite.lock"} <= modes.keys()


async def test_every_commit_reaches_the_disk_before_it_is_answered(store: SqliteRuntime) -> None:
    found: list[object] = []

    def ask() -> None:
        names = ("journal_mode", "synchronous", "foreign_keys")
        db = store._writer._db
        found.extend(db.execute(f"PRAGMA {name}").fetchone()[0] for name in names)

    await in_thread(store, ask)
    assert found == ["wal", 2, 1]


async def test_a_second_opening_is_refused(open_store: Open, store: SqliteRuntime) -> None:
    with pytest.raises(Refused, match="in use by this process") as refusal:
        async with open_store():
            pass
    assert refusal.value.reason == "STORE_IN_USE"
    await session(store)


async def test_a_path_is_relative_to_the_configuration(tmp_path: Path, clock: FakeClock) -> None:
    suite = Suite(suite_id="test", state_dir=tmp_path / "state", base_dir=tmp_path, embedded=False)
    options = SqliteOptions(path=Path("data/mine.db"))
    async with SqliteRuntime.open(options, suite=suite, clock=clock) as store:
        await session(store)
    assert (tmp_path / "data" / "mine.db").exists()
    assert not (tmp_path / "state").exists()


async def test_a_newer_schema_is_refused_in_a_sentence(open_store: Open, path: Path) -> None:
    async with open_store():
        pass
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(Refused, match=r"written by a newer VmShepherd \(schema 99, this one knows"):
        async with open_store():
            pass


async def test_the_database_of_another_program_is_left_alone(open_store: Open, path: Path) -> None:
    path.parent.mkdir()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE bookmarks (url TEXT)")
    db.close()
    before = content(path)
    with pytest.raises(Refused, match="a database of another program"):
        async with open_store():
            pass
    assert content(path) == before


async def test_what_is_no_database_is_left_alone(open_store: Open, path: Path) -> None:
    made(path, b"something else entirely" * 1000)
    with pytest.raises(Unavailable, match="is damaged, or is no SQLite database") as refusal:
        async with open_store():
            pass
    assert refusal.value.reason == "STORE_DAMAGED"
    assert content(path) == b"something else entirely" * 1000


async def test_a_network_file_system_is_refused(
    open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file, "_file_system", lambda _: "nfs4")
    with pytest.raises(Refused, match=r"network file system \(nfs4\)"):
        async with open_store():
            pass


def test_the_file_system_is_that_of_the_innermost_newest_mount() -> None:
    mounts = """\
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 0:30 / /srv rw shared:1 - nfs4 host:/srv rw
22 21 0:31 / /srv/with\\040space rw - xfs /dev/sdb rw
23 20 0:32 / /over rw - ext4 /dev/sdc rw
24 20 0:33 / /over rw - cifs //host/over rw
"""
    kinds = {
        "/home": "ext4",
        "/srv/state": "nfs4",
        "/srv/with space/state": "xfs",
        "/srvother": "ext4",
        "/over": "cifs",
    }
    assert {p: file.file_system_of(Path(p), mounts) for p in kinds} == kinds


# Time between two lives of the service


async def test_time_goes_on_while_the_service_is_down(
    open_store: Open, clock: FakeClock, boot: Callable[[str], None]
) -> None:
    async with open_store() as store:
        await session(store)
        token = await locked(store, "a")
    await clock.advance(TTL)
    async with open_store() as store:
        with pytest.raises(SessionLost):
            await store.refresh_session(SessionId("one"))
        await clock.advance(DELAY)
        await session(store, "two")
        assert await locked(store, "a", by="two") == token + 1


@pytest.mark.parametrize("reading", [timedelta(0), timedelta(days=400)])
async def test_after_a_boot_every_session_has_a_full_life_and_delay(
    open_store: Open, clock: FakeClock, boot: Callable[[str], None], reading: timedelta
) -> None:
    await clock.advance(timedelta(days=7))
    async with open_store() as store:
        await session(store)
        await locked(store, "a")
    boot("second boot")
    clock = FakeClock()
    await clock.advance(reading)
    async with open_store(clock=clock) as store:
        await session(store, "two")
        await clock.advance(TTL * 0.9)
        assert (await store.refresh_session(SessionId("one"))).remaining == TTL
        await store.refresh_session(SessionId("two"))
        [held] = await store.try_lock(SessionId("two"), [LockWish("a")])
        assert isinstance(held, Held)
        assert held.remaining == TTL + DELAY


async def test_a_clock_that_went_back_within_a_boot_makes_no_session_immortal(
    open_store: Open, clock: FakeClock, boot: Callable[[str], None]
) -> None:
    await clock.advance(timedelta(days=7))
    async with open_store() as store:
        await session(store)
    clock = FakeClock()
    async with open_store(clock=clock) as store:
        await clock.advance(TTL)
        with pytest.raises(SessionLost):
            await store.refresh_session(SessionId("one"))


async def test_a_suite_of_one_process_ends_all_former_sessions_at_its_start(
    open_store: Open, boot: Callable[[str], None]
) -> None:
    async with open_store(embedded=True) as store:
        await session(store)
        token = await locked(store, "a")
    async with open_store(embedded=True) as store:
        assert not (await store.list_sessions(after=0, limit=10)).items
        await session(store, "two")
        assert await locked(store, "a", by="two") == token + 1


# Transactions


async def test_what_is_asked_at_once_shares_commits(store: SqliteRuntime) -> None:
    statements: list[str] = []
    await in_thread(store, lambda: store._writer._db.set_trace_callback(statements.append))
    await asyncio.gather(*(store.append_events([event(i)]) for i in range(500)))
    assert 0 < statements.count("COMMIT") < 20
    assert (await store.read_events(EventQuery())).newest == 500


async def test_a_refusal_does_not_touch_its_neighbours(store: SqliteRuntime) -> None:
    await session(store)
    outcomes = await asyncio.gather(
        store.append_events([event(1)]),
        store.refresh_session(SessionId("nobody")),
        store.append_events([event(2)]),
        return_exceptions=True,
    )
    assert isinstance(outcomes[1], SessionLost)
    assert (outcomes[0], outcomes[2]) == ([1], [2])
    assert (await store.read_events(EventQuery())).newest == 2


async def test_a_caller_who_has_gone_undoes_nothing_and_readers_are_woken(
    store: SqliteRuntime,
) -> None:
    waiting = asyncio.create_task(store.grown_beyond(0))
    caller = asyncio.create_task(store.append_events([event(1)]))
    await asyncio.sleep(0)
    assert store._writer._waiting
    caller.cancel()
    async with asyncio.timeout(10):
        await waiting
    assert caller.cancelled()
    assert (await store.read_events(EventQuery())).newest == 1


async def test_tokens_are_guarded_by_the_file_itself(store: SqliteRuntime) -> None:
    await session(store)
    await locked(store, "a")
    refused: list[str] = []

    def tamper() -> None:
        for statement in ("UPDATE locks SET token = 0", "DELETE FROM locks"):
            try:
                store._writer._db.execute(statement)
            except sqlite3.IntegrityError as e:
                refused.append(str(e))

    await in_thread(store, tamper)
    assert refused == ["a token must not shrink", "a lock must not be deleted"]


# A full disk


async def test_a_full_disk_refuses_writes_wholly_and_reads_go_on(store: SqliteRuntime) -> None:
    await session(store)
    token = await locked(store, "a")
    await store.append_events([event(0)])
    await in_thread(store, lambda: limit_pages(store, 20))
    with pytest.raises(QuotaExceeded, match=r"no space is left for .*runtime\.sqlite") as refusal:
        await store.append_events([event(i) for i in range(1, 500)])
    assert refusal.value.reason == "STORE_FULL"
    write = StateWrite(name="a", value=bytes(500_000), fencing_token=token, expected_version=0)
    with pytest.raises(QuotaExceeded):
        await store.put_states(SessionId("one"), [write])
    assert (await store.read_events(EventQuery())).newest == 1
    assert await store.get_states(["a"]) == [None]


async def test_once_there_is_space_it_goes_on_by_itself(store: SqliteRuntime) -> None:
    await in_thread(store, lambda: limit_pages(store, 20))
    events = [event(i) for i in range(500)]
    with pytest.raises(QuotaExceeded):
        await store.append_events(events)
    await in_thread(store, lambda: limit_pages(store, 10_000))
    assert await store.append_events(events) == list(range(1, 501))


async def test_whoever_needs_no_space_is_served_beside_one_who_needs_too_much(
    store: SqliteRuntime,
) -> None:
    await session(store)
    small = StateWrite(
        name="a", value=b"x", fencing_token=await locked(store, "a"), expected_version=0
    )
    large = StateWrite(
        name="b", value=bytes(500_000), fencing_token=await locked(store, "b"), expected_version=0
    )
    await in_thread(store, lambda: limit_pages(store, 20))
    too_much, refreshed, written = await asyncio.gather(
        store.put_states(SessionId("one"), [large]),
        store.refresh_session(SessionId("one")),
        store.put_states(SessionId("one"), [small]),
        return_exceptions=True,
    )
    assert isinstance(too_much, QuotaExceeded)
    assert isinstance(refreshed, Session)
    assert written == [Written(1)]
