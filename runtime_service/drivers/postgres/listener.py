"""Hearing that the journal has grown, by a connection of its own that is made anew when it breaks.

Whoever waits for events is woken through the bell.  What was told while nobody listened is made up
for: after connecting, and every few seconds, the journal itself is asked how far it reaches.  The
log tells of the beginning of a failure, of another cause, and of its end here, once each.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from runtime_service.bell import Bell
from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock

from . import failures
from .database import KNOWN, Connection, Database
from .schema import within

_log = log.get("runtime")

_HOW_FAR: Final = "SELECT newest FROM {schema}.journal"
_ASKED_EVERY: Final = timedelta(seconds=5)
_TRIED_EVERY: Final = timedelta(milliseconds=500)
_PATIENCE: Final = timedelta(seconds=3)


class Listener:
    """Rings the bell of one process."""

    def __init__(self, database: Database, bell: Bell, clock: Clock) -> None:
        self._database = database
        self._bell = bell
        self._clock = clock
        self._why = ""

    async def listen(self) -> None:
        """Listen until it is cancelled, whatever happens to the database."""
        while True:
            try:
                await self._hear()
            except KNOWN as e:
                self._tell(e)
            await self._clock.sleep(_TRIED_EVERY)

    async def _hear(self) -> None:
        connection = await self._database.connect()
        closed = asyncio.Event()
        connection.add_termination_listener(lambda _: closed.set())
        try:
            async with asyncio.timeout(_PATIENCE.total_seconds()):
                await connection.add_listener(f"{self._database.schema}_events", self._rung)
            while not closed.is_set():
                await self._ask(connection)
                await _within(closed, _ASKED_EVERY)
        finally:
            connection.terminate()

    async def _ask(self, connection: Connection) -> None:
        async with asyncio.timeout(_PATIENCE.total_seconds()):
            newest = await connection.fetchval(within(self._database.schema, _HOW_FAR))
        self._bell.correct(int(newest))
        if self._why:
            self._why = ""
            _log.info("database is back", database=self._database.where)

    def _rung(self, _connection: object, _pid: int, _channel: str, newest: Any) -> None:
        self._bell.ring(int(newest))

    def _tell(self, error: BaseException) -> None:
        why = str(failures.understood(error, self._database.where) or error)
        if why != self._why:
            self._why = why
            _log.warning("database is away", why=why)


async def _within(happened: asyncio.Event, time: timedelta) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(time.total_seconds()):
            await happened.wait()
