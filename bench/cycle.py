"""How long the suite needs to bring N presets of M VMs up, and for one settled cycle of all.

Runs the real services over real gRPC on loopback in one process, with the `simulated` cloud whose
every call takes 100 ms, at most 200 of them at once, a dummy check and the SQLite store; prints one
JSON object with --json.

    python bench/cycle.py --presets 100 --vms 5 [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

import health_service.config
import health_service.server
import iaas_service.config
import iaas_service.server
import orchestrator.config
import orchestrator.server
import preset_service.config
import preset_service.server
import runtime_service.config
import runtime_service.server
from iaas_service.drivers.simulated import SimulatedCloud
from iaas_service.providers import Provider
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as pb
from vmshepherd.orchestrator.v1 import view_pb2
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd_kit import dial, log, serve, settings
from vmshepherd_kit.clock import SystemChance, SystemClock
from vmshepherd_kit.config_file import Suite

LATENCY_SECONDS = 0.1
# The simulated cloud takes any number; the default for real ones is 50.
PARALLEL_CALLS = 200
STEADY_CYCLES = 5
LOOPBACK = {"address": "127.0.0.1:0"}


class CountCalls(grpc.aio.ServerInterceptor):
    """Counts RPCs by method."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Count and pass on."""
        self.calls[handler_call_details.method.rpartition("/")[2]] += 1
        return await continuation(handler_call_details)


@dataclass(slots=True)
class Running:
    """The suite, and what is counted in it."""

    stub: OrchestratorServiceStub
    cloud: SimulatedCloud
    rpcs: CountCalls = field(default_factory=CountCalls)


@dataclass(frozen=True, slots=True)
class Counted:
    """Counters at one moment."""

    cloud_calls: int
    rpcs: int
    cpu_seconds: float


def write_presets(folder: Path, *, presets: int, vms: int) -> None:
    """N files of M VMs each."""
    text = f"count: {vms}\nflavor: small\nimage: any\nhealthcheck: {{driver: dummy}}\n"
    for number in range(presets):
        (folder / f"preset-{number:04}.yaml").write_text(text)


@asynccontextmanager
async def suite_of(folder: Path) -> AsyncIterator[Running]:
    """All five services, each a server of its own."""
    suite = Suite(suite_id="bench", state_dir=folder / "state", base_dir=folder, embedded=True)
    suite.state_dir.mkdir()
    clock, chance, rpcs = SystemClock(), SystemChance(), CountCalls()
    common: dict[str, Any] = {
        "suite": suite,
        "clock": clock,
        "chance": chance,
        "interceptors": (rpcs,),
    }
    source = {"name": "bench", "driver": "directory", "options": {"path": "presets"}}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        runtime = await enter(
            runtime_service.server.running(
                parsed(runtime_service.config.Config, {"listen": LOOPBACK}), **common
            )
        )
        preset = await enter(
            preset_service.server.running(
                parsed(preset_service.config.Config, {"listen": LOOPBACK, "sources": [source]}),
                **common,
            )
        )
        health = await enter(
            health_service.server.running(
                parsed(health_service.config.Config, {"listen": LOOPBACK}), **common
            )
        )
        options = settings.parse({"latency": LATENCY_SECONDS}, SimulatedCloud.Options)
        cloud = await enter(
            SimulatedCloud(options, provider="bench", suite=suite, clock=clock, chance=chance)
        )
        provider = Provider.of(
            "bench", "simulated", cloud, suite_id="bench", parallel_calls=PARALLEL_CALLS
        )
        iaas = await enter(
            iaas_service.server.serving(
                [provider], parsed(iaas_service.config.Config, {"listen": LOOPBACK}), **common
            )
        )
        services = {
            "preset": preset.address,
            "runtime": runtime.address,
            "iaas": [iaas.address],
            "health": health.address,
        }
        front = await enter(
            orchestrator.server.running(
                parsed(
                    orchestrator.config.Config,
                    # Cycles of the measurement are asked for; none comes by itself in between.
                    {"listen": LOOPBACK, "services": services, "interval": "1h"},
                ),
                **common,
            )
        )
        channel = await enter(dial.channel(front.address))
        yield Running(OrchestratorServiceStub(channel), cloud, rpcs)


def parsed(model: type[settings.SettingsModel], raw: dict[str, Any]) -> settings.SettingsModel:
    """Settings of one service."""
    return settings.parse(raw, model)


async def converge(running: Running, *, presets: int, vms: int) -> None:
    """Return when every preset has all of its VMs running and is settled."""
    while True:
        request = pb.ListPresetsRequest(page_size=1000)
        views = (await dial.ask(running.stub.ListPresets, request)).presets
        settled = sum(
            view.phase == view_pb2.PRESET_PHASE_STEADY and view.vms_by_status["RUNNING"] == vms
            for view in views
        )
        if settled == presets:
            return
        # Looking is work for the same process: seldom enough not to be what is measured.
        await asyncio.sleep(max(0.05, presets / 2000))


async def cycle_all(running: Running) -> None:
    """One cycle of every preset."""
    request = pb.ReconcilePresetRequest(wait=True)
    await dial.ask(running.stub.ReconcilePreset, request, deadline=settings.duration("5m"))


def counted(running: Running) -> Counted:
    """What was counted so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Counted(
        cloud_calls=sum(running.cloud.calls.values()),
        rpcs=sum(running.rpcs.calls.values()),
        cpu_seconds=used.ru_utime + used.ru_stime,
    )


async def measure(*, presets: int, vms: int) -> dict[str, float]:
    """The whole measurement."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "presets").mkdir()
        write_presets(folder / "presets", presets=presets, vms=vms)
        started = time.monotonic()
        async with suite_of(folder) as running:
            await converge(running, presets=presets, vms=vms)
            cold = time.monotonic() - started
            before, times = counted(running), list[float]()
            for _ in range(STEADY_CYCLES):
                began = time.monotonic()
                await cycle_all(running)
                times.append(time.monotonic() - began)
            after = counted(running)
    return {
        "presets": presets,
        "vms": vms,
        "cold_seconds": round(cold, 3),
        "steady_seconds": round(statistics.median(times), 3),
        "cpu_seconds_per_cycle": round((after.cpu_seconds - before.cpu_seconds) / STEADY_CYCLES, 3),
        "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "cloud_calls_per_cycle": (after.cloud_calls - before.cloud_calls) / STEADY_CYCLES,
        # The call that asks for the cycle is not part of it.
        "rpcs_per_cycle": (after.rpcs - before.rpcs) / STEADY_CYCLES - 1,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--presets", type=int, default=100)
    parser.add_argument("--vms", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object, nothing else")
    asked = parser.parse_args()
    log.setup("warning")
    found = serve.run(measure(presets=asked.presets, vms=asked.vms))
    if asked.json:
        json.dump(found, sys.stdout)
        print()
        return
    for name, value in found.items():
        print(f"{name:24} {value:g}")


if __name__ == "__main__":
    main()
