"""How much clients quarrel, over which stores, and what befalls those meanwhile.

`grounds` sets the scene, `clients` play on it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Final

from .record import Span, Store

Fault = Callable[[], Awaitable[None]]

LONG: Final = Span(ttl=timedelta(minutes=10), lock_delay=timedelta(seconds=0))
"""No session expires within a history."""
SHORT: Final = Span(ttl=timedelta(milliseconds=400), lock_delay=timedelta(milliseconds=150))
"""Sessions expire of whoever pauses."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Quarrel:
    """How much is asked, by whom, and what goes wrong meanwhile."""

    seed: int
    clients: int = 8
    names: int = 5
    calls: int = 1000
    """Of each client, at least; more, until half as many were answered."""
    faults: int = 1
    """At least, where there are any: who has asked enough goes on until they have happened."""
    span: Span = LONG
    impatience: float = 0.02
    """The part of the calls that are cancelled before long."""
    pace_seconds: float = 0.0
    """The longest that a client waits between two calls."""
    respite_seconds: float = 2.0
    """The longest between two faults."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """Where the quarrel takes place: stores over the same data, and what can befall them.

    A list that may be empty for a while, as services may be away.
    """

    stores: list[Store]
    faults: Sequence[tuple[str, Fault]] = ()
    """Each breaks something, and has healed it when it ends."""


class Misfortune:
    """Lets one fault after the other happen, each kind before any of them happens again."""

    def __init__(self, what: Quarrel, ground: Ground) -> None:
        self._faults = list(ground.faults)
        self._least = what.faults
        self._chance = Random(what.seed)
        self._respite = what.respite_seconds
        self.happened: list[str] = []
        self.enough = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """Whether as many have happened as are wanted."""
        return len(self.happened) >= self._least or not self._faults

    async def run(self) -> None:
        """Until nobody asks any more."""
        to_come: list[tuple[str, Fault]] = []
        while self._faults and not self.enough.is_set():
            if not to_come:
                to_come = self._chance.sample(self._faults, len(self._faults))
            name, fault = to_come.pop()
            await fault()
            self.happened.append(name)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._chance.uniform(0.2, 1.0) * self._respite):
                    await self.enough.wait()
