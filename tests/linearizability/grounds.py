"""Where clients quarrel: the stores of this repository, and what can befall each of them.

`run` and the tests choose one by name.  `…-wire` is the same behind runtime_services that are
processes of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final, cast

from . import servers
from .opening import opened
from .record import Store
from .scene import Ground
from .wire import Service


@asynccontextmanager
async def memory(folder: Path) -> AsyncIterator[Ground]:
    """It knows no faults; its clients are at some distance, or calls would never overlap."""
    async with opened("memory", folder) as store:
        yield Ground(stores=[far(store, Random(1))])


@asynccontextmanager
async def sqlite(folder: Path) -> AsyncIterator[Ground]:
    """Closed and opened again while clients ask."""
    async with AsyncExitStack() as life:
        stores: list[Store] = []

        async def reopened() -> None:
            stores.clear()
            await life.aclose()
            stores.append(await life.enter_async_context(opened("sqlite", folder)))

        await reopened()
        yield Ground(stores=stores, faults=[("reopened", reopened)])


@asynccontextmanager
async def sqlite_wire(folder: Path) -> AsyncIterator[Ground]:
    """A process that is killed and paused."""
    async with Service.running(folder, "runtime", "sqlite", {}) as service:
        faults = [("killed", service.killed), ("paused", service.paused)]
        yield Ground(stores=[service.store], faults=faults)


@asynccontextmanager
async def memory_wire(folder: Path) -> AsyncIterator[Ground]:
    """A process that is paused."""
    async with Service.running(folder, "runtime", "memory", {}) as service:
        faults = [("paused", service.paused)]
        yield Ground(stores=[service.store], faults=faults)


GROUNDS: Final[Mapping[str, Callable[[Path], AbstractAsyncContextManager[Ground]]]] = {
    "memory": memory,
    "memory-wire": memory_wire,
    "sqlite": sqlite,
    "sqlite-wire": sqlite_wire,
    "postgres": servers.on_postgres,
    "postgres-wire": servers.on_postgres_wire,
    "zookeeper": servers.on_zookeeper,
    "zookeeper-wire": servers.on_zookeeper_wire,
}


class _Far:
    """A store that asks and answers take a while to reach and to leave."""

    def __init__(self, store: Store, chance: Random) -> None:
        self._store = store
        self._chance = chance

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        return partial(self._at_a_distance, getattr(self._store, method))

    async def _at_a_distance(
        self, method: Callable[..., Awaitable[Any]], *asked: Any, **more: Any
    ) -> Any:
        await asyncio.sleep(self._chance.uniform(0, 0.001))
        answer = await method(*asked, **more)
        await asyncio.sleep(self._chance.uniform(0, 0.001))
        return answer


def far(store: Store, chance: Random) -> Store:
    """The store, at some distance."""
    return cast("Store", _Far(store, chance))
