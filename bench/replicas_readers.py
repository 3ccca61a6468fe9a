"""Readers at the admin API of whichever replica lives, for bench/replicas.py: all presets, always.

What a fault befell in the middle is not judged, and counted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection
from datetime import timedelta
from typing import Final

from bench.replicas_fleet import Fleet, Life, Process
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.orchestrator.v1.view_pb2 import PresetView
from vmshepherd_kit import dial
from vmshepherd_kit.errors import ShepherdError

DEADLINE: Final = timedelta(seconds=10)


class Readers:
    """Clients who ask random live replicas, and want the whole answer."""

    def __init__(self, fleet: Fleet, presets: Collection[str], *, chance: random.Random) -> None:
        self._fleet = fleet
        self._presets = presets
        self._chance = chance
        self.asked = 0
        self.unanswered_by_the_dead = 0
        self.seconds: list[float] = []
        self.wrong: list[str] = []

    async def read(self, every: float) -> None:
        """Ask for all presets, or for one, for ever."""
        while True:
            await asyncio.sleep(every)
            live = self._fleet.live("orchestrator")
            if live:
                await self._read_from(self._chance.choice(live))

    async def _read_from(self, replica: Process) -> None:
        life, begun = replica.life, time.monotonic()
        ask = self._chance.choice([self._wants_all, self._wants_one])
        try:
            complaint = await ask(replica)
        except ShepherdError as e:
            complaint = f"{type(e).__name__}: {e.message}"
        self.asked += 1
        if complaint and not is_unhurt(replica, life):
            self.unanswered_by_the_dead += 1
        elif complaint:
            self.wrong.append(
                f"{replica.name}: {ask.__name__[1:]}: {complaint} "
                f"({time.monotonic() - begun:.1f} s; {self._fleet.away()})"
            )
        else:
            self.seconds.append(time.monotonic() - begun)

    async def _wants_all(self, replica: Process) -> str:
        request = api.ListPresetsRequest(page_size=1000)
        answer = await dial.ask(admin(replica).ListPresets, request, deadline=DEADLINE)
        names = {view.name for view in answer.presets}
        if names == set(self._presets):
            return ""
        return f"{len(names)} of {len(self._presets)} presets"

    async def _wants_one(self, replica: Process) -> str:
        name = self._chance.choice(list(self._presets))
        view = await preset_of(replica, name)
        return "" if view.name == name else f"{view.name!r} instead of {name!r}"


def admin(replica: Process) -> OrchestratorServiceStub:
    """The admin API of one replica."""
    return OrchestratorServiceStub(replica.channel)


async def preset_of(replica: Process, name: str) -> PresetView:
    """A preset, as one replica shows it."""
    request = api.GetPresetRequest(preset=name)
    return (await dial.ask(admin(replica).GetPreset, request, deadline=DEADLINE)).preset


def is_unhurt(replica: Process, life: Life) -> bool:
    """Whether nothing befell a process since this life of it was asked."""
    return replica.life is life and life.is_live
