"""The processes of the suite: real servicers and real cycles, each on a host of its own.

A process can be started, killed without a farewell, stopped politely and paused; its next life is
another host under the same name. What survives a life (stores, files, the cloud) is given from
outside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orchestrator.server as orchestrator_server
from health_service.addresses import Rules
from health_service.lag import Lag
from health_service.prober import Limits as ProberLimits
from health_service.prober import Prober
from health_service.servicer import HealthServicer
from iaas_service.gates import Limits
from iaas_service.providers import Provider
from iaas_service.servicer import IaasServicer
from orchestrator.clients.iaas import ONCE
from orchestrator.config import Config
from orchestrator.servicer import OrchestratorServicer, Parts
from preset_service import library
from preset_service.last_good import LastGood
from preset_service.library import Supplier
from preset_service.schema import Defaults
from preset_service.servicer import PresetServicer
from runtime_service.port import RuntimeStore
from runtime_service.servicer import RuntimeServicer
from vmshepherd.health.v1.health_service_pb2_grpc import add_HealthServiceServicer_to_server
from vmshepherd.iaas.v1.iaas_service_pb2_grpc import add_IaasServiceServicer_to_server
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import (
    add_OrchestratorServiceServicer_to_server,
)
from vmshepherd.preset.v1.preset_service_pb2_grpc import add_PresetServiceServicer_to_server
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import add_RuntimeServiceServicer_to_server
from vmshepherd_kit.admission import Admission
from vmshepherd_kit.admission import Limits as AdmissionLimits
from vmshepherd_kit.clock import SeededChance
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.deadlines import DeadlineInterceptor
from vmshepherd_kit.status import ErrorsInterceptor

from .clocks import UPTIME, HostClock
from .cloud import SimCloud, Truth
from .guests import Sight, SimCheck, SimControl
from .ledger import Ledger, Witnessed
from .loop import Host, Kernel
from .network import Channel, Network, Server
from .source import Repository, SimSource

SUITE_ID = "suite"
PROVIDER = "sim"
# How long the calls under way may take when a server is stopped.
GRACE = 5.0
# And a whole process, before it is killed.
TERM_GRACE = 20.0
LOOK_EVERY = timedelta(seconds=30)
LOOK_SOON = timedelta(seconds=5)


@dataclass
class Life:
    """One incarnation of a process, as its body is given it."""

    host: Host
    clock: HostClock
    chance: SeededChance
    number: int
    asked_to_stop: asyncio.Event = field(default_factory=asyncio.Event)
    is_serving: bool = False


@dataclass(frozen=True)
class Serves:
    """What a body serves once it is ready: the generated function, and the servicer."""

    add: Callable[[Any, Any], None]
    servicer: object
    farewell: Callable[[], Awaitable[None]] | None = None
    """What is done while the calls under way end."""


Body = Callable[[Life], AbstractAsyncContextManager[Serves]]


class Process:
    """One named process, in its present life or between two."""

    def __init__(
        self,
        name: str,
        body: Body,
        *,
        kernel: Kernel,
        network: Network,
        seed: int,
        skew: float = 0.0,
        rate: float = 1.0,
        left_behind: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.skew = skew
        self.life: Life | None = None
        self._body = body
        self._kernel = kernel
        self._network = network
        self._seed = seed
        self._rate = rate
        self.starved_until = -1e9
        self._lives = 0
        self._left_behind = left_behind
        self._main: asyncio.Task[None] | None = None

    @property
    def is_paused(self) -> bool:
        """Whether it stands still."""
        return self.life is not None and self.life.host.is_paused

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to end."""
        return self.life is not None and self.life.asked_to_stop.is_set()

    @property
    def is_up(self) -> bool:
        """Whether it lives, paused or not."""
        return self.life is not None

    def start(self) -> None:
        """Begin a new life."""
        if self.life:
            return
        self._lives += 1
        host = Host(self._kernel, self.name, rate=self._rate, booted=-UPTIME)
        self.life = Life(
            host=host,
            clock=HostClock(host, skew=self.skew),
            chance=SeededChance(self._seed * 1000 + self._lives),
            number=self._lives,
        )
        host.call_soon(self._launch, self.life)

    def kill(self) -> None:
        """End at once."""
        life, self.life = self.life, None
        if life is None:
            return
        life.host.kill()
        self._main = None
        self._gone(life)
        self._left_behind()

    def stop(self) -> None:
        """End politely, as by SIGTERM; cut short when that takes too long."""
        life = self.life
        if life and life.is_serving and not life.host.is_paused:
            life.host.call_soon(life.asked_to_stop.set)
            self._kernel.call_later(TERM_GRACE, lambda: self._cut_short(life))
        else:
            self.kill()

    def pause(self) -> None:
        """Stand still."""
        if self.life:
            self.life.host.pause()

    def resume(self) -> None:
        """Go on."""
        if self.life:
            self.life.host.resume()

    def channel(self, life: Life, address: str, *, once: Sequence[tuple[str, str]] = ()) -> Any:
        """A way to another process."""
        return Channel(self._network, life.host, address, once=once)

    def _launch(self, life: Life) -> None:
        self._main = life.host.create_task(self._run(life))
        self._main.add_done_callback(lambda task: self._ended(life, task))

    async def _run(self, life: Life) -> None:
        async with self._body(life) as serves:
            admission = Admission(AdmissionLimits())
            interceptors = [ErrorsInterceptor(life.chance), DeadlineInterceptor(), admission]
            server = Server(self._network, life.host, interceptors)
            serves.add(serves.servicer, server)
            await server.wrap()
            self._network.servers[self.name] = server
            life.is_serving = True
            await life.asked_to_stop.wait()
            farewell = [serves.farewell()] if serves.farewell else []
            await asyncio.gather(self._drain(server, admission), *farewell)

    async def _drain(self, server: Server, admission: Admission) -> None:
        """End as a real server does: no more calls, those under way may end for a while."""
        admission.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(admission.settled(), GRACE)
        self._hang_up(server)
        await server.cancel_all()

    def _ended(self, life: Life, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (bug := task.exception()):
            self._kernel.errors.append(f"{self.name} ended by itself: {bug!r}")
        if self.life is life:
            self.kill()

    def _cut_short(self, life: Life) -> None:
        if self.life is life:
            self.kill()

    def _gone(self, life: Life) -> None:
        server = self._network.servers.get(self.name)
        if server and server.host is life.host:
            self._hang_up(server)

    def _hang_up(self, server: Server) -> None:
        if self._network.servers.get(self.name) is server:
            del self._network.servers[self.name]
        for stream in server.streams:
            self._kernel.call_later(self._network.latency(), stream.broken)


def iaas(truth: Truth, limits: Limits) -> Body:
    """iaas_service over the cloud of the simulation."""

    @asynccontextmanager
    async def body(life: Life) -> AsyncIterator[Serves]:
        cloud = SimCloud(truth)
        provider = Provider.of(PROVIDER, "sim", cloud, suite_id=SUITE_ID)
        servicer = IaasServicer(
            [provider], suite_id=SUITE_ID, clock=life.clock, chance=life.chance, limits=limits
        )
        try:
            yield Serves(add_IaasServiceServicer_to_server, servicer)
        finally:
            await servicer.close()

    return body


def health(truth: Truth, sight: Sight, *, proves_network: bool) -> Body:
    """health_service with the one check of the simulation."""

    @asynccontextmanager
    async def body(life: Life) -> AsyncIterator[Serves]:
        prober = Prober(
            {"sim": SimCheck(truth, sight, life.clock)},
            control=SimControl(sight, proves_network=proves_network),
            rules=Rules(),
            limits=ProberLimits(requests=64, suspect_silence=3),
            lag=Lag(life.clock),
            prober_id=life.chance.uuid(),
        )
        yield Serves(add_HealthServiceServicer_to_server, HealthServicer(prober))

    return body


def presets(repository: Repository, folder: Path) -> Body:
    """preset_service over the repository of the simulation."""

    @asynccontextmanager
    async def body(life: Life) -> AsyncIterator[Serves]:
        last_good = LastGood(folder / "last_good.json")
        async with library.running(last_good, life=life.chance.uuid(), clock=life.clock) as shelves:
            supplier = Supplier(name="repo", driver="sim", source=SimSource(repository))
            await shelves.stock([supplier], Defaults())
            yield Serves(add_PresetServiceServicer_to_server, PresetServicer(shelves))

    return body


def runtime(open_store: Callable[[HostClock], Any], ledger: Ledger) -> Body:
    """runtime_service over a store that outlives it."""

    @asynccontextmanager
    async def body(life: Life) -> AsyncIterator[Serves]:
        store: RuntimeStore = await open_store(life.clock)
        witnessed: Any = Witnessed(store, ledger)
        servicer = RuntimeServicer(witnessed, clock=life.clock, chance=life.chance)
        yield Serves(add_RuntimeServiceServicer_to_server, servicer)

    return body


class Replica(Process):
    """An orchestrator, and the parts of its present life for those who check it."""

    def __init__(self, name: str, *, runtime_address: str, folder: Path, **rest: Any) -> None:
        super().__init__(name, self._manage, **rest)
        self.parts: Parts | None = None
        self.runtime_address = runtime_address
        self._folder = folder

    def kill(self) -> None:
        """See `Process`."""
        super().kill()
        self.parts = None

    @asynccontextmanager
    async def _manage(self, life: Life) -> AsyncIterator[Serves]:
        channels = orchestrator_server._Channels(
            preset=self.channel(life, "preset"),
            runtime=self.channel(life, self.runtime_address),
            iaas=(self.channel(life, "iaas", once=ONCE),),
            health=self.channel(life, "health"),
        )
        config = Config(interval=LOOK_EVERY, soon=LOOK_SOON)
        suite = Suite(
            suite_id=SUITE_ID, state_dir=self._folder, base_dir=self._folder, embedded=False
        )
        parts = orchestrator_server._assembled(
            config,
            channels,
            owner=f"{self.name}/{life.number}",
            suite=suite,
            clock=life.clock,
            chance=life.chance,
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(parts.cycles.authority.kept())
            await stack.enter_async_context(orchestrator_server._background(parts))
            self.parts = parts
            yield Serves(
                add_OrchestratorServiceServicer_to_server,
                OrchestratorServicer(parts),
                farewell=partial(orchestrator_server._hand_over, parts),
            )
