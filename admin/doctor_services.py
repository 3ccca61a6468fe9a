"""The services of a suite, for `vmshepherd doctor`: which of them run, and those that do not.

A service that is missed in a suite that runs is wrong.  Where none runs yet, those that the checks
need are started in this process for the time of the checks, on ports that nobody else knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from importlib.metadata import version
from typing import Final

from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from admin import services
from admin.doctor_report import Finding, Status
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as orchestrator_api
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.runtime.v1 import runtime_service_pb2 as runtime_api
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from vmshepherd_kit import dial, entry, settings
from vmshepherd_kit.clock import SystemChance, SystemClock
from vmshepherd_kit.config_file import Configuration
from vmshepherd_kit.errors import OutcomeUnknown, ShepherdError, Unavailable
from vmshepherd_kit.serve import Listen

NEEDED: Final = ("runtime", "preset", "iaas")
"""What the checks need; the others are only asked whether they run."""

_PATIENCE: Final = timedelta(seconds=2)
_ALL_ADDRESSES: Final = ("0.0.0.0:", "[::]:")


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A service at one address."""

    name: str
    address: str


Asked = Sequence[tuple[Backend, Finding]]
Addresses = Mapping[str, Sequence[str]]


async def ask_all(configuration: Configuration, orchestrator: str | None) -> Asked:
    """Ask the five whether they serve; the orchestrator may be named apart from the file."""
    known = _backends(configuration, orchestrator)
    return list(zip(known, await asyncio.gather(*map(_ask, known)), strict=True))


def judged(asked: Asked, configuration: Configuration) -> Sequence[Finding]:
    """What is to be told of those that do not answer: that depends on whether others do."""
    if all(finding.status is Status.UNCHECKED for _, finding in asked):
        message = "none of the suite runs yet; what it needs is checked in this process"
        return [
            Finding(subject="suite", check="services", status=Status.UNCHECKED, message=message)
        ]
    return [
        replace(finding, status=Status.WRONG, way_out=_start(backend, configuration))
        if finding.status is Status.UNCHECKED
        else finding
        for backend, finding in asked
    ]


async def stand_in(
    stack: AsyncExitStack, configuration: Configuration, asked: Asked
) -> tuple[Addresses, Sequence[Finding]]:
    """Where the needed services are, those that nobody runs started for the life of `stack`; and
    what keeps them from starting.
    """
    serving = [backend for backend, finding in asked if finding.status is Status.OK]
    addresses = {
        name: [each.address for each in serving if each.name == name]
        for name in ("orchestrator", *NEEDED)
    }
    found = []
    for name in NEEDED:
        if addresses[name]:
            continue
        try:
            addresses[name] = [await stack.enter_async_context(_started(name, configuration))]
        except ShepherdError as e:
            found.append(_unfit(name, e))
        except ExceptionGroup as group:
            found.append(_unfit(name, entry.named(group)))
    return addresses, found


def are_all_known(name: str, asked: Asked) -> bool:
    """Whether every address of a service answers, or none does and this process stands in."""
    states = {finding.status is Status.OK for backend, finding in asked if backend.name == name}
    return len(states) == 1


async def check_suite(configuration: Configuration, addresses: Addresses) -> Sequence[Finding]:
    """The store, and whether all that runs is of one version and one suite."""
    found = [await _store(address) for address in addresses["runtime"]]
    for address in addresses["orchestrator"]:
        found += await _orchestrator(address, configuration)
    return found


def _backends(configuration: Configuration, orchestrator: str | None) -> Sequence[Backend]:
    section = configuration.parse("orchestrator", services.settings_of("orchestrator")).model_dump()
    called = section["services"]
    own = orchestrator or section["listen"]["address"]
    return [
        Backend(name="runtime", address=called["runtime"]),
        Backend(name="preset", address=called["preset"]),
        *(Backend(name="iaas", address=address) for address in called["iaas"]),
        Backend(name="health", address=called["health"]),
        Backend(name="orchestrator", address=_dialled(own)),
    ]


async def _ask(backend: Backend) -> Finding:
    at = backend.address
    try:
        async with dial.channel(at) as channel:
            # Its types lack the methods.
            check = HealthStub(channel).Check  # type: ignore[attr-defined]
            answer = await dial.ask(check, HealthCheckRequest(), deadline=_PATIENCE)
    except (Unavailable, OutcomeUnknown):
        return _of(backend.name, Status.UNCHECKED, f"nobody answers at {at}")
    except ShepherdError as e:
        message = f"another program than VmShepherd answers at {at}: {e.message}"
        return _of(backend.name, Status.WRONG, message, f"look at {backend.name}.listen.address")
    if answer.status != HealthCheckResponse.SERVING:
        return _of(backend.name, Status.WRONG, f"runs at {at}, and does not serve", "see its log")
    return _of(backend.name, Status.OK, f"serves at {at}")


@asynccontextmanager
async def _started(name: str, configuration: Configuration) -> AsyncIterator[str]:
    parsed = configuration.parse(name, services.settings_of(name))
    config = parsed.model_copy(update={"listen": Listen(address="127.0.0.1:0")})
    running = services.running_of(name)
    suite, clock, chance = configuration.suite, SystemClock(), SystemChance()
    try:
        async with running(config, suite=suite, clock=clock, chance=chance) as server:
            yield server.address
    except settings.Invalid as e:
        raise configuration.refusal(e) from e


async def _store(address: str) -> Finding:
    try:
        async with dial.channel(address) as channel:
            request = runtime_api.ListLocksRequest(page_size=1)
            await dial.ask(RuntimeServiceStub(channel).ListLocks, request)
    except ShepherdError as e:
        return _of(
            "runtime", Status.WRONG, f"the store does not answer: {e.message}", check="store"
        )
    return _of("runtime", Status.OK, "the store answers", check="store")


async def _orchestrator(address: str, configuration: Configuration) -> Sequence[Finding]:
    try:
        async with dial.channel(address) as channel:
            request = orchestrator_api.GetInfoRequest()
            told = await dial.ask(OrchestratorServiceStub(channel).GetInfo, request)
    except ShepherdError as e:
        return [_of("orchestrator", Status.WRONG, e.message, check="info")]
    return [_versions(told), same_suite("orchestrator", told.suite_id, configuration)]


def same_suite(subject: str, suite_id: str, configuration: Configuration) -> Finding:
    """Whether a service that runs is of the suite of the file."""
    wanted = configuration.suite.suite_id
    if suite_id == wanted:
        return _of(subject, Status.OK, f"suite {suite_id!r}", check="suite")
    return _of(
        subject,
        Status.WRONG,
        f"it is of suite {suite_id!r}, and the file of {wanted!r}",
        "name its file by -c, or another address",
        check="suite",
    )


def _versions(told: orchestrator_api.GetInfoResponse) -> Finding:
    replicas = {replica.labels["version"] for replica in told.replicas} - {""}
    known = sorted({told.version, version("vmshepherd"), *replicas} - {""})
    if len(known) == 1:
        return _of("orchestrator", Status.OK, f"all are of version {known[0]}", check="versions")
    return _of(
        "orchestrator",
        Status.WRONG,
        f"versions {', '.join(known)} run side by side, this command among them",
        "bring those that lag behind up to date",
        check="versions",
    )


def _unfit(name: str, error: ShepherdError) -> Finding:
    message = f"it would not start: {error.message}"
    return _of(name, Status.WRONG, message, f"correct the section {name!r} of the file")


def _start(backend: Backend, configuration: Configuration) -> str:
    file = f" -c {configuration.path}" if configuration.path else ""
    return f"start it: vmshepherd serve {backend.name}{file}"


def _dialled(address: str) -> str:
    """Where a server that listens on all addresses is dialled."""
    for wildcard in _ALL_ADDRESSES:
        if address.startswith(wildcard):
            return f"127.0.0.1:{address.removeprefix(wildcard)}"
    return address


def _of(
    name: str, status: Status, message: str, way_out: str = "", *, check: str = "service"
) -> Finding:
    return Finding(subject=name, check=check, status=status, message=message, way_out=way_out)
