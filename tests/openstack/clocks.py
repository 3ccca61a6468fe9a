"""Clocks for tests that cannot wait: the system's own, but for what is said of each."""

from __future__ import annotations

from datetime import datetime, timedelta

from vmshepherd_kit.clock import SystemClock


class WrongClock(SystemClock):
    """Its date is off; nobody set it."""

    def __init__(self, off: timedelta) -> None:
        self._off = off

    def wall(self) -> datetime:
        return super().wall() + self._off


class LeapingClock(SystemClock):
    """Leaps ahead when it is told to: so much time has passed then."""

    def __init__(self) -> None:
        self._passed = timedelta(0)

    def leap(self, duration: timedelta) -> None:
        self._passed += duration

    def wall(self) -> datetime:
        return super().wall() + self._passed

    def elapsed(self) -> timedelta:
        return super().elapsed() + self._passed


class HastyClock(SystemClock):
    """Notes how long somebody wants to sleep, and wakes them almost at once."""

    def __init__(self) -> None:
        self.naps: list[timedelta] = []

    async def sleep(self, duration: timedelta) -> None:
        self.naps.append(duration)
        await super().sleep(min(duration, timedelta(milliseconds=50)))


class StandingClock(SystemClock):
    """No time passes by it, however long something takes."""

    def __init__(self) -> None:
        self._stands_at = super().elapsed()

    def elapsed(self) -> timedelta:
        return self._stands_at
