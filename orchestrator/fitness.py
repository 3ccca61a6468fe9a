"""Whether this replica can reach the services that its work needs.

One that is cut off from them, while others are not, should leave its presets to those. Asked by
`replicas`; it concerns this process' way to the services, never what they answer of their clouds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta

from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import OutcomeUnknown, ShepherdError, Unavailable

LOOK = timedelta(seconds=5)
# A restart of a service is no reason to move presets: each of their timers would start anew.
PATIENCE = timedelta(seconds=15)

Asking = Callable[[], Awaitable[object]]

_log = log.get("replicas")


class Fitness:
    """Asks every service once in a while whether it answers."""

    def __init__(self, services: Mapping[str, Asking], *, clock: Clock) -> None:
        self._services = services
        self._clock = clock
        self._silent_since: dict[str, timedelta] = {}

    def is_fit(self) -> bool:
        """Whether no service has been out of reach for long."""
        now = self._clock.elapsed()
        return all(now - since < PATIENCE for since in self._silent_since.values())

    async def watch(self) -> None:
        """Ask for ever."""
        while True:
            await asyncio.gather(*map(self._ask, self._services))
            await self._clock.sleep(LOOK)

    async def _ask(self, name: str) -> None:
        try:
            await self._services[name]()
        except (Unavailable, OutcomeUnknown) as e:
            if name not in self._silent_since:
                _log.warning("a service is out of reach", service=name, error=e.message)
            self._silent_since.setdefault(name, self._clock.elapsed())
        except ShepherdError:
            # It answered, whatever it said.
            self._silent_since.pop(name, None)
        else:
            self._silent_since.pop(name, None)
