"""Several stores on one PostgreSQL database: what one does, the others see, in whatever order
commits arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from runtime_service.domain import Acquired, EventQuery, Held, LockWish
from runtime_service.drivers.postgres import PostgresRuntime
from runtime_service.testing import happened, put
from tests.support.postgres_stores import Direct, direct_to, granted, opened, session, until
from vmshepherd_kit.errors import SessionLost

Two = tuple[PostgresRuntime, PostgresRuntime]


@pytest.fixture
async def two(tmp_path: Path, postgres_options: dict[str, Any]) -> AsyncIterator[Two]:
    async with (
        opened(postgres_options, tmp_path) as one,
        opened(postgres_options, tmp_path) as other,
    ):
        yield one, other


@pytest.fixture
async def direct(two: Two, postgres_options: dict[str, Any]) -> AsyncIterator[Direct]:
    async with direct_to(postgres_options) as direct:
        yield direct


async def test_a_lock_given_by_one_is_held_for_all(
    two: Two,
) -> None:
    one, other = two
    holder, asker = await session(one, "holder"), await session(other, "asker")
    assert isinstance(await granted(one, holder, "a"), Acquired)
    refused = await granted(other, asker, "a")
    assert isinstance(refused, Held)
    assert refused.owner == "holder"
    assert await granted(other, holder, "a") == await granted(one, holder, "a")


async def test_of_many_who_ask_everywhere_each_lock_has_one_winner_and_none_waits_in_a_circle(
    two: Two, direct: Direct
) -> None:
    sessions = [await session(two[0], f"owner {i}") for i in range(10)]
    names = [f"preset/{i:03}" for i in range(300)]
    # They are known: the rows are there, and free, so that nothing but their order tells who waits.
    first = await session(two[0], "first")
    await two[0].try_lock(first, [LockWish(name) for name in names])
    await two[0].close_session(first)

    async def ask(index: int) -> list[Any]:
        # Half of them ask the other way round: an order of one's own would deadlock.
        wishes = [LockWish(name) for name in (names if index % 2 else reversed(names))]
        grants = await two[index % 2].try_lock(sessions[index], wishes)
        return grants if index % 2 else grants[::-1]

    answers = await asyncio.gather(*(ask(i) for i in range(10)))
    for grants in zip(*answers, strict=True):
        assert sum(isinstance(grant, Acquired) for grant in grants) == 1
    deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert await direct.run(deadlocks) == 0


async def test_an_event_told_to_one_wakes_who_waits_at_another(
    two: Two,
) -> None:
    one, other = two
    for number in range(3):
        newest = (await other.read_events(EventQuery())).newest
        waiting = asyncio.create_task(other.grown_beyond(newest))
        await one.append_events([happened(number)])
        async with asyncio.timeout(4):
            await waiting


async def test_a_takeover_waits_for_a_refresh_whose_commit_is_slow(
    two: Two, direct: Direct
) -> None:
    one, other = two
    holder, asker = await session(one, "slow"), await session(other, "asker")
    await granted(one, holder, "a")
    soon = "UPDATE {schema}.sessions SET expires = clock_timestamp() + '2 s' WHERE owner = 'slow'"
    await direct.run(soon)
    await direct.slow_down()
    refresh = asyncio.create_task(one.refresh_session(holder))
    await direct.until_waiting(1)
    over = "SELECT expires < clock_timestamp() FROM {schema}.sessions WHERE owner = 'slow'"
    await until(lambda: direct.run(over))
    takeover = asyncio.create_task(granted(other, asker, "a"))
    await direct.until_waiting(2)
    await direct.let_go()
    assert (await refresh).remaining > timedelta(seconds=10)
    assert isinstance(await takeover, Held)


async def test_a_refresh_that_comes_to_its_turn_too_late_is_refused(
    two: Two, direct: Direct
) -> None:
    one, _ = two
    holder = await session(one, "holder")
    soon = "UPDATE {schema}.sessions SET expires = clock_timestamp() + '1 s'"
    await direct.run(soon)
    async with direct.db.transaction():
        await direct.run("SELECT 1 FROM {schema}.sessions FOR SHARE")
        refresh = asyncio.create_task(one.refresh_session(holder))
        await direct.until_waiting(1)
        over = "SELECT expires < clock_timestamp() FROM {schema}.sessions"
        await until(lambda: direct.run(over))
    with pytest.raises(SessionLost):
        await refresh


async def test_a_session_cannot_be_closed_under_a_write(two: Two, direct: Direct) -> None:
    one, other = two
    holder = await session(one, "holder")
    grant = await granted(one, holder, "a")
    assert isinstance(grant, Acquired)
    async with direct.db.transaction():
        await direct.run("SELECT {schema}.demand_live_1($1)", holder)
        closing = asyncio.create_task(other.close_session(holder))
        await direct.until_waiting(1)
        assert not closing.done()
    assert await closing
    with pytest.raises(SessionLost):
        await one.put_states(holder, [put("a", b"late", token=grant.fencing_token)])


async def test_no_event_becomes_visible_before_an_earlier_one(two: Two, direct: Direct) -> None:
    one, other = two
    await direct.slow_down()
    first = asyncio.create_task(one.append_events([happened(1, kind="slow")]))
    await direct.until_waiting(1)
    second = asyncio.create_task(other.append_events([happened(2)]))
    await direct.until_waiting(2)
    page = await other.read_events(EventQuery())
    assert (page.newest, page.events) == (0, ())
    await direct.let_go()
    assert (await first, await second) == ([1], [2])
    page = await other.read_events(EventQuery(ascending=True))
    assert [stored.sequence for stored in page.events] == [1, 2]


async def test_of_many_who_open_it_first_each_finds_it_made(
    tmp_path: Path, postgres_options: dict[str, Any]
) -> None:
    async def open_and_use(number: int) -> None:
        async with opened(postgres_options, tmp_path) as store:
            await session(store, f"owner {number}")

    await asyncio.gather(*(open_and_use(i) for i in range(4)))
    async with opened(postgres_options, tmp_path) as store:
        assert len((await store.list_sessions(after=0, limit=10)).items) == 4
