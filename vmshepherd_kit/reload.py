"""A changed configuration file takes force in a running process, as a whole or not at all.

`entry` and the command follow their file with it: on SIGHUP, and when its content changes.  A file
that is not understood, or that changes what only a restart can change, is refused with its reasons
and the former configuration stays in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import watchfiles
from pydantic import BaseModel

from vmshepherd_kit import config_file, log, settings
from vmshepherd_kit.config_file import Configuration, Log
from vmshepherd_kit.errors import Refused, ShepherdError

Apply = Callable[[Configuration], Awaitable[None]]

_QUIET_MILLISECONDS: Final = 300

_log = log.get("reload")


class NeedsRestart(Refused):
    """What changed takes force only when the process starts."""

    reason = "NEEDS_RESTART"


@runtime_checkable
class Reloads(Protocol):
    """A server that takes new settings while it runs."""

    async def reload(self, config: Any, /) -> None:
        """Let these settings take force as a whole; a ShepherdError refuses them as a whole."""
        ...


@runtime_checkable
class KeepsTrack(Protocol):
    """A server that tells its clients when the newest configuration is not in force."""

    def configuration_refused(self, why: str, /) -> None:
        """The newest configuration was refused; the former one stays in force."""
        ...


def applied_by(server: object, section: str, config: type[BaseModel]) -> Apply | None:
    """What gives a server its section anew; None when it takes settings only at its start."""
    if not isinstance(server, Reloads):
        return None
    reloading = server

    async def apply(configuration: Configuration) -> None:
        try:
            await reloading.reload(configuration.parse(section, config))
        except settings.Invalid as e:
            raise configuration.refusal(e) from e

    return apply


def told_to(server: object) -> Callable[[str], None]:
    """What tells a server that a configuration was refused; nothing, when it does not care."""
    return server.configuration_refused if isinstance(server, KeepsTrack) else _untold


def _untold(_why: str) -> None:
    pass


async def follow(
    configuration: Configuration,
    parts: Mapping[str, Apply | None],
    *,
    set_log: Callable[[Log], None],
    refused: Callable[[str], None],
) -> None:
    """Follow the file of a configuration until cancelled; without a file, return.

    `parts` are the sections that run in this process, each with what applies its new settings, or
    None where only a restart can.  Whatever an `Apply` raises as a ShepherdError is a refusal.
    """
    if configuration.path is None:
        return
    async for _ in _triggers(configuration.path):
        try:
            newest = config_file.read(configuration.path, embedded=configuration.suite.embedded)
            _refuse_restarts(configuration, newest, parts)
            await _apply(configuration, newest, list(parts.values()))
        except ShepherdError as e:
            _log.error("configuration refused, the former one stays in force", why=e.message)
            refused(e.message)
        else:
            set_log(newest.log)
            configuration = newest
            _log.info("configuration loaded", file=str(newest.path))


def _refuse_restarts(
    former: Configuration, newest: Configuration, parts: Mapping[str, Apply | None]
) -> None:
    stuck = [
        name
        for name, apply in parts.items()
        if apply is None and former.section(name) != newest.section(name)
    ]
    if former.suite != newest.suite:
        stuck.insert(0, "suite_id or state_dir")
    if stuck:
        raise NeedsRestart(
            f"{newest.path}: {', '.join(stuck)}: a change of this takes force with a restart only, "
            "so nothing of the new file is in force"
        )


async def _apply(former: Configuration, newest: Configuration, applies: list[Apply | None]) -> None:
    """All of them, changed or not: what was refused before is known to be over.  When one refuses,
    those before it get the former configuration back.
    """
    async with contextlib.AsyncExitStack() as back:
        for apply in applies:
            if apply is not None:
                await apply(newest)
                back.push_async_callback(apply, former)
        back.pop_all()


async def _triggers(path: Path) -> AsyncIterator[None]:
    """Each SIGHUP, and each change of what the file holds."""
    loop = asyncio.get_running_loop()
    noticed: asyncio.Queue[None] = asyncio.Queue()
    loop.add_signal_handler(signal.SIGHUP, noticed.put_nowait, None)
    watching = asyncio.create_task(_watch(path, noticed))
    try:
        while True:
            await noticed.get()
            yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(path: Path, noticed: asyncio.Queue[None]) -> None:
    """Its whole directory is watched, for editors and mounts put another file in its place."""
    content = _content(path)
    changes = watchfiles.awatch(
        path.parent, watch_filter=None, recursive=False, debounce=_QUIET_MILLISECONDS
    )
    try:
        async for _ in changes:
            if (now := _content(path)) not in (content, None):
                content = now
                noticed.put_nowait(None)
    except OSError as e:
        _log.warning("configuration file is not watched; send SIGHUP instead", why=str(e))


def _content(path: Path) -> bytes | None:
    """None while it is not there: in the middle of an editor's swap."""
    try:
        return path.read_bytes()
    except OSError:
        return None
