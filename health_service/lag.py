"""Whether we ourselves stood still: a stalled prober sees time-outs where there are none.

A ticker runs while probes do, and remembers when it came late. It judges nothing but the event
loop that it runs on; a check with a loop of its own needs a watch of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from vmshepherd_kit.clock import Clock

_TICK: Final = timedelta(milliseconds=50)


class Lag:
    """Stalls of the event loop longer than `limit`, suspended machines included."""

    def __init__(self, clock: Clock, limit: timedelta = timedelta(milliseconds=250)) -> None:
        self._clock = clock
        self._limit = limit
        self._watchers = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = timedelta(0)
        self._stalled_until: timedelta | None = None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the loop within the block; blocks may overlap."""
        self._watchers += 1
        if self._watchers == 1:
            self._arm()
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers and self._timer:
                self._timer.cancel()
                self._timer = None

    def stalled_since(self, moment: timedelta) -> bool:
        """Whether the loop stood still at any time after that moment of the clock.

        A stall that has just ended counts though the ticker has not run yet: after a stall, the
        timers of the probes may run before its own.
        """
        if self._stalled_until is not None and self._stalled_until >= moment:
            return True
        return self._timer is not None and self._is_stall(self._clock.elapsed())

    def _arm(self) -> None:
        self._due = self._clock.elapsed() + _TICK
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_TICK.total_seconds(), self._tick)

    def _tick(self) -> None:
        now = self._clock.elapsed()
        if self._is_stall(now):
            self._stalled_until = now
        self._arm()

    def _is_stall(self, now: timedelta) -> bool:
        return now - self._due > self._limit
