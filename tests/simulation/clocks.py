"""The clocks of one simulated process: right or wrong, fast or slow, and each its own."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from .loop import Host

# The date at which every simulation begins.
BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)
# How long machines have been up by then.
UPTIME = 100_000.0


class HostClock:
    """`vmshepherd_kit.clock.Clock` of one process: `skew` is what its wall clock is ahead."""

    def __init__(self, host: Host, *, skew: float = 0.0) -> None:
        self._host = host
        self.skew = skew

    def wall(self) -> datetime:
        """The date and time as this process believes."""
        since = self._host.time() - UPTIME * self._host.rate
        return BEGINNING + timedelta(seconds=since + self.skew)

    def elapsed(self) -> timedelta:
        """Time since the process began, by its own rate."""
        return timedelta(seconds=self._host.time())

    async def sleep(self, duration: timedelta) -> None:
        """Let virtual time pass."""
        await asyncio.sleep(max(0.0, duration.total_seconds()))
