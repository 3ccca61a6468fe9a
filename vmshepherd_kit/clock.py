"""Where time, randomness and ids come from: injected everywhere, so that a simulation can own them.

`SystemClock` and `SystemChance` are the only adapters to the real ones; `SeededChance` replays.
`testing.FakeClock` is the clock of tests.  Nothing else in the suite asks the operating system
for the time or for a random number.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Protocol

# Linux's boot clock counts suspended time too: a lease judged by it expires during a suspend, as
# it must.
_ELAPSED_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """The time, in the two meanings that must not be mixed up."""

    def wall(self) -> datetime:
        """The date and time, aware, in UTC; it may jump: for people and records, never for
        measuring.
        """
        ...

    def elapsed(self) -> timedelta:
        """Time since some fixed moment; it never goes back and runs on in suspend: for
        measuring.
        """
        ...

    async def sleep(self, duration: timedelta) -> None:
        """Let so much time pass; nothing or less yields once."""
        ...


class Chance(Protocol):
    """Ids and random numbers."""

    def uuid(self) -> str:
        """A new random UUID (version 4) in its canonical text."""
        ...

    def uniform(self, a: float, b: float) -> float:
        """A number between `a` and `b`."""
        ...


class SystemClock:
    """The operating system's time."""

    def wall(self) -> datetime:
        """Now, in UTC."""
        return datetime.now(UTC)

    def elapsed(self) -> timedelta:
        """Time since boot, suspended time included."""
        return timedelta(microseconds=time.clock_gettime_ns(_ELAPSED_CLOCK) / 1000)

    async def sleep(self, duration: timedelta) -> None:
        """Sleep on the event loop."""
        await asyncio.sleep(max(0.0, duration.total_seconds()))


class SystemChance:
    """The operating system's randomness."""

    def uuid(self) -> str:
        """A random UUID."""
        return str(uuid.uuid4())

    def uniform(self, a: float, b: float) -> float:
        """A random number between `a` and `b`."""
        return random.SystemRandom().uniform(a, b)


class SeededChance:
    """Randomness that replays: the same seed gives the same ids and numbers, in the same order."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def uuid(self) -> str:
        """The next UUID of this seed."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def uniform(self, a: float, b: float) -> float:
        """The next number of this seed between `a` and `b`."""
        return self._random.uniform(a, b)
