"""How many probes run at once and how fast they start, over all requests of one prober.

Connections cost file descriptors here, and entries in the connection tables of every firewall on
the way: an unbounded burst harms others before it harms us.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from vmshepherd_kit.clock import Clock

# So much of the rate may start at once; finer pauses than this the event loop cannot keep.
_BURST: Final = timedelta(milliseconds=10)


class Pace:
    """`begin` waits for a free place and for the rate; each `begin` is followed by one `end`."""

    def __init__(self, clock: Clock, *, concurrency: int, starts_per_second: int) -> None:
        self._clock = clock
        self._places = asyncio.Semaphore(concurrency)
        self._step = timedelta(seconds=1) / starts_per_second
        self._next = clock.elapsed() - _BURST

    async def begin(self) -> None:
        """Wait until one more probe may start, in the order of asking."""
        await self._places.acquire()
        try:
            await self._wait_for_rate()
        except BaseException:
            self._places.release()
            raise

    def end(self) -> None:
        """Free the place of a probe that ended."""
        self._places.release()

    async def _wait_for_rate(self) -> None:
        now = self._clock.elapsed()
        start = max(self._next, now - _BURST)
        self._next = start + self._step
        if start > now:
            await self._clock.sleep(start - now)
