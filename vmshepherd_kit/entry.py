"""How one service becomes a process: `python -m preset_service -c FILE`, or `vmshepherd serve`.

Every `__main__.py` calls `main`; the command calls `serve`.  It reads the file, sets up the log,
runs the service until SIGTERM or SIGINT, drains it, and says what went wrong in one sentence.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Final, NoReturn, Protocol, TypeVar

from vmshepherd_kit import config_file, log, reload, serve, settings
from vmshepherd_kit.clock import Chance, Clock, SystemChance, SystemClock
from vmshepherd_kit.config_file import Configuration, Log, Suite
from vmshepherd_kit.errors import BadRequest, ShepherdError

OK: Final = 0
FAILURE: Final = 1
USAGE: Final = 2

GRACE: Final = timedelta(seconds=10)

Config = TypeVar("Config", bound=settings.Settings)
Config_contra = TypeVar("Config_contra", contravariant=True)

_log = log.get("entry")


class Running(Protocol[Config_contra]):
    """The `running` of a service's `server.py`."""

    def __call__(
        self, config: Config_contra, /, *, suite: Suite, clock: Clock, chance: Chance
    ) -> AbstractAsyncContextManager[serve.Served]:
        """Serve within the block; all that it opened is closed behind it."""
        ...


def main(section: str, config: type[Config], running: Running[Config]) -> NoReturn:
    """Run one service as this process, by its command line."""
    parser = argparse.ArgumentParser(description=f"Run the {section} service of VmShepherd.")
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help="configuration file")
    path: Path | None = parser.parse_args().config
    raise SystemExit(run(section, config, running, path=path))


def run(section: str, config: type[Config], running: Running[Config], *, path: Path | None) -> int:
    """Run one service until it is told to stop; the exit code: 0 ended, 1 failed, 2 refused."""
    try:
        configuration = config_file.read(path) if path else config_file.defaults()
        set_log(configuration.log)
        serve.run(serve_one(section, configuration, config=config, running=running))
    except ShepherdError as e:
        return complain(e)
    except ExceptionGroup as group:
        return complain(named(group))
    return OK


async def serve_one(
    section: str, configuration: Configuration, *, config: type[Config], running: Running[Config]
) -> None:
    """One service by its section of the file, until SIGTERM, SIGINT or its own end.

    Unreadable when the file has other options than the service or its driver knows.
    """
    for note in configuration.notes:
        _log.info("configuration understood", note=note)
    parsed = configuration.parse(section, config)
    clock, chance = SystemClock(), SystemChance()
    try:
        async with running(parsed, suite=configuration.suite, clock=clock, chance=chance) as server:
            following = asyncio.create_task(
                reload.follow(
                    configuration,
                    {section: reload.applied_by(server, section, config)},
                    set_log=set_log,
                    refused=reload.told_to(server),
                )
            )
            ending = asyncio.create_task(serve.until_stopped(server, GRACE))
            # Who reads that it runs may end it politely: by then the signals are waited for.
            await clock.sleep(timedelta(0))
            _log.info("service runs", service=section, address=server.address)
            await ending
            following.cancel()
    except settings.Invalid as e:
        raise configuration.refusal(e) from e


def set_log(chosen: Log) -> None:
    """Send this process's log where the configuration wants it."""
    log.setup(chosen.level, chosen.format)


def named(group: ExceptionGroup[Exception]) -> ShepherdError:
    """The first error in a group that names what went wrong; the group itself when it holds a bug.

    An error that passes through a TaskGroup leaves it within a group.
    """
    ours, bugs = group.split(ShepherdError)
    if ours is None or bugs is not None:
        raise group
    first: ShepherdError | ExceptionGroup[ShepherdError] = ours
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    return first


def complain(error: ShepherdError) -> int:
    """Say on standard error what went wrong; the exit code that stands for it."""
    sys.stderr.write(f"{error.message}\n")
    return USAGE if isinstance(error, BadRequest) else FAILURE
