"""Where clients quarrel: the stores of this repository, and what can befall each of them.

`run` and the tests choose one by name.  `…-wire` is the same behind runtime_services that are
processes of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Final, cast

from runtime_service.port import GROUP, Driver, RuntimeStore
from vmshepherd_kit import drivers, settings
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.config_file import Suite

from .clients import Ground
from .record import Store
from .wire import Service

_RESPITE_SECONDS: Final = 2.0


def opened(
    driver: str, folder: Path, options: Mapping[str, Any] | None = None
) -> AbstractAsyncContextManager[RuntimeStore]:
    """A store of this driver, as runtime_service opens it."""
    kind = cast("type[Driver]", drivers.load(GROUP, driver))
    parsed = settings.parse(options or {}, kind.Options, where="options")
    suite = Suite(suite_id="test", state_dir=folder, base_dir=folder, embedded=False)
    return kind.open(parsed, suite=suite, clock=SystemClock())


@asynccontextmanager
async def memory(folder: Path) -> AsyncIterator[Ground]:
    """It knows no faults; its clients are at some distance, or calls would never overlap."""
    async with opened("memory", folder) as store:
        yield Ground(stores=[Far(store, Random(1))])


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
        yield Ground(stores=stores, faults=[("reopened", reopened)], between_faults=0.2)


@asynccontextmanager
async def sqlite_wire(folder: Path) -> AsyncIterator[Ground]:
    """A process that is killed and paused."""
    async with Service.running(folder, "runtime", "sqlite", {}) as service:
        faults = [("killed", service.killed), ("paused", service.paused)]
        yield Ground(stores=[service.store], faults=faults, between_faults=_RESPITE_SECONDS)


@asynccontextmanager
async def memory_wire(folder: Path) -> AsyncIterator[Ground]:
    """A process that is paused."""
    async with Service.running(folder, "runtime", "memory", {}) as service:
        faults = [("paused", service.paused)]
        yield Ground(stores=[service.store], faults=faults, between_faults=_RESPITE_SECONDS)


GROUNDS: Final[Mapping[str, Callable[[Path], AbstractAsyncContextManager[Ground]]]] = {
    "memory": memory,
    "memory-wire": memory_wire,
    "sqlite": sqlite,
    "sqlite-wire": sqlite_wire,
}


class Far:
    """A store that asks and answers take a while to reach and to leave."""

    def __init__(self, store: Store, chance: Random) -> None:
        self._store = store
        self._chance = chance

    def __getattr__(self, method: str) -> Callable[..., Awaitable[Any]]:
        async def at_a_distance(*asked: Any, **more: Any) -> Any:
            await asyncio.sleep(self._chance.uniform(0, 0.001))
            answer = await getattr(self._store, method)(*asked, **more)
            await asyncio.sleep(self._chance.uniform(0, 0.001))
            return answer

        return at_a_distance
