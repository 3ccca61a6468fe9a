"""Composition root of preset_service: settings → sources → shelf → servicer → server.

The only file that brings the parts together.  Whoever starts the service, alone or with the whole
suite in one process, enters `running`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final, cast

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

_GRACE: Final = timedelta(seconds=5)


@asynccontextmanager
async def running(
    config: Config,
    *,
    suite: Suite,
    clock: Clock,
    chance: Chance,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> AsyncIterator[serve.Server]:
    """Serve within the block; every source has been asked once before it begins."""
    last_good = LastGood(suite.state_dir / SECTION / "last_good.json")
    async with (
        library.running(last_good, life=chance.uuid(), clock=clock) as shelves,
        _stocked(shelves, config, suite=suite, clock=clock),
        serve.running(
            [_mount(PresetServicer(shelves))],
            config.listen,
            clock=clock,
            chance=chance,
            interceptors=interceptors,
        ) as server,
    ):
        yield server
        await server.drain(_GRACE)


@asynccontextmanager
async def _stocked(
    shelves: Library, config: Config, *, suite: Suite, clock: Clock
) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        await shelves.stock(
            await _suppliers(config, stack, suite=suite, clock=clock), config.defaults
        )
        # The sources are left before their drivers are closed.
        stack.push_async_callback(shelves.close)
        yield


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
