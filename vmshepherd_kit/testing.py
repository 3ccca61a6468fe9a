# ruff: noqa: TID251  (the fake clock yields to the real loop)
"""What tests need, ours and those of authors of drivers: a clock that obeys, a real server in one
line.

Only tests import this.  `FakeClock` never waits for anything: time passes when a test says so.
"""

from __future__ import annotations

import asyncio
import heapq
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, Final

from vmshepherd_kit import dial, serve

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    import grpc

    from vmshepherd_kit.clock import Clock
    from vmshepherd_kit.serve import Mount

_BEGINNING: Final = datetime(2030, 1, 1, tzinfo=UTC)
# Turns of the event loop that woken tasks get to do their work and to sleep again.
_TURNS: Final = 25


class FakeClock:
    """A clock that stands still until `advance` moves it, waking its sleepers in their order."""

    def __init__(self, wall: datetime = _BEGINNING) -> None:
        self._wall = wall
        self._elapsed = timedelta(0)
        self._order = count()
        self._sleepers: list[tuple[timedelta, int, asyncio.Future[None]]] = []

    def wall(self) -> datetime:
        """The date and time of this clock."""
        return self._wall

    def elapsed(self) -> timedelta:
        """The time that was advanced so far."""
        return self._elapsed

    @property
    def sleepers(self) -> int:
        """How many tasks sleep on this clock."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, duration: timedelta) -> None:
        """Wait until so much time was advanced."""
        if duration <= timedelta(0):
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._elapsed + duration, next(self._order), woken))
        await woken

    async def advance(self, duration: timedelta) -> None:
        """Let time pass, one sleeper after the other, each waking at its own moment."""
        await self._settle()
        end = self._elapsed + duration
        while self._sleepers and self._sleepers[0][0] <= end:
            moment, _, woken = heapq.heappop(self._sleepers)
            self._move_to(moment)
            if not woken.done():
                woken.set_result(None)
                await self._settle()
        self._move_to(end)
        await self._settle()

    def jump(self, duration: timedelta) -> None:
        """Set the wall clock forward or back, as an operator or NTP does; no time passes."""
        self._wall += duration

    def _move_to(self, moment: timedelta) -> None:
        passed = max(moment - self._elapsed, timedelta(0))
        self._wall += passed
        self._elapsed += passed

    @staticmethod
    async def _settle() -> None:
        for _ in range(_TURNS):
            await asyncio.sleep(0)


@asynccontextmanager
async def served(
    mounts: Sequence[Mount],
    *,
    clock: Clock | None = None,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to a real server of these servicers, on a free port of loopback."""
    listen = serve.Listen(address="127.0.0.1:0")
    async with (
        serve.running(mounts, listen, clock=clock, interceptors=interceptors) as server,
        dial.channel(server.address) as channel,
    ):
        yield channel
