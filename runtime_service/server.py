"""Composition root of runtime_service: settings → store → servicer → server.

The only file that brings the parts together.  Whoever starts the service, alone or with the whole
suite in one process, enters `running`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import grpc

from vmshepherd.runtime.v1.runtime_service_pb2 import DESCRIPTOR
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import add_RuntimeServiceServicer_to_server
from vmshepherd_kit import drivers, log, serve, settings
from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.config_file import Suite

from .config import SECTION, Config
from .port import GROUP, Driver, RuntimeStore, Trait
from .servicer import RuntimeServicer

_log = log.get("runtime")


@asynccontextmanager
async def running(
    config: Config,
    *,
    suite: Suite,
    clock: Clock,
    chance: Chance,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> AsyncIterator[serve.Server]:
    """Serve within the block, then close the store."""
    driver = cast("type[Driver]", drivers.load(GROUP, config.driver))
    options = settings.parse(config.options, driver.Options, where=f"{SECTION}.options")
    async with driver.open(options, suite=suite, clock=clock) as store:
        _tell(config.driver, store)
        async with serve.running(
            [_mount(RuntimeServicer(store, clock=clock, chance=chance))],
            config.listen,
            clock=clock,
            chance=chance,
            interceptors=interceptors,
        ) as server:
            yield server


def _mount(servicer: RuntimeServicer) -> serve.Mount:
    return serve.Mount(
        add=add_RuntimeServiceServicer_to_server,
        servicer=servicer,
        descriptor=DESCRIPTOR.services_by_name["RuntimeService"],
    )


def _tell(driver: str, store: RuntimeStore) -> None:
    if Trait.DURABLE not in store.traits:
        _log.warning("store forgets everything when this process ends", driver=driver)
    _log.info("store opened", driver=driver, traits=sorted(map(str, store.traits)))
