"""Composition root of preset_service: settings → sources → shelf → servicer → server.

The only file that brings the parts together.  Whoever starts the service, alone or with the whole
suite in one process, enters `running`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final, Self, cast

import grpc

from preset_service import library
from preset_service.config import SECTION, Config
from preset_service.last_good import LastGood
from preset_service.library import Library, Supplier
from preset_service.port import GROUP, Place, PresetSource
from preset_service.servicer import PresetServicer
from vmshepherd.preset.v1.preset_service_pb2 import DESCRIPTOR
from vmshepherd.preset.v1.preset_service_pb2_grpc import add_PresetServiceServicer_to_server
from vmshepherd_kit import drivers, serve
from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import Refused

_GRACE: Final = timedelta(seconds=5)


@asynccontextmanager
async def running(
    config: Config,
    *,
    suite: Suite,
    clock: Clock,
    chance: Chance,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> AsyncIterator[Running]:
    """Serve within the block; every source has been asked once before it begins."""
    last_good = LastGood(suite.state_dir / SECTION / "last_good.json")
    async with (
        library.running(last_good, life=chance.uuid(), clock=clock) as shelves,
        Stock(shelves, suite=suite, clock=clock) as stock,
    ):
        await stock.take(config)
        async with serve.running(
            [_mount(PresetServicer(shelves))],
            config.listen,
            clock=clock,
            chance=chance,
            interceptors=interceptors,
        ) as server:
            yield Running(server, stock, config.listen)
            await server.drain(_GRACE)


class Running(serve.Around):
    """A running service: its server, and the settings that it takes while it runs."""

    def __init__(self, server: serve.Server, stock: Stock, listen: serve.Listen) -> None:
        super().__init__(server)
        self._stock = stock
        self._listen = listen

    async def reload(self, config: Config) -> None:
        """Take other sources and defaults; refused as a whole when one of them is wrong."""
        if config.listen != self._listen:
            raise Refused("needs a restart: preset.listen", reason="NEEDS_RESTART")
        await self._stock.take(config)


class Stock:
    """The drivers of the sources that are configured now."""

    def __init__(self, shelves: Library, *, suite: Suite, clock: Clock) -> None:
        self._shelves = shelves
        self._suite = suite
        self._clock = clock
        self._opened = AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        # The sources are left before their drivers are closed.
        await self._shelves.close()
        await self._opened.aclose()

    async def take(self, config: Config) -> None:
        """Open the drivers of a configuration, and go over to them; or leave all as it is."""
        async with AsyncExitStack() as opening:
            suppliers = await _suppliers(config, opening, suite=self._suite, clock=self._clock)
            former, self._opened = self._opened, opening.pop_all()
        await self._shelves.stock(suppliers, config.defaults)
        await former.aclose()


async def _suppliers(
    config: Config, stack: AsyncExitStack, *, suite: Suite, clock: Clock
) -> list[Supplier]:
    suppliers = []
    for index, each in enumerate(config.sources):
        place = Place(
            name=each.name,
            where=f"{SECTION}.sources.{index}.options",
            base_dir=suite.base_dir,
            state_dir=suite.state_dir / SECTION / each.name,
            clock=clock,
        )
        driver = cast("type[PresetSource]", drivers.load(GROUP, each.driver))
        source = await stack.enter_async_context(driver.open(each.options, place=place))
        suppliers.append(Supplier(name=each.name, driver=each.driver, source=source))
    return suppliers


def _mount(servicer: PresetServicer) -> serve.Mount:
    return serve.Mount(
        add=add_PresetServiceServicer_to_server,
        servicer=servicer,
        descriptor=DESCRIPTOR.services_by_name["PresetService"],
    )
