"""The PostgreSQL driver while its server crashes, hangs, or hands over to its standby.

Each call ends by itself with a word of what is wrong, what was answered is kept, and work resumes
without anybody's help.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from runtime_service.domain import (
    Acquired,
    EventQuery,
    FencingToken,
    Held,
    HeldLock,
    SessionId,
    Written,
)
from runtime_service.drivers.postgres import PostgresRuntime
from runtime_service.testing import happened, put
from tests.support import postgres
from tests.support.postgres import Server
from tests.support.postgres_stores import direct_to, granted, opened, session, until
from vmshepherd_kit.errors import ShepherdError, Unavailable

# Long enough for what shall be answered by a machine that is slow at times, and no longer.
_SHORT = {"statement_timeout": "2s", "connect_timeout": "2s"}
# A call must end within its limit and a second; generous, for the same reason.
_SOON_SECONDS = 30


@pytest.fixture
async def store(tmp_path: Path, postgres_options: dict[str, Any]) -> AsyncIterator[PostgresRuntime]:
    async with opened(postgres_options | _SHORT, tmp_path) as store:
        yield store


async def works(store: PostgresRuntime) -> bool:
    """Whether it answers; if not, it says that it will."""
    try:
        await store.list_sessions(after=0, limit=1)
    except Unavailable:
        return False
    return True


async def token_of(store: PostgresRuntime, asker: SessionId, name: str) -> FencingToken:
    grant = await granted(store, asker, name)
    assert isinstance(grant, Acquired)
    return grant.fencing_token


async def test_what_was_answered_survives_a_crash_and_work_goes_on(
    store: PostgresRuntime, postgres_server: Server
) -> None:
    holder = await session(store, "holder")
    token = await token_of(store, holder, "a")
    written = 0

    async def write_on() -> None:
        nonlocal written
        while True:
            version = put("a", b"%d" % written, token=token, version=written)
            assert await store.put_states(holder, [version]) == [Written(written + 1)]
            written += 1

    writing = asyncio.create_task(write_on())
    await until(lambda: _is_true(written > 5))
    await asyncio.to_thread(postgres_server.stop, immediate=True)
    with pytest.raises(Unavailable) as refused:
        await writing
    assert "goes on by itself" in refused.value.message
    assert not await works(store)
    await asyncio.to_thread(postgres_server.start)
    await until(lambda: works(store))
    [state] = await store.get_states(["a"])
    assert state is not None
    # The last one was not answered, and may have come through.
    assert state.version in {written, written + 1}
    assert await token_of(store, holder, "a") == token


async def _is_true(condition: bool) -> bool:  # noqa: FBT001
    return condition


async def test_a_connection_that_is_ended_in_mid_call_is_no_error_of_the_next(
    store: PostgresRuntime, postgres_server: Server, postgres_options: dict[str, Any]
) -> None:
    holder = await session(store, "holder")
    await token_of(store, holder, "a")
    async with direct_to(postgres_options) as direct:
        transaction = direct.db.transaction()
        await transaction.start()
        await direct.run("SELECT 1 FROM {schema}.locks FOR UPDATE")
        waiting = asyncio.create_task(granted(store, holder, "a"))
        await direct.until_waiting(1)
        await asyncio.to_thread(postgres_server.terminate_backends)
        with pytest.raises(Unavailable):
            await waiting
        await until(lambda: works(store))
        assert isinstance(await granted(store, holder, "b"), Acquired)


async def test_a_server_that_stands_still_costs_each_call_its_limit_and_no_more(
    store: PostgresRuntime, postgres_server: Server
) -> None:
    holder = await session(store, "holder")
    calls = [store.refresh_session(holder) for _ in range(30)]
    postgres_server.pause()
    async with asyncio.timeout(_SOON_SECONDS):
        answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(answer) for answer in answers} == {Unavailable}
    postgres_server.resume()
    await until(lambda: works(store))
    assert await store.refresh_session(holder)


async def test_who_waits_for_events_is_woken_although_the_server_was_restarted_meanwhile(
    store: PostgresRuntime, postgres_server: Server
) -> None:
    [sequence] = await store.append_events([happened(1)])
    waiting = asyncio.create_task(store.grown_beyond(sequence))
    await asyncio.to_thread(postgres_server.restart)
    await until(lambda: works(store))
    await store.append_events([happened(2)])
    async with asyncio.timeout(_SOON_SECONDS):
        await waiting


async def test_a_commit_that_waits_for_a_standby_is_never_let_through_unconfirmed(
    store: PostgresRuntime, postgres_server: Server, postgres_options: dict[str, Any]
) -> None:
    holder, asker = await session(store, "holder"), await session(store, "asker")
    await token_of(store, holder, "a")
    await _wait_for_standby(postgres_server, "nobody")
    try:
        with pytest.raises(Unavailable) as refused:
            await store.unlock(holder, [HeldLock("a", FencingToken(1))])
        assert refused.value.reason == "STORE_BUSY"
        locks = await store.list_locks(after="", limit=1)
        assert locks.items[0].owner == "holder"
        with pytest.raises(Unavailable):
            await granted(store, asker, "a")
    finally:
        await _wait_for_standby(postgres_server, "")
    # Both were under way, and nobody can tell which of them came first.
    await until(lambda: works(store))
    async with direct_to(postgres_options) as direct:
        settled = "SELECT token > 1 OR holder IS NULL FROM {schema}.locks"
        await until(lambda: direct.run(settled))


async def _wait_for_standby(server: Server, name: str) -> None:
    await asyncio.to_thread(server.sql, f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    await asyncio.to_thread(server.sql, "SELECT pg_reload_conf()")
    shown = "SHOW synchronous_standby_names"
    while await asyncio.to_thread(server.sql, shown) != name:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_a_caller_that_gives_up_halves_nothing_and_costs_no_connection(
    store: PostgresRuntime, postgres_options: dict[str, Any]
) -> None:
    holder = await session(store, "holder")
    [[backend]] = await store._database.fetch("SELECT pg_backend_pid()")
    async with direct_to(postgres_options) as direct:
        async with direct.db.transaction():
            await direct.run("SELECT 1 FROM {schema}.journal FOR UPDATE")
            telling = asyncio.create_task(store.append_events([happened(1), happened(2)]))
            await direct.until_waiting(1)
            telling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await telling
        told = "SELECT count(*) = 2 FROM {schema}.events"
        await until(lambda: direct.run(told))
        assert await store.append_events([happened(2), happened(1)]) == [2, 1]
        assert await store.refresh_session(holder)
        is_kept = "SELECT count(*) = 1 FROM pg_stat_activity WHERE pid = $1"
        assert await direct.run(is_kept, backend)


async def test_a_full_disk_is_said_to_be_one_and_what_is_stored_is_read(
    store: PostgresRuntime, postgres_options: dict[str, Any]
) -> None:
    holder = await session(store, "holder")
    token = await token_of(store, holder, "a")
    await store.put_states(holder, [put("a", b"one", token=token)])
    full = """
        CREATE FUNCTION {schema}.full() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON {schema}.states
            FOR EACH ROW EXECUTE FUNCTION {schema}.full();
    """
    async with direct_to(postgres_options) as direct:
        await direct.db.execute(full.replace("{schema}", direct.schema))
    with pytest.raises(ShepherdError) as refused:
        await store.put_states(holder, [put("a", b"two", token=token, version=1)])
    assert refused.value.reason == "STORE_FULL"
    [state] = await store.get_states(["a"])
    assert state is not None
    assert state.value == b"one"


class TestPair:
    """A primary and its standby, which have nothing in common but their data."""

    @pytest.fixture
    def pair(self) -> Iterator[tuple[Server, Server]]:
        if (how := postgres.missing()) is not None:
            pytest.skip(how)
        with ExitStack() as stack:
            primary = stack.enter_context(postgres.running())
            yield primary, stack.enter_context(primary.with_standby())

    @pytest.fixture
    async def store(
        self, tmp_path: Path, pair: tuple[Server, Server]
    ) -> AsyncIterator[PostgresRuntime]:
        addresses = {
            "host": ",".join(server.host for server in pair),
            "port": [server.port for server in pair],
        }
        async with opened(pair[0].options(), tmp_path, **_SHORT, **addresses) as store:
            yield store

    async def test_tokens_go_on_growing_although_the_standby_has_lost_the_last_grants(
        self, store: PostgresRuntime, pair: tuple[Server, Server]
    ) -> None:
        primary, standby = pair
        holder = await session(store, "holder")
        await store.append_events([happened(1)])
        first = await token_of(store, holder, "a")
        await asyncio.to_thread(standby.caught_up_with, primary)
        await asyncio.to_thread(standby.stop)
        newest = first
        for _ in range(5):
            await store.unlock(holder, [HeldLock("a", newest)])
            newest = await token_of(store, holder, "a")
        await store.append_events([happened(2)])
        waiting = asyncio.create_task(store.grown_beyond(2))
        await asyncio.to_thread(primary.stop, immediate=True)
        await asyncio.to_thread(standby.start)
        await asyncio.to_thread(standby.promote)
        await until(lambda: works(store))
        asker = await session(store, "asker")
        # What the standby knows of is held; the rest is forgotten.
        assert isinstance(await granted(store, asker, "a"), Held)
        await store.close_session(holder)
        grant = await granted(store, asker, "a", floor=newest)
        assert grant == Acquired(FencingToken(newest + 1))
        # Who waits beyond what is lost looks again.
        async with asyncio.timeout(_SOON_SECONDS):
            await waiting
        assert (await store.read_events(EventQuery())).newest == 1

    async def test_an_old_primary_that_hangs_is_left_for_the_new_one(
        self, store: PostgresRuntime, pair: tuple[Server, Server]
    ) -> None:
        primary, standby = pair
        holder = await session(store, "holder")
        token = await token_of(store, holder, "a")
        await asyncio.to_thread(standby.caught_up_with, primary)
        primary.pause()
        await asyncio.to_thread(standby.promote)
        await until(lambda: works(store))
        assert await token_of(store, holder, "a") == token
        primary.stop(immediate=True)
        await asyncio.to_thread(primary.follow, standby)
        assert await store.refresh_session(holder)

    async def test_while_there_are_only_standbys_it_says_so(
        self, store: PostgresRuntime, pair: tuple[Server, Server]
    ) -> None:
        primary, _ = pair
        await asyncio.to_thread(primary.stop)
        await until(lambda: _says(store, "STORE_READ_ONLY"))
        await asyncio.to_thread(primary.start)
        await until(lambda: works(store))


async def _says(store: PostgresRuntime, reason: str) -> bool:
    try:
        await store.list_sessions(after=0, limit=1)
    except Unavailable as e:
        return e.reason == reason
    return False
