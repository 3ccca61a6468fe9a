"""Composition root of the orchestrator: settings → clients → cycles → schedule → admin API.

The only file that brings the parts together. At its end the API drains while other replicas take
the presets, running cycles may finish, and the session is closed, so that its locks are free at
once.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import grpc

from vmshepherd.orchestrator.v1.orchestrator_service_pb2 import DESCRIPTOR
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import (
    add_OrchestratorServiceServicer_to_server,
)
from vmshepherd_kit import dial, serve
from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import Refused

from . import alarms
from .archive import Archive
from .authority import Authority
from .beside import beside
from .board import Board
from .clients.health import Health
from .clients.iaas import ONCE, Iaas
from .clients.presets import Presets
from .clients.runtime import Runtime
from .config import Config
from .cycle import Cycles
from .desk import Desk
from .fitness import Fitness
from .hands import Hands
from .info import VERSION, Informant
from .journal import Journal
from .looks import Looks
from .overview import Overviews
from .removals import Removals
from .replicas import Replicas
from .schedule import GRACE, Schedule
from .servicer import OrchestratorServicer, Parts

# A runtime service that hangs, where there are several: what it is asked for is harmless to repeat.
PASSED_OVER = timedelta(seconds=1)


@asynccontextmanager
async def running(
    config: Config,
    *,
    suite: Suite,
    clock: Clock,
    chance: Chance,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> AsyncIterator[Running]:
    """Manage and serve within the block."""
    owner = f"{socket.gethostname()}/{chance.uuid()[:8]}"
    async with AsyncExitStack() as stack:
        channels = await _dialled(config, stack)
        parts = _assembled(config, channels, owner=owner, suite=suite, clock=clock, chance=chance)
        await stack.enter_async_context(parts.cycles.authority.kept())
        await stack.enter_async_context(_background(parts))
        server = await stack.enter_async_context(
            serve.running(
                [_mount(OrchestratorServicer(parts))],
                config.listen,
                clock=clock,
                chance=chance,
                interceptors=interceptors,
            )
        )
        running = Running(server, parts)
        try:
            yield running
        finally:
            await running.hand_over()


class Running(serve.Around):
    """A running orchestrator: its server, and the settings that it takes while it runs."""

    def __init__(self, server: serve.Server, parts: Parts) -> None:
        super().__init__(server)
        self._parts = parts
        self._handing: asyncio.Task[None] | None = None

    async def drain(self, grace: timedelta) -> None:
        """End the API politely; others take the presets meanwhile: callers may wait long."""
        await asyncio.gather(super().drain(grace), self.hand_over())

    async def hand_over(self) -> None:
        """Leave the presets to others, once."""
        if self._handing is None:
            self._handing = asyncio.create_task(_hand_over(self._parts))
        await asyncio.shield(self._handing)

    async def reload(self, config: Config) -> None:
        """Let new settings take force.  Refused as a whole when one of them needs a restart."""
        stuck = self._parts.cycles.config.needs_restart_for(config)
        if stuck:
            raise Refused(f"needs a restart: {', '.join(stuck)}", reason="NEEDS_RESTART")
        self._parts.cycles.config = config
        self._parts.cycles.hands = replace(
            self._parts.cycles.hands, longest=config.mutation_timeout
        )
        self._parts.informant.config_time = self._parts.clock.wall()
        self._parts.informant.config_error = ""
        self._parts.schedule.wake_all()

    def configuration_refused(self, why: str) -> None:
        """The newest configuration was refused; the former one stays in force."""
        self._parts.informant.config_error = why


@dataclass(frozen=True, slots=True, kw_only=True)
class _Channels:
    preset: grpc.aio.Channel
    runtime: grpc.aio.Channel
    iaas: tuple[grpc.aio.Channel, ...]
    health: grpc.aio.Channel


async def _dialled(config: Config, stack: AsyncExitStack) -> _Channels:
    where = config.services
    return _Channels(
        preset=await stack.enter_async_context(dial.channel(where.preset)),
        runtime=await stack.enter_async_context(
            dial.channel(where.runtime, passed_over=PASSED_OVER)
        ),
        iaas=tuple(
            [
                await stack.enter_async_context(dial.channel(address, once=ONCE))
                for address in where.iaas
            ]
        ),
        health=await stack.enter_async_context(dial.channel(where.health)),
    )


def _assembled(
    config: Config,
    channels: _Channels,
    *,
    owner: str,
    suite: Suite,
    clock: Clock,
    chance: Chance,
) -> Parts:
    runtime = Runtime(channels.runtime, clock=clock)
    presets = Presets(channels.preset, clock=clock)
    health = Health(channels.health, clock=clock)
    journal = Journal(runtime, actor=owner, clock=clock, chance=chance)
    board = Board()
    removals = Removals(presets=presets, runtime=runtime, clock=clock)
    replicas = Replicas(
        runtime,
        owner=owner,
        facts={"host": socket.gethostname(), "pid": str(os.getpid()), "version": VERSION},
        tally=board.tally,
        clock=clock,
    )

    def session_changed(is_open: bool) -> None:  # noqa: FBT001
        if not is_open:
            schedule.cancel_running()
            archive.forget_all()
        schedule.wake_all()

    authority = Authority(
        runtime,
        owner=owner,
        timing=config.session,
        labels=replicas.labels,
        clock=clock,
        changed=session_changed,
    )
    archive = Archive(runtime, authority, clock=clock)
    iaas = Iaas(channels.iaas, clock=clock, tokens=authority.tokens)
    services = {"preset": presets.sources, "iaas": iaas.discover, "health": health.checks}
    cycles = Cycles(
        config=config,
        presets=presets,
        authority=authority,
        archive=archive,
        desk=Desk(runtime, authority, clock=clock),
        health=health,
        hands=Hands(
            iaas=iaas,
            authority=authority,
            journal=journal,
            clock=clock,
            longest=config.mutation_timeout,
        ),
        board=board,
        removals=removals,
        replicas=replicas,
    )
    schedule = Schedule(cycles.run, clock=clock)
    overviews = Overviews(presets=presets, board=board, runtime=runtime, removals=removals)
    informant = Informant(
        owner=owner,
        suite_id=suite.suite_id,
        started=clock.wall(),
        services=config.services,
        presets=presets,
        removals=removals,
        board=board,
        overviews=overviews,
        runtime=runtime,
        iaas=iaas,
        health=health,
        config_time=clock.wall(),
    )
    return Parts(
        cycles=cycles,
        schedule=schedule,
        overviews=overviews,
        runtime=runtime,
        journal=journal,
        informant=informant,
        fitness=Fitness(services, clock=clock),
        looks=Looks(
            schedule=schedule,
            replicas=replicas,
            authority=authority,
            runtime=runtime,
            journal=journal,
            chance=chance,
        ),
        clock=clock,
    )


def _background(parts: Parts) -> AbstractAsyncContextManager[None]:
    """Everything that runs beside the API."""
    cycles, schedule, clock = parts.cycles, parts.schedule, parts.clock
    return beside(
        partial(cycles.presets.follow, schedule.wake),
        schedule.serve,
        partial(cycles.replicas.watch, schedule, parts.fitness),
        parts.fitness.watch,
        partial(cycles.removals.watch, schedule),
        partial(alarms.on_vms, cycles.hands.iaas, schedule, clock=clock),
        partial(alarms.on_wishes, parts.runtime, schedule, parts.looks, clock=clock),
        clock=clock,
    )


async def _hand_over(parts: Parts) -> None:
    """Let others take the presets, each when its cycle is over."""
    cycles = parts.cycles
    if not cycles.replicas.leave():
        return
    await cycles.authority.announce()
    held = sorted(cycles.authority.tokens())
    with suppress(TimeoutError):
        async with asyncio.timeout(GRACE.total_seconds()):
            await asyncio.gather(*map(parts.schedule.next_cycle, held))


def _mount(servicer: OrchestratorServicer) -> serve.Mount:
    return serve.Mount(
        add=add_OrchestratorServiceServicer_to_server,
        servicer=servicer,
        descriptor=DESCRIPTOR.services_by_name["OrchestratorService"],
    )
