"""Errands of people, for bench/replicas.py: a wish is carried to a random replica, and it is
measured how soon whoever holds the preset acts by it.

What a fault befell in the middle is not judged, and counted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from bench.replicas_fleet import Fleet, Life, Process
from bench.replicas_readers import admin, is_unhurt, preset_of
from bench.replicas_takeover import Takeovers
from bench.replicas_watch import Store
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.orchestrator.v1.view_pb2 import PresetView
from vmshepherd_kit.errors import ShepherdError, Unavailable, VersionMismatch

LIMIT_SECONDS: Final = 1.0
HUNG_LIMIT_SECONDS: Final = 15.0

_LOOK: Final = 0.02
_PATIENCE: Final = 20.0
# Everything is as it is for so long, so that nothing of a former fault is measured.
_CALM: Final = 3.0

Ask = Callable[[OrchestratorServiceStub], Awaitable[object]]
IsDone = Callable[[], Awaitable[bool]]


class Disturbed(Exception):
    """A fault came in between."""


@dataclass(frozen=True, slots=True)
class Reached:
    """One wish that was carried out by whoever held the preset."""

    what: str
    preset: str
    through: str
    by: str
    answered: float
    """Seconds until it was taken."""
    seconds: float
    """Until it was done."""
    is_store_whole: bool
    """Whether every runtime service was there meanwhile, and before."""

    @property
    def limit(self) -> float:
        """Seconds that it may take: a holder whose runtime service hangs hears of a wish at its
        next regular look.
        """
        return LIMIT_SECONDS if self.is_store_whole else HUNG_LIMIT_SECONDS


class Errands:
    """Asks, waits, and keeps what it took."""

    def __init__(
        self, fleet: Fleet, store: Store, takeovers: Takeovers, *, chance: random.Random
    ) -> None:
        self._fleet = fleet
        self._store = store
        self._takeovers = takeovers
        self._chance = chance
        self.reached: list[Reached] = []
        self.asked_again = 0
        self.wrong: list[str] = []

    def is_calm(self, preset: str) -> bool:
        """Whether a preset has been in the same hands for a while."""
        return self._takeovers.attended_for(preset, time.monotonic()) > _CALM

    async def measured(self, what: str, preset: str, ask: Ask, is_done: IsDone) -> None:
        """Ask a random replica, and wait until whoever holds the preset has done it."""
        begun, store = time.monotonic(), self._store_hits()
        replica = await self._asked(what, preset, ask)
        answered = time.monotonic() - begun
        holder = await self.until(preset, is_done)
        self.reached.append(
            Reached(
                what=what,
                preset=preset,
                through=replica.name,
                by=holder.process,
                answered=answered,
                seconds=time.monotonic() - begun,
                is_store_whole=store == self._store_hits() and self._is_store_whole(begun),
            )
        )

    async def insist(self, ask: Ask) -> None:
        """Ask one replica after the other until one has taken the wish, whatever happens."""
        while True:
            live = self._fleet.live("orchestrator")
            try:
                if live:
                    await ask(admin(self._chance.choice(live)))
                    return
            except ShepherdError:
                self.asked_again += 1
            await asyncio.sleep(_LOOK)

    async def until(self, preset: str, is_done: IsDone) -> Life:
        """Who holds it then.  Disturbed when its holder is hurt, or another one has it."""
        holder, end = self._takeovers.holder(preset), time.monotonic() + _PATIENCE
        hits = len(holder.hits) if holder else 0
        while True:
            try:
                is_true = await is_done()
            except ShepherdError:
                is_true = False
            now = self._takeovers.holder(preset)
            if now is None or now is not holder or len(now.hits) != hits:
                raise Disturbed
            if is_true:
                return now
            if time.monotonic() > end:
                told = f"{now.process} did nothing for {_PATIENCE:g} s"
                self.wrong.append(f"{preset}: {told} ({self._fleet.away()})")
                raise Disturbed
            await asyncio.sleep(_LOOK)

    async def at_holder(self, preset: str, is_so: Callable[[PresetView], bool]) -> bool:
        """Whether its holder shows a preset so."""
        holder = self._takeovers.holder(preset)
        if holder is None:
            raise Disturbed
        return is_so(await preset_of(self._fleet[holder.process], preset))

    async def _asked(self, what: str, preset: str, ask: Ask) -> Process:
        """Whoever has taken the wish: who cannot at present says so, and another one is asked."""
        while live := self._fleet.live("orchestrator"):
            replica = self._chance.choice(live)
            life = replica.life
            try:
                await ask(admin(replica))
            except Unavailable:
                self.asked_again += 1
            except VersionMismatch as e:
                if await self._is_left_by_the_dead(preset):
                    raise Disturbed from e
                self.asked_again += 1
            except ShepherdError as e:
                if is_unhurt(replica, life):
                    told = f"{what} {preset}: {e.message} ({self._fleet.away()})"
                    self.wrong.append(f"{replica.name}: {told}")
                raise Disturbed from e
            else:
                return replica
        raise Disturbed

    async def _is_left_by_the_dead(self, preset: str) -> bool:
        """Whether a replica that is hurt has the lock of a preset's wishes, until its end."""
        holder = await self._store.holder(f"operator/{preset}")
        return holder is not None and not holder.is_well

    def _store_hits(self) -> list[int]:
        return [len(each.life.hits) for each in self._fleet.of("runtime")]

    def _is_store_whole(self, now: float) -> bool:
        """Whether every runtime service is there, and was for a while."""
        return all(
            each.life.is_live and now - each.life.changed > _CALM
            for each in self._fleet.of("runtime")
        )
