"""What becomes of calls when nodes die, stand still or come back: each ends in time, by an answer
or by Unavailable, and work goes on by itself.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial

import pytest

from runtime_service.domain import EventQuery, SessionId, VersionConflict, Written
from runtime_service.drivers.zookeeper import ZookeeperRuntime
from tests.support import zookeeper_stores
from tests.support.zookeeper import Ensemble, ensemble_of_this_run
from tests.support.zookeeper_stores import event, lock, session, write
from vmshepherd_kit.errors import Unavailable
from vmshepherd_kit.testing import FakeClock

pytestmark = [pytest.mark.xdist_group("zookeeper"), pytest.mark.e2e]

LONG = timedelta(minutes=10)
LIMIT_SECONDS = 3
# A machine that is busy with other things is late.
SLACK_SECONDS = 7
opened = partial(zookeeper_stores.opened, timeout=f"{LIMIT_SECONDS}s")


@pytest.fixture
def node(pytestconfig: pytest.Config) -> Iterator[Ensemble]:
    ensemble = ensemble_of_this_run(pytestconfig, nodes=1)
    yield ensemble
    ensemble.resume(1)


@pytest.fixture
def three(pytestconfig: pytest.Config) -> Iterator[Ensemble]:
    ensemble = ensemble_of_this_run(pytestconfig, nodes=3)
    yield ensemble
    ensemble.resume(*ensemble.nodes)


async def until_it_works(store: ZookeeperRuntime, holder: SessionId) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                await store.refresh_session(holder)
            except Unavailable:
                continue
            return


async def is_unavailable(store: ZookeeperRuntime, holder: SessionId) -> None:
    """Each call of the port is, and says so in time."""
    calls = [
        store.refresh_session(holder),
        store.list_sessions(after=0, limit=1),
        store.get_states(["a"]),
        store.put_states(holder, [write(b"x", 1)]),
        store.append_events([event("unheard")]),
        store.read_events(EventQuery()),
    ]
    begun = time.monotonic()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - begun < LIMIT_SECONDS + SLACK_SECONDS
    for outcome in outcomes:
        assert isinstance(outcome, Unavailable)
        assert outcome.reason == "STORE_UNREACHABLE"
        assert "it goes on by itself" in outcome.message


async def test_a_node_that_stands_still_for_longer_than_its_sessions_is_waited_for(
    node: Ensemble,
) -> None:
    async with opened(node.servers, node.room()) as store:
        holder = await session(store, ttl=LONG)
        token = await lock(store, holder)
        node.pause(1)
        try:
            await is_unavailable(store, holder)
            await is_unavailable(store, holder)
            await is_unavailable(store, holder)
        finally:
            node.resume(1)
        await until_it_works(store, holder)
        assert await lock(store, holder) == token


async def test_an_ensemble_that_is_restarted_has_forgotten_nothing(three: Ensemble) -> None:
    async with opened(three.servers, three.room()) as store:
        holder = await session(store, ttl=LONG)
        token = await lock(store, holder)
        assert await store.put_states(holder, [write(b"kept", token)]) == [Written(1)]
        await store.append_events([event("e")])
        three.stop()
        await is_unavailable(store, holder)
        three.start()
        await until_it_works(store, holder)
        [state] = await store.get_states(["a"])
        assert state
        assert (state.value, await lock(store, holder)) == (b"kept", token)
        assert await store.append_events([event("e")]) == [1]


async def test_a_service_that_starts_while_the_ensemble_is_away_works_as_soon_as_it_is_there(
    three: Ensemble,
) -> None:
    three.stop()
    begun = time.monotonic()
    async with opened(three.servers, three.room()) as store:
        assert time.monotonic() - begun < LIMIT_SECONDS + SLACK_SECONDS
        with pytest.raises(Unavailable, match="does not answer in time"):
            await session(store)
        three.start()
        async with asyncio.timeout(60):
            while True:
                try:
                    holder = await session(store, ttl=LONG)
                except Unavailable:
                    continue
                break
        assert await lock(store, holder)


async def test_leaders_that_die_in_the_middle_of_traffic_lose_nothing_that_was_answered(
    three: Ensemble,
) -> None:
    room = three.room()
    async with opened(three.servers, room) as one, opened(three.servers, room) as two:
        holder = await session(one, ttl=LONG)
        token = await lock(one, holder)
        done: list[int] = []
        is_over = asyncio.Event()

        async def write_on() -> None:
            version = 0
            for store in itertools.cycle((one, two)):
                try:
                    [outcome] = await store.put_states(
                        holder, [write(b"%d" % version, token, version=version)]
                    )
                except Unavailable:
                    continue
                if isinstance(outcome, VersionConflict):
                    # What was unavailable was done after all, and only that.
                    assert outcome.version in {version, version + 1}
                    version = outcome.version
                else:
                    version += 1
                    assert outcome == Written(version)
                done.append(version)
                if is_over.is_set():
                    return

        writing = asyncio.create_task(write_on())
        for _ in range(2):
            leader = await asyncio.to_thread(three.leader)
            await asyncio.to_thread(three.kill, leader)
            at = len(done)
            async with asyncio.timeout(60):
                while len(done) < at + 20:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(three.restart, leader)
        leader = await asyncio.to_thread(three.leader)
        three.pause(leader)
        at = len(done)
        async with asyncio.timeout(60):
            while len(done) < at + 20:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        three.resume(leader)
        is_over.set()
        await writing
        assert done == sorted(set(done))
        [state] = await two.get_states(["a"])
        assert state
        assert state.version == done[-1]


async def test_without_a_majority_nothing_is_answered_and_then_everything(three: Ensemble) -> None:
    async with opened(three.servers, three.room()) as store:
        holder = await session(store, ttl=LONG)
        followers = three.followers()
        three.pause(*followers)
        try:
            await is_unavailable(store, holder)
        finally:
            three.resume(*followers)
        await until_it_works(store, holder)


async def test_a_client_whose_threads_have_died_is_replaced(node: Ensemble) -> None:
    clock = FakeClock()
    async with opened(node.servers, node.room(), clock=clock) as store:
        holder = await session(store, ttl=LONG)
        client = store._connection._client
        # As a wrong count of answers ends kazoo's thread.
        await asyncio.to_thread(client._zookeeper.stop)
        clock._move_to(timedelta(seconds=2))
        await store.refresh_session(holder)
        assert store._connection._client is not client
