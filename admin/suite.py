"""`vmshepherd up`: the whole suite in one process, over the same gRPC contracts as a fleet's.

It starts the four services and then the orchestrator, shows what they do, and ends them in reverse
order.  It knows each service by `running` alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

from admin import live, removal, services
from admin.options import Exit
from admin.printing import console
from vmshepherd_kit import config_file, entry, reload, serve, settings
from vmshepherd_kit.clock import SystemChance, SystemClock
from vmshepherd_kit.config_file import Configuration, Log
from vmshepherd_kit.errors import ShepherdError
from vmshepherd_kit.serve import CannotListen, Served

BEHIND: Final = ("runtime", "preset", "iaas", "health")
FRONT: Final = "orchestrator"
# The driver whose VMs end with its process.
SIMULATED: Final = "simulated"

Signals = asyncio.Queue[signal.Signals]


class PortTaken(CannotListen):
    """A service of the suite cannot listen where it should."""


def run(path: Path | None, *, is_ephemeral: bool) -> int:
    """Run the suite until it is told to stop; the exit code."""
    try:
        if path is None:
            configuration = config_file.defaults(embedded=True)
        else:
            configuration = config_file.read(path, embedded=True)
        serve.run(up(configuration, is_ephemeral=is_ephemeral))
    except ShepherdError as e:
        return entry.complain(e)
    except ExceptionGroup as group:
        return entry.complain(entry.named(group))
    return Exit.OK


async def up(configuration: Configuration, *, is_ephemeral: bool) -> None:
    """The suite from its start to its end."""
    set_log(configuration.log)
    with serve.stop_signals() as signals:
        async with behind(configuration) as servers:
            async with in_front(configuration, servers) as orchestrator:
                _tell_beginning(configuration, orchestrator.address)
                with live.screen_for(console(), SystemClock()) as screen:
                    # The log goes where the screen lets it through.
                    set_log(configuration.log)
                    await _until_signal(
                        signals,
                        live.watch(orchestrator.address, screen, SystemClock()),
                        _follow(configuration, servers, orchestrator),
                    )
                set_log(configuration.log)
                impatience = asyncio.create_task(_leave_at_second(signals))
                _tell("The suite ends; once more ends it at once.")
            if is_ephemeral:
                await _remove_all(servers)
        impatience.cancel()
    if not is_ephemeral:
        _tell_end(configuration)


@asynccontextmanager
async def behind(configuration: Configuration) -> AsyncIterator[dict[str, Served]]:
    """The services that the orchestrator calls, by their names; they end in reverse order."""
    async with AsyncExitStack() as stack:
        servers = {}
        for name in BEHIND:
            servers[name] = await stack.enter_async_context(_service(name, configuration))
        yield servers


@asynccontextmanager
async def in_front(
    configuration: Configuration, servers: Mapping[str, Served]
) -> AsyncIterator[Served]:
    """The orchestrator, calling these services whatever the file says."""
    async with _service(FRONT, pointed(configuration, servers)) as server:
        yield server


def pointed(configuration: Configuration, servers: Mapping[str, Served]) -> Configuration:
    """The configuration with the orchestrator calling these services."""
    addresses = {name: server.address for name, server in servers.items()}
    called = {**addresses, "iaas": [addresses["iaas"]]}
    front = {**configuration.section(FRONT), "services": called}
    return dataclasses.replace(configuration, sections={**configuration.sections, FRONT: front})


@asynccontextmanager
async def _service(name: str, configuration: Configuration) -> AsyncIterator[Served]:
    parsed = configuration.parse(name, services.settings_of(name))
    running = services.running_of(name)
    async with AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(
                running(
                    parsed, suite=configuration.suite, clock=SystemClock(), chance=SystemChance()
                )
            )
        except settings.Invalid as e:
            raise configuration.refusal(e) from e
        except CannotListen as e:
            raise PortTaken(
                f"{name}: {e.message} ({name}.listen.address); is another suite running?"
            ) from e
        stack.push_async_callback(server.drain, entry.GRACE)
        yield server


async def _until_signal(signals: Signals, *meanwhile: Coroutine[Any, Any, None]) -> None:
    """Do these things until somebody wants the end, or until one of them fails."""
    wanted = asyncio.create_task(signals.get())
    doing = [asyncio.create_task(each) for each in meanwhile]
    try:
        running = {wanted, *doing}
        while not wanted.done() and not any(_failed(task) for task in doing):
            _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (wanted, *doing):
            task.cancel()
        await asyncio.gather(wanted, *doing, return_exceptions=True)
    for task in doing:
        if _failed(task):
            task.result()


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


async def _follow(
    configuration: Configuration, servers: Mapping[str, Served], orchestrator: Served
) -> None:
    """Let a changed file take force in those services that can take it."""
    parts = {
        name: reload.applied_by(server, name, services.settings_of(name))
        for name, server in servers.items()
    }
    front = reload.applied_by(orchestrator, FRONT, services.settings_of(FRONT))

    async def apply_pointed(newest: Configuration) -> None:
        if front is not None:
            await front(pointed(newest, servers))

    parts[FRONT] = apply_pointed if front else None
    refused = reload.told_to(orchestrator)
    await reload.follow(configuration, parts, set_log=set_log, refused=refused)


async def _leave_at_second(signals: Signals) -> None:
    await signals.get()
    _tell("Ended at once. VMs go on running.")
    sys.stdout.flush()
    os._exit(Exit.INTERRUPTED)


async def _remove_all(servers: Mapping[str, Served]) -> None:
    _tell("Its VMs are removed …")
    done = await removal.remove_all(
        runtime=servers["runtime"].address,
        iaas=servers["iaas"].address,
        clock=SystemClock(),
        chance=SystemChance(),
    )
    _tell(f"{_vms(done.removed)} removed.")
    for name, why in sorted(done.left.items()):
        _tell(f"Left: {name}: {why}")


def set_log(chosen: Log) -> None:
    """What the file says; where it says nothing, warnings only: the screen shows the rest."""
    level = chosen.level if "level" in chosen.model_fields_set else "warning"
    entry.set_log(chosen.model_copy(update={"level": level}))


def _tell_beginning(configuration: Configuration, address: str) -> None:
    file = configuration.path or "no file, so all by default"
    _tell(f"VmShepherd runs: {address} (configuration: {file})")
    for note in configuration.notes:
        _tell(f"Note: {note}")


def _tell_end(configuration: Configuration) -> None:
    again = f"vmshepherd up -c {configuration.path}" if configuration.path else "vmshepherd up"
    parsed = configuration.parse("iaas", services.settings_of("iaas"))
    providers = parsed.model_dump()["providers"]
    simulated = [name for name, each in providers.items() if each["driver"] == SIMULATED]
    if simulated:
        _tell(f"VMs of {', '.join(simulated)} were simulated in this process, and are gone.")
    if len(simulated) == len(providers):
        return
    _tell("Its VMs go on running.")
    _tell(f"To manage them again: {again}")
    _tell(f"To remove them: {again} --ephemeral, then Ctrl-C")


def _vms(count: int) -> str:
    return "1 VM" if count == 1 else f"{count} VMs"


def _tell(text: str) -> None:
    print(text, flush=True)
