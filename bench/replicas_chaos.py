"""Bad luck by chance, for bench/replicas.py: a signal to a random process, again and again.

Whoever is ended starts again soon, as a supervisor would have it; one that is stopped goes on after
a while that may be longer than its session lives.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from bench.replicas_fleet import Fleet, Kind, Process
from vmshepherd_kit.entry import GRACE

# Until a supervisor has noticed.
_RESTART_SECONDS: Final = 3.0
_SHORTEST_STOP: Final = 0.5
# Whom the machine gives no time is no fault of the process: what is waited beyond the grace.
_BEYOND: Final = 20.0


class Chaos:
    """Hurts processes of these services, one at a time, and lets them live again."""

    def __init__(
        self, fleet: Fleet, services: Sequence[str], *, chance: random.Random, longest_stop: float
    ) -> None:
        self._fleet = fleet
        self._services = services
        self._chance = chance
        self._longest_stop = longest_stop
        self._tasks: list[asyncio.Task[None]] = []
        self.done: Counter[str] = Counter()
        self.endings: list[float] = []
        self.wrong: list[str] = []

    async def reign(self, *, every: float, seconds: float) -> None:
        """Hurt one process after the other."""
        end = time.monotonic() + seconds
        while time.monotonic() + every <= end:
            await asyncio.sleep(every)
            numbers = [len(self._fleet.of(service)) for service in self._services]
            service = self._chance.choices(self._services, numbers)[0]
            self.hurt(service, self._chance.choice(list(Kind)))
            self._notice_ends()

    async def cease(self) -> None:
        """Wait until everybody that was hurt serves again."""
        await asyncio.gather(*self._tasks)
        await self._fleet.until_serving(*(each.name for each in self._fleet))
        self._notice_ends()

    def hurt(self, service: str, kind: Kind) -> None:
        """Hurt a process of this service, unless it is the last one that lives."""
        live = self._fleet.live(service)
        if len(live) < 2:  # noqa: PLR2004
            return
        victim = self._chance.choice(live)
        self.done[f"{kind} {service}"] += 1
        fates = {Kind.KILL: self._killed, Kind.STOP: self._stopped, Kind.TERM: self._terminated}
        self._tasks.append(asyncio.create_task(fates[kind](victim)))

    async def _killed(self, victim: Process) -> None:
        victim.kill()
        await victim.ended(_BEYOND)
        await self._again(victim)

    async def _stopped(self, victim: Process) -> None:
        victim.pause()
        await asyncio.sleep(self._chance.uniform(_SHORTEST_STOP, self._longest_stop))
        victim.resume()

    async def _terminated(self, victim: Process) -> None:
        begun = time.monotonic()
        victim.terminate()
        code = await victim.ended(GRACE.total_seconds() + _BEYOND)
        took = time.monotonic() - begun
        self.endings.append(took)
        if code != 0:
            self.wrong.append(f"{victim.name}: ended with {code} after SIGTERM")
        if took > GRACE.total_seconds():
            self.wrong.append(f"{victim.name}: {took:.1f} s from SIGTERM to its end")
        await self._again(victim)

    async def _again(self, victim: Process) -> None:
        await asyncio.sleep(self._chance.uniform(0, _RESTART_SECONDS))
        self._fleet.start(victim.name)
        await self._fleet.until_serving(victim.name)

    def _notice_ends(self) -> None:
        for each in self._fleet:
            if each.life.pid and not each.life.is_over and not each.is_running:
                each.life.is_over = True
                self.wrong.append(f"{each.name} ended by itself: {each.said()[-1000:]}")
