"""People at the admin API of whichever replica lives, for bench/replicas.py.

Readers want every preset, always. Others pause, approve and terminate through a random replica, and
it is measured how soon whoever holds the preset acts by it. What a fault befell in the middle is
not judged, and counted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from bench.replicas_fleet import Fleet, Life, Process
from bench.replicas_takeover import Takeovers
from bench.replicas_watch import Cloud, Store
from vmshepherd.iaas.v1.vm_pb2 import VmState
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.orchestrator.v1.view_pb2 import PresetPhase, PresetView
from vmshepherd_kit import dial
from vmshepherd_kit.errors import ShepherdError, Unavailable, VersionMismatch

ACTOR: Final = "bench"
LIMIT_SECONDS: Final = 1.0
HUNG_LIMIT_SECONDS: Final = 15.0
TEXT: Final = "count: {count}\nflavor: small\nimage: any\nhealthcheck: {{driver: dummy}}\n"

_DEADLINE: Final = timedelta(seconds=10)
_LOOK: Final = 0.02
_PATIENCE: Final = 20.0
# Held for so long, so that nothing of a former fault is measured.
_CALM: Final = 3.0
# A count that changes by more than the greater of these needs a person.
_FREE: Final = 5
_FREE_PERCENT: Final = 50
_LARGEST: Final = 25


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


@dataclass(slots=True)
class Reads:
    """What readers got."""

    asked: int = 0
    unanswered_by_the_dead: int = 0
    seconds: list[float] = field(default_factory=list)


class People:
    """Clients of random live replicas."""

    def __init__(
        self,
        fleet: Fleet,
        cloud: Cloud,
        store: Store,
        *,
        takeovers: Takeovers,
        counts: dict[str, int],
        folder: Path,
        chance: random.Random,
    ) -> None:
        self._fleet = fleet
        self._cloud = cloud
        self._store = store
        self._takeovers = takeovers
        self._counts = counts
        self._folder = folder
        self._chance = chance
        self._busy: set[str] = set()
        self.reads = Reads()
        self.reached: list[Reached] = []
        self.disturbed: Counter[str] = Counter()
        self.asked_again = 0
        self.wrong: list[str] = []

    # Readers

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
        self.reads.asked += 1
        if complaint and not _is_unhurt(replica, life):
            self.reads.unanswered_by_the_dead += 1
        elif complaint:
            self.wrong.append(
                f"{replica.name}: {ask.__name__[1:]}: {complaint} "
                f"({time.monotonic() - begun:.1f} s; {self._hung()})"
            )
        else:
            self.reads.seconds.append(time.monotonic() - begun)

    async def _wants_all(self, replica: Process) -> str:
        request = api.ListPresetsRequest(page_size=1000)
        answer = await dial.ask(_stub(replica).ListPresets, request, deadline=_DEADLINE)
        names = {view.name for view in answer.presets}
        if names == set(self._counts):
            return ""
        return f"{len(names)} of {len(self._counts)} presets"

    async def _wants_one(self, replica: Process) -> str:
        name = self._chance.choice(list(self._counts))
        view = await _preset(replica, name)
        return "" if view.name == name else f"{view.name!r} instead of {name!r}"

    def _hung(self) -> str:
        hung = [each.name for each in self._fleet if not each.life.is_live]
        return f"away: {', '.join(hung) or 'nobody'}"

    # Hands

    async def work(self, every: float) -> None:
        """Wish for something at a random replica, for ever."""
        wishes: Sequence[Callable[[str], Awaitable[None]]] = [
            self._pause,
            self._terminate,
            self._approve,
            self._grow,
        ]
        while True:
            await asyncio.sleep(every)
            calm = [name for name in self._counts if self._is_calm(name)]
            if not calm or not self._fleet.live("orchestrator"):
                continue
            wish, preset = self._chance.choice(wishes), self._chance.choice(calm)
            await self._carry_out(wish, preset)

    async def _carry_out(self, wish: Callable[[str], Awaitable[None]], preset: str) -> None:
        self._busy.add(preset)
        try:
            await wish(preset)
        except Disturbed:
            self.disturbed[wish.__name__[1:]] += 1
        finally:
            self._busy.discard(preset)

    async def _pause(self, preset: str) -> None:
        request = api.PausePresetRequest(preset=preset, actor=ACTOR, reason="to see how soon")
        paused = PresetPhase.PRESET_PHASE_PAUSED
        try:
            await self._measured(
                "pause", preset,
                lambda stub: dial.ask(stub.PausePreset, request, deadline=_DEADLINE),
                lambda: self._at_owner(preset, lambda view: view.phase == paused),
            )  # fmt: skip
        finally:
            await self._resume(preset)

    async def _resume(self, preset: str) -> None:
        """Until it is done: a preset that stays paused would be found at the end."""
        while True:
            live = self._fleet.live("orchestrator")
            try:
                if live:
                    request = api.ResumePresetRequest(preset=preset, actor=ACTOR)
                    stub = _stub(self._chance.choice(live))
                    await dial.ask(stub.ResumePreset, request, deadline=_DEADLINE)
                    return
            except ShepherdError:
                pass
            await asyncio.sleep(_LOOK)

    async def _terminate(self, preset: str) -> None:
        running = VmState.VM_STATE_RUNNING
        vms = [v for v in self._cloud.vms.values() if v.marker.preset == preset]
        found = [vm.vm_id for vm in vms if vm.state == running]
        if len(found) < self._counts[preset]:
            return
        vm_id = self._chance.choice(found)
        self._cloud.wanted.add(vm_id)
        request = api.TerminateVmRequest(preset=preset, vm_id=vm_id, actor=ACTOR)

        async def is_gone() -> bool:
            answer = await self._cloud.get(vm_id)
            return answer.status.code != 0 or answer.vm.state != running

        await self._measured(
            "terminate", preset,
            lambda stub: dial.ask(stub.TerminateVm, request, deadline=_DEADLINE), is_gone,
        )  # fmt: skip

    async def _approve(self, preset: str) -> None:
        before = self._counts[preset]
        wanted = before + max(_FREE, before * _FREE_PERCENT // 100) + 1
        if wanted > _LARGEST:
            return
        self.declare(preset, wanted)
        request = api.ReconcilePresetRequest(presets=[preset], approve_count=True, actor=ACTOR)

        def is_asking(view: PresetView) -> bool:
            return any(each.code == "COUNT_NEEDS_APPROVAL" for each in view.conditions)

        async def is_growing() -> bool:
            vms = await self._cloud.listed()
            return sum(vm.marker.preset == preset for vm in vms) > before

        try:
            await self._until(preset, lambda: self._at_owner(preset, is_asking))
            await self._measured(
                "approve", preset, lambda stub: _approved(stub, request), is_growing
            )
        except Disturbed:
            await self._insist(preset, request)
            raise

    async def _insist(self, preset: str, request: api.ReconcilePresetRequest) -> None:
        """Approve until it grows, whatever happens: a count that nobody approved stays open."""
        while (
            sum(v.marker.preset == preset for v in self._cloud.vms.values())
            < (self._counts[preset])
        ):
            live = self._fleet.live("orchestrator")
            try:
                if live:
                    await dial.ask(
                        _stub(self._chance.choice(live)).ReconcilePreset, request,
                        deadline=_DEADLINE,
                    )  # fmt: skip
            except ShepherdError:
                pass
            await asyncio.sleep(1)

    async def _grow(self, preset: str) -> None:
        if self._counts[preset] < _LARGEST:
            self.declare(preset, self._counts[preset] + 1)

    def declare(self, preset: str, count: int) -> None:
        """Write a preset's file as an editor does."""
        self._counts[preset] = count
        new = self._folder / f".{preset}.new"
        new.write_text(TEXT.format(count=count))
        new.replace(self._folder / f"{preset}.yaml")

    # How it is measured

    def _store_hits(self) -> list[int]:
        return [len(each.life.hits) for each in self._fleet.of("runtime")]

    def _is_store_whole(self, now: float) -> bool:
        """Whether every runtime service is there, and was for a while."""
        return all(
            each.life.is_live and now - each.life.changed > _CALM
            for each in self._fleet.of("runtime")
        )

    def _is_calm(self, preset: str) -> bool:
        held = self._takeovers.attended_for(preset, time.monotonic())
        return held > _CALM and preset not in self._busy

    async def _measured(
        self,
        what: str,
        preset: str,
        ask: Callable[[OrchestratorServiceStub], Awaitable[object]],
        is_done: Callable[[], Awaitable[bool]],
    ) -> None:
        """Ask a random replica, and wait until whoever holds the preset has done it."""
        begun, store = time.monotonic(), self._store_hits()
        replica = await self._asked(what, preset, ask)
        answered = time.monotonic() - begun
        holder = await self._until(preset, is_done)
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

    async def _asked(
        self,
        what: str,
        preset: str,
        ask: Callable[[OrchestratorServiceStub], Awaitable[object]],
    ) -> Process:
        """Whoever has taken the wish: who cannot at present says so, and another one is asked."""
        while live := self._fleet.live("orchestrator"):
            replica = self._chance.choice(live)
            life = replica.life
            try:
                await ask(_stub(replica))
            except Unavailable:
                self.asked_again += 1
            except VersionMismatch as e:
                if await self._is_left_by_the_dead(preset):
                    raise Disturbed from e
                self.asked_again += 1
            except ShepherdError as e:
                if _is_unhurt(replica, life):
                    told = f"{what} {preset}: {e.message} ({self._hung()})"
                    self.wrong.append(f"{replica.name}: {told}")
                raise Disturbed from e
            else:
                return replica
        raise Disturbed

    async def _is_left_by_the_dead(self, preset: str) -> bool:
        """Whether a replica that is hurt has the lock of a preset's wishes, until its end."""
        holder = await self._store.holder(f"operator/{preset}")
        return holder is not None and not holder.is_well

    async def _until(self, preset: str, is_done: Callable[[], Awaitable[bool]]) -> Life:
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
                self.wrong.append(
                    f"{preset}: {now.process} did nothing for {_PATIENCE:g} s ({self._hung()})"
                )
                raise Disturbed
            await asyncio.sleep(_LOOK)

    async def _at_owner(self, preset: str, is_so: Callable[[PresetView], bool]) -> bool:
        holder = self._takeovers.holder(preset)
        if holder is None:
            raise Disturbed
        return is_so(await _preset(self._fleet[holder.process], preset))


async def _approved(stub: OrchestratorServiceStub, request: api.ReconcilePresetRequest) -> None:
    answer = await dial.ask(stub.ReconcilePreset, request, deadline=_DEADLINE)
    for result in answer.results:
        if result.status.code:
            raise ShepherdError(result.status.message)


async def _preset(replica: Process, name: str) -> PresetView:
    request = api.GetPresetRequest(preset=name)
    return (await dial.ask(_stub(replica).GetPreset, request, deadline=_DEADLINE)).preset


def _stub(replica: Process) -> OrchestratorServiceStub:
    return OrchestratorServiceStub(replica.channel)


def _is_unhurt(replica: Process, life: Life) -> bool:
    return replica.life is life and life.is_live
