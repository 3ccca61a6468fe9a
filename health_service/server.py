"""Composition of the health service: config → checks → prober → servicer → server.

The only file that knows which classes stand behind the ports.
"""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final

import grpc

from health_service.addresses import Rules
from health_service.config import Config
from health_service.control import OwnControl, Place, listening
from health_service.drivers.tcp import TcpCheck
from health_service.lag import Lag
from health_service.pace import Pace
from health_service.port import GROUP, Check, Tools
from health_service.prober import Limits, Prober
from health_service.servicer import HealthServicer
from vmshepherd.health.v1 import health_service_pb2 as pb2
from vmshepherd.health.v1 import health_service_pb2_grpc as pb2_grpc
from vmshepherd_kit import drivers, log, serve
from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import Refused

# Open files that are not probes: libraries, gRPC's connections, other services of the process.
_OTHER_FILES: Final = 256
_GRACE: Final = timedelta(seconds=5)

_log = log.get("health")


@asynccontextmanager
async def running(
    config: Config,
    *,
    suite: Suite,
    clock: Clock,
    chance: Chance,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> AsyncIterator[serve.Server]:
    """A prober that serves within the block, and drains when it is left."""
    async with AsyncExitStack() as stack:
        prober = await stack.enter_async_context(probing(config, suite, clock, chance))
        mount = serve.Mount(
            add=pb2_grpc.add_HealthServiceServicer_to_server,
            servicer=HealthServicer(prober),
            descriptor=pb2.DESCRIPTOR.services_by_name["HealthService"],
        )
        server = await stack.enter_async_context(
            serve.running(
                [mount], config.listen, clock=clock, chance=chance, interceptors=interceptors
            )
        )
        yield server
        await server.drain(_GRACE)


@asynccontextmanager
async def probing(
    config: Config, suite: Suite, clock: Clock, chance: Chance
) -> AsyncIterator[Prober]:
    """The prober behind the server, with its checks and its control."""
    lag = Lag(clock)
    concurrency = _affordable(config.concurrency)
    pace = Pace(clock, concurrency=concurrency, starts_per_second=config.starts_per_second)
    # Every request runs its control once at a time, at most.
    own_pace = Pace(clock, concurrency=32 * config.requests, starts_per_second=1_000_000)
    tools = Tools(clock=clock, pace=pace, lag=lag, files=suite.base_dir)
    own_tools = Tools(clock=clock, pace=own_pace, lag=lag, files=suite.base_dir)
    async with _checks(tools) as checks, _checks(own_tools) as own, listening() as port:
        places = [Place(str(target.address), target.port) for target in config.control]
        yield Prober(
            checks,
            control=OwnControl(port, own, tcp=TcpCheck(own_tools), places=places),
            rules=Rules(allowed=tuple(config.allowed_networks)),
            limits=Limits(requests=config.requests, suspect_silence=config.suspect_silence),
            lag=lag,
            prober_id=chance.uuid(),
        )


@asynccontextmanager
async def _checks(tools: Tools) -> AsyncIterator[dict[str, Check]]:
    """All installed checks by name; one that cannot be loaded harms nobody but its users."""
    async with AsyncExitStack() as stack:
        checks: dict[str, Check] = {}
        for name in drivers.installed(GROUP):
            try:
                check: Check = drivers.load(GROUP, name)(tools)
            except Refused as e:
                _log.warning("check not loaded", check=name, why=e.message)
                continue
            stack.push_async_callback(check.close)
            checks[name] = check
        yield checks


def _affordable(wanted: int) -> int:
    """So many connections at once as the limit of open files leaves room for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft - _OTHER_FILES >= wanted:
        return wanted
    affordable = max(1, soft - _OTHER_FILES)
    _log.warning("concurrency lowered to the limit of open files", limit=soft, now=affordable)
    return affordable
