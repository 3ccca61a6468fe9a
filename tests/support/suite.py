"""The whole suite in one process, over real gRPC: every replica's calls pass gates of its own.

The store and the cloud are shared by all replicas, as in life; the cloud is simulated, and tests
reach past it into its world. Verdicts of probes are given by the test, by address.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import iaas_service.server
import orchestrator.config
import orchestrator.server
import preset_service.config
import preset_service.server
from iaas_service.domain import VmId
from iaas_service.drivers.simulated import SimulatedCloud, SimulatedWorld
from iaas_service.gates import Limits
from iaas_service.providers import Provider
from iaas_service.servicer import IaasServicer
from orchestrator.server import Running
from runtime_service.drivers.memory import MemoryOptions, MemoryRuntime
from runtime_service.servicer import RuntimeServicer
from tests.support.gate import Gate
from vmshepherd.health.v1 import health_service_pb2 as health
from vmshepherd.health.v1 import health_service_pb2_grpc as health_grpc
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1 import record_pb2
from vmshepherd.orchestrator.v1 import view_pb2 as view
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.runtime.v1 import runtime_service_pb2 as runtime
from vmshepherd.runtime.v1 import runtime_service_pb2_grpc as runtime_grpc
from vmshepherd.runtime.v1.event_pb2 import Event
from vmshepherd_kit import dial, serve, settings
from vmshepherd_kit.clock import Clock, SeededChance, SystemChance, SystemClock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import NotFound, Unavailable

LOOPBACK = serve.Listen(address="127.0.0.1:0")
QUICK = {"driver": "fake", "fall": 1, "rise": 1, "min_failing_time": 0}
# No pause of the machine ends a session that lasts longer than any test waits.
SESSION = {
    "ttl": "5m",
    "refresh": "300ms",
    "rpc_timeout": "2s",
    "margin": "2s",
    "lock_delay": "500ms",
}
# As short as they may be, for tests that wait for the end of one.
SHORT_SESSION = {
    "ttl": "3s",
    "refresh": "300ms",
    "rpc_timeout": "500ms",
    "margin": "500ms",
    "lock_delay": "500ms",
}


class FakeProber(health_grpc.HealthServiceServicer):
    """Says of each address what the test wants."""

    def __init__(self) -> None:
        self.sick: set[str] = set()
        self.hanging: set[str] = set()
        self.is_blind = False
        self.breaks_off = False

    async def Probe(self, request: health.ProbeRequest, context: Any) -> AsyncIterator[Any]:
        if request.check.driver in self.hanging:
            await asyncio.Event().wait()
        results = [
            health.ProbeResult(
                target_id=target.target_id,
                verdict=health.VERDICT_UNHEALTHY
                if self.is_blind or self.sick & set(target.addresses)
                else health.VERDICT_HEALTHY,
                message="as the test says",
            )
            for target in request.targets
        ]
        yield health.ProbeResponse(results=health.ProbeResults(results=results))
        if not self.breaks_off:
            yield health.ProbeResponse(
                summary=health.ProbeSummary(
                    control_passed=not self.is_blind, control_message="the control is silent"
                )
            )

    async def ListChecks(
        self, request: health.ListChecksRequest, context: Any
    ) -> health.ListChecksResponse:
        return health.ListChecksResponse(checks=[health.CheckDescription(name="fake")])


@dataclass
class Replica:
    """One orchestrator, with the gates that its calls pass."""

    gates: Mapping[str, Gate]
    stub: OrchestratorServiceStub
    running: Running
    stack: AsyncExitStack

    @property
    def parts(self) -> Any:
        return self.running._parts

    async def ask(self, method: str, *, deadline: float | None = None, **fields: Any) -> Any:
        request = getattr(api, f"{method}Request")(**fields)
        limit = None if deadline is None else timedelta(seconds=deadline)
        return await dial.ask(getattr(self.stub, method), request, deadline=limit)

    async def look(self, *presets: str) -> dict[str, view.PresetView]:
        """The presets after a cycle that began now."""
        answer = await self.ask("ReconcilePreset", deadline=30, presets=presets, wait=True)
        assert all(result.status.code == 0 for result in answer.results), answer
        return {result.preset: result.view for result in answer.results}

    async def preset(self, name: str = "web") -> view.PresetView:
        answer = await self.ask("GetPreset", preset=name)
        assert isinstance(answer.preset, view.PresetView)
        return answer.preset

    async def codes(self, name: str = "web") -> set[str]:
        return {each.code for each in (await self.preset(name)).conditions}

    async def vms(self, name: str = "web") -> list[view.VmView]:
        return list((await self.ask("GetPreset", preset=name)).vms)

    async def becomes(self, name: str, is_so: Callable[[view.PresetView], bool]) -> view.PresetView:
        """The preset once it is so."""
        seen = view.PresetView()

        async def check() -> bool:
            nonlocal seen
            try:
                seen = await self.preset(name)
            except (NotFound, Unavailable):
                return False
            return is_so(seen)

        await until(check, lambda: f"last seen:\n{seen}")
        return seen

    async def settled(self, name: str = "web") -> view.PresetView:
        """The preset once it is as declared."""
        return await self.becomes(name, lambda seen: seen.phase == view.PRESET_PHASE_STEADY)

    async def stop(self) -> None:
        """As an operator stops it."""
        await self.stack.aclose()

    async def die(self) -> None:
        """Nothing of it is heard any more, not even a farewell."""
        for gate in self.gates.values():
            gate.cut()


@dataclass
class Place:
    """The services, and a way to start replicas."""

    folder: Path
    suite: Suite
    stack: AsyncExitStack
    store: MemoryRuntime
    clouds: dict[str, SimulatedCloud]
    iaas: IaasServicer
    clock: Clock
    prober: FakeProber = field(default_factory=FakeProber)
    replicas: int = 0

    @property
    def world(self) -> SimulatedWorld:
        return self.clouds["sim"].world

    def declare(self, name: str = "web", text: str | None = None, **keys: Any) -> None:
        lines = {"flavor": "small", "image": "any", **keys}
        body = "".join(f"{key}: {_yaml(value)}\n" for key, value in lines.items())
        temporary = self.folder / f"{name}.tmp"
        temporary.write_text(body if text is None else text)
        temporary.rename(self.folder / "presets" / f"{name}.yaml")

    def remove(self, name: str = "web") -> None:
        (self.folder / "presets" / f"{name}.yaml").unlink()

    async def record(self, name: str = "web") -> record_pb2.PresetRecord:
        """What is remembered of a preset."""
        [state] = await self.store.get_states([f"preset/{name}"])
        assert state is not None
        return record_pb2.PresetRecord.FromString(state.value)

    def write_record(self, record: record_pb2.PresetRecord, name: str = "web") -> None:
        """Have something else remembered of it."""
        states, key = self.store._states, f"preset/{name}"
        states[key] = replace(states[key], value=record.SerializeToString())

    def alive(self) -> int:
        return len(self.world.records)

    def grow_old(self, vm_id: str) -> None:
        """Let a VM have been made an hour ago."""
        record = self.world.records[VmId(vm_id)]
        born = record.vm.create_time - timedelta(hours=1)
        self.world.change(record, replace(record.vm, create_time=born))

    async def replica(
        self,
        *,
        is_deaf: bool = False,
        is_blind: bool = False,
        is_lonely: bool = False,
        **config: Any,
    ) -> Replica:
        """A replica that manages what is declared.

        A deaf one is not told of changes of VMs, a blind one of presets, a lonely one of replicas.
        """
        stack = AsyncExitStack()
        await self.stack.enter_async_context(stack)
        gates = {name: Gate() for name in ("preset", "runtime", "iaas", "health")}
        if is_deaf:
            gates["iaas"].hold("WatchVms")
        if is_blind:
            gates["preset"].hold("WatchPresets")
        if is_lonely:
            gates["runtime"].hold("ListSessions")
        mounts = {
            "runtime": RuntimeServicer(self.store, clock=self.clock, chance=SystemChance()),
            "iaas": self.iaas,
            "health": self.prober,
        }
        addresses = {"preset": await self._presets(stack, gates["preset"])}
        for name, servicer in mounts.items():
            served = serve.running(
                [_mount(name, servicer)], LOOPBACK, interceptors=[gates[name]], clock=self.clock
            )
            addresses[name] = (await stack.enter_async_context(served)).address
        services = {**addresses, "iaas": [addresses["iaas"]]}
        raw = {
            "listen": {"address": "127.0.0.1:0"},
            "services": services,
            "interval": "1h",
            "soon": "50ms",
            "session": SESSION,
            **config,
        }
        self.replicas += 1
        # Who looks after which preset follows from the name of the host: let it be always the same.
        with patch("socket.gethostname", return_value="host"):
            running = await stack.enter_async_context(
                orchestrator.server.running(
                    settings.parse(raw, orchestrator.config.Config),
                    suite=self.suite,
                    clock=self.clock,
                    chance=SeededChance(self.replicas),
                )
            )
        channel = await stack.enter_async_context(dial.channel(running.address))
        replica = Replica(gates, OrchestratorServiceStub(channel), running, stack)

        async def is_synced() -> bool:
            return is_blind or bool(replica.parts.cycles.presets.is_synced)

        await until(is_synced)
        return replica

    async def _presets(self, stack: AsyncExitStack, gate: Gate) -> str:
        source = {"name": "local", "driver": "directory", "options": {"path": "presets"}}
        raw = {"listen": {"address": "127.0.0.1:0"}, "sources": [source]}
        server = await stack.enter_async_context(
            preset_service.server.running(
                settings.parse(raw, preset_service.config.Config),
                suite=Suite(
                    suite_id="test",
                    state_dir=self.folder / f"state-{self.replicas}",
                    base_dir=self.folder,
                    embedded=True,
                ),
                clock=SystemClock(),
                chance=SystemChance(),
                interceptors=[gate],
            )
        )
        return server.address

    async def events(self, **filters: Any) -> list[Event]:
        """The journal, oldest first."""
        servicer = RuntimeServicer(self.store, clock=self.clock, chance=SystemChance())
        request = runtime.ListEventsRequest(ascending=True, page_size=1000)
        for key, value in filters.items():
            setattr(request.filter, key, value)
        answer = await servicer.ListEvents(request, None)
        return list(answer.events)


@asynccontextmanager
async def place(
    folder: Path, *, clouds: tuple[str, ...] = ("sim",), clock: Clock | None = None, **options: Any
) -> AsyncIterator[Place]:
    """A store, clouds and presets, and no replica yet."""
    clock = clock or SystemClock()
    (folder / "presets").mkdir()
    suite = Suite(suite_id="test", state_dir=folder, base_dir=folder, embedded=True)
    chance = SeededChance(7)
    made = {
        name: SimulatedCloud(
            settings.parse(options, SimulatedCloud.Options),
            provider=name,
            suite=suite,
            clock=clock,
            chance=chance,
        )
        for name in clouds
    }
    providers = [
        Provider.of(name, "simulated", cloud, suite_id="test", parallel_calls=100)
        for name, cloud in made.items()
    ]
    limits = Limits(terminations=10_000)
    iaas = IaasServicer(providers, suite_id="test", clock=clock, chance=chance, limits=limits)
    async with AsyncExitStack() as stack:
        for cloud in made.values():
            await stack.enter_async_context(cloud)
        stack.push_async_callback(iaas.close)
        store = MemoryRuntime(MemoryOptions(), clock)
        yield Place(folder, suite, stack, store, made, iaas, clock)


async def until(
    is_so: Callable[[], Awaitable[bool]], tell: Callable[[], str] = str, seconds: float = 60
) -> None:
    """Wait on a condition, not on a clock; the limit only ends what would never end."""
    try:
        async with asyncio.timeout(seconds):
            while not await is_so():  # noqa: ASYNC110  it is asked over the wire
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"it never became so; {tell()}") from None


def _mount(name: str, servicer: Any) -> serve.Mount:
    if name == "iaas":
        return iaas_service.server.mount(servicer)
    if name == "runtime":
        return serve.Mount(
            add=runtime_grpc.add_RuntimeServiceServicer_to_server,
            servicer=servicer,
            descriptor=runtime.DESCRIPTOR.services_by_name["RuntimeService"],
        )
    return serve.Mount(
        add=health_grpc.add_HealthServiceServicer_to_server,
        servicer=servicer,
        descriptor=health.DESCRIPTOR.services_by_name["HealthService"],
    )


def _yaml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_yaml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
