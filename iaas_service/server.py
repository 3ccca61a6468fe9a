"""Composition root: configuration → drivers → servicer → a running server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import grpc

from vmshepherd.iaas.v1 import iaas_service_pb2, iaas_service_pb2_grpc
from vmshepherd_kit import drivers, serve, settings
from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.config_file import Suite

from .config import SECTION, Config, ProviderConfig
from .port import GROUP, Cloud, CloudDriver
from .providers import Provider
from .servicer import IaasServicer


@asynccontextmanager
async def running(
    config: Config,
    *,
    suite: Suite,
    clock: Clock,
    chance: Chance,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> AsyncIterator[serve.Server]:
    """The service on its address; its drivers are open within the block."""
    async with AsyncExitStack() as stack:
        providers = []
        for name, provider in config.providers.items():
            cloud = await stack.enter_async_context(
                _cloud(name, provider, suite=suite, clock=clock, chance=chance)
            )
            providers.append(
                Provider.of(
                    name,
                    provider.driver,
                    cloud,
                    suite_id=suite.suite_id,
                    parallel_calls=provider.parallel_calls,
                )
            )
        server = await stack.enter_async_context(
            serving(
                providers,
                config,
                suite=suite,
                clock=clock,
                chance=chance,
                interceptors=interceptors,
            )
        )
        yield server


@asynccontextmanager
async def serving(
    providers: Sequence[Provider],
    config: Config,
    *,
    suite: Suite,
    clock: Clock,
    chance: Chance,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> AsyncIterator[serve.Server]:
    """The service of providers that are open already: tests give clouds of their own."""
    servicer = IaasServicer(
        providers, suite_id=suite.suite_id, clock=clock, chance=chance, limits=config.limits
    )
    try:
        async with serve.running(
            [mount(servicer)],
            config.listen,
            clock=clock,
            chance=chance,
            interceptors=interceptors,
        ) as server:
            yield server
    finally:
        await servicer.close()


def mount(servicer: IaasServicer) -> serve.Mount:
    """The servicer as a server takes it."""
    return serve.Mount(
        add=iaas_service_pb2_grpc.add_IaasServiceServicer_to_server,
        servicer=servicer,
        descriptor=iaas_service_pb2.DESCRIPTOR.services_by_name["IaasService"],
    )


@asynccontextmanager
async def _cloud(
    name: str, provider: ProviderConfig, *, suite: Suite, clock: Clock, chance: Chance
) -> AsyncIterator[Cloud]:
    driver: CloudDriver = drivers.load(GROUP, provider.driver)  # type: ignore[assignment]
    where = f"{SECTION}.providers.{name}.options"
    options = settings.parse(provider.options, driver.Options, where=where)
    async with driver(options, provider=name, suite=suite, clock=clock, chance=chance) as cloud:
        yield cloud
