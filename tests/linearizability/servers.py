"""Grounds on real servers: two stores, or two runtime_services, over one database or one ensemble.

`grounds` names them.  Each history has servers of its own, which are gone behind it.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.support import postgres, zookeeper

from .opening import opened
from .scene import Fault, Ground
from .wire import Service

T = TypeVar("T")

_PAUSE_SECONDS: Final = 1.6
"""Longer than the drivers wait here."""
_POSTGRES: Final[Mapping[str, Any]] = {"statement_timeout": "1s", "connect_timeout": "1s"}
_ZOOKEEPER: Final[Mapping[str, Any]] = {"timeout": "1s"}


def missing(ground: str) -> str | None:
    """How to get the servers that a ground needs, or None if they are there."""
    if ground.startswith("postgres"):
        return postgres.missing()
    return zookeeper.missing() if ground.startswith("zookeeper") else None


@asynccontextmanager
async def on_postgres(folder: Path) -> AsyncIterator[Ground]:
    """Two stores over one database, which crashes, stands still, and closes connections."""
    async with _in_thread(postgres.running()) as server:
        options = server.options(**_POSTGRES)
        async with _two_stores(folder, "postgres", options, _faults_of(server)) as ground:
            yield ground


@asynccontextmanager
async def on_postgres_wire(folder: Path) -> AsyncIterator[Ground]:
    """Two runtime_services over one database; the same befalls it, and they are killed and
    paused.
    """
    async with _in_thread(postgres.running()) as server:
        options = server.options(**_POSTGRES)
        async with _two_services(folder, "postgres", options, _faults_of(server)) as ground:
            yield ground


@asynccontextmanager
async def on_zookeeper(folder: Path) -> AsyncIterator[Ground]:
    """Two stores over one ensemble, whose nodes die and stand still, its leader above all."""
    async with _in_thread(_ensemble()) as ensemble:
        options = {"servers": ensemble.servers, **_ZOOKEEPER}
        async with _two_stores(folder, "zookeeper", options, _faults_in(ensemble)) as ground:
            yield ground


@asynccontextmanager
async def on_zookeeper_wire(folder: Path) -> AsyncIterator[Ground]:
    """Two runtime_services over one ensemble; the same befalls it, and they are killed and
    paused.
    """
    async with _in_thread(_ensemble()) as ensemble:
        options = {"servers": ensemble.servers, **_ZOOKEEPER}
        async with _two_services(folder, "zookeeper", options, _faults_in(ensemble)) as ground:
            yield ground


@asynccontextmanager
async def _two_stores(
    folder: Path,
    driver: str,
    options: Mapping[str, Any],
    faults: Sequence[tuple[str, Fault]],
) -> AsyncIterator[Ground]:
    async with opened(driver, folder, options) as one, opened(driver, folder, options) as other:
        yield Ground(stores=[one, other], faults=faults)


@asynccontextmanager
async def _two_services(
    folder: Path,
    driver: str,
    options: Mapping[str, Any],
    faults: Sequence[tuple[str, Fault]],
) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as life:
        services = [
            await life.enter_async_context(Service.running(folder, name, driver, options))
            for name in ("runtime-1", "runtime-2")
        ]
        own = [(f"{s.name} killed", s.killed) for s in services]
        own += [(f"{s.name} paused", s.paused) for s in services]
        stores = [service.store for service in services]
        yield Ground(stores=[*stores], faults=[*faults, *own])


def _faults_of(server: postgres.Server) -> list[tuple[str, Fault]]:
    async def crash() -> None:
        await asyncio.to_thread(server.restart, immediate=True)

    async def stand_still() -> None:
        await _paused(server.pause, server.resume)

    async def close_connections() -> None:
        await asyncio.to_thread(server.terminate_backends)

    return [
        ("crashed", crash),
        ("stood still", stand_still),
        ("connections closed", close_connections),
        ("connections closed", close_connections),
    ]


def _faults_in(ensemble: zookeeper.Ensemble) -> list[tuple[str, Fault]]:
    async def leader_dies() -> None:
        await asyncio.to_thread(lambda: ensemble.restart(ensemble.leader()))

    async def leader_stands_still() -> None:
        leader = await asyncio.to_thread(ensemble.leader)
        await _paused(lambda: ensemble.pause(leader), lambda: ensemble.resume(leader))
        await asyncio.to_thread(ensemble.wait_serving)

    async def minority_stands_still() -> None:
        follower, *_ = await asyncio.to_thread(ensemble.followers)
        await _paused(lambda: ensemble.pause(follower), lambda: ensemble.resume(follower))
        await asyncio.to_thread(ensemble.wait_serving)

    async def all_restarted() -> None:
        await asyncio.to_thread(ensemble.stop)
        await asyncio.to_thread(ensemble.start)

    return [
        ("leader killed", leader_dies),
        ("leader stood still", leader_stands_still),
        ("minority stood still", minority_stands_still),
        ("ensemble restarted", all_restarted),
    ]


async def _paused(pause: Callable[[], None], resume: Callable[[], None]) -> None:
    await asyncio.to_thread(pause)
    try:
        await asyncio.sleep(_PAUSE_SECONDS)
    finally:
        await asyncio.to_thread(resume)


@contextmanager
def _ensemble() -> Iterator[zookeeper.Ensemble]:
    with (
        tempfile.TemporaryDirectory(prefix="zookeeper-") as folder,
        zookeeper.Ensemble(Path(folder), nodes=3) as ensemble,
    ):
        yield ensemble


@asynccontextmanager
async def _in_thread(block: AbstractContextManager[T]) -> AsyncIterator[T]:
    """The block, entered and left where it may wait."""
    entered = await asyncio.to_thread(block.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(block.__exit__, None, None, None)
