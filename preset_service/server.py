"""Composition root of preset_service: settings → sources → shelf → servicer → server.

The only file that brings the parts together.  Whoever starts the service, alone or with the whole
suite in one process, enters `running`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, cast

import grpc

from preset_service import reading
from preset_service.book import Source
from preset_service.config import SECTION, Config, SourceConfig
from preset_service.last_good import LastGood
from preset_service.port import GROUP, Place, PresetSource
from preset_service.servicer import PresetServicer
from preset_service.shelf import Shelf
from preset_service.sync import Sync
from preset_service.workshop import Workshop
from vmshepherd.preset.v1.preset_service_pb2 import DESCRIPTOR
from vmshepherd.preset.v1.preset_service_pb2_grpc import add_PresetServiceServicer_to_server
from vmshepherd_kit import drivers, log, serve
from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.config_file import Suite

# A source that answers slowly must not keep the others' presets back.
_FIRST_READING: Final = timedelta(seconds=10)
_GRACE: Final = timedelta(seconds=5)

_log = log.get("preset")


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
    reading.check_defaults(config.defaults, where=f"{SECTION}.defaults")
    state_dir = suite.state_dir / SECTION
    last_good = LastGood(state_dir / "last_good.json")
    async with AsyncExitStack() as stack:
        sources = await _opened(
            config, stack, base_dir=suite.base_dir, state_dir=state_dir, clock=clock
        )
        shelf = Shelf(
            [
                Source(name=each.name, driver=each.driver, location=source.location)
                for each, source in zip(config.sources, sources, strict=True)
            ],
            last_good=await asyncio.to_thread(last_good.load),
            life=chance.uuid(),
            clock=clock,
        )
        syncs = [
            Sync(
                each.name,
                source,
                workshop=Workshop(source, defaults=config.defaults, clock=clock),
                shelf=shelf,
            )
            for each, source in zip(config.sources, sources, strict=True)
        ]
        await stack.enter_async_context(_in_step(shelf, syncs, last_good))
        await _read_first(syncs)
        servicer = PresetServicer(shelf, {sync.name: sync for sync in syncs})
        mount = serve.Mount(
            add=add_PresetServiceServicer_to_server,
            servicer=servicer,
            descriptor=DESCRIPTOR.services_by_name["PresetService"],
        )
        server = await stack.enter_async_context(
            serve.running(
                [mount], config.listen, clock=clock, chance=chance, interceptors=interceptors
            )
        )
        yield server
        await server.drain(_GRACE)


async def _opened(
    config: Config, stack: AsyncExitStack, *, base_dir: Path, state_dir: Path, clock: Clock
) -> list[PresetSource]:
    return [
        await stack.enter_async_context(
            _driver(each).open(
                each.options,
                place=Place(
                    name=each.name,
                    where=f"{SECTION}.sources.{index}.options",
                    base_dir=base_dir,
                    state_dir=state_dir / each.name,
                    clock=clock,
                ),
            )
        )
        for index, each in enumerate(config.sources)
    ]


def _driver(source: SourceConfig) -> type[PresetSource]:
    return cast("type[PresetSource]", drivers.load(GROUP, source.driver))


@asynccontextmanager
async def _in_step(shelf: Shelf, syncs: Iterable[Sync], last_good: LastGood) -> AsyncIterator[None]:
    """Follow all sources and save what changes; a fault of ours ends the service, not its truth."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(sync.follow(), name=f"follow {sync.name}") for sync in syncs]
        tasks.append(group.create_task(shelf.keep(last_good), name="keep last good presets"))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _read_first(syncs: Sequence[Sync]) -> None:
    attempts = [asyncio.ensure_future(sync.attempt()) for sync in syncs]
    if not attempts:
        return
    _, late = await asyncio.wait(attempts, timeout=_FIRST_READING.total_seconds())
    for attempt in late:
        attempt.cancel()
    if late:
        _log.warning("sources have not answered yet", sources=len(late))
