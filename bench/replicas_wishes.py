"""What people wish for while everything breaks, for bench/replicas.py: they pause, terminate,
approve, and edit presets, through whichever replica lives.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from bench.replicas_errands import Disturbed, Errands
from bench.replicas_readers import DEADLINE
from bench.replicas_watch import Cloud
from vmshepherd.iaas.v1.vm_pb2 import VmState
from vmshepherd.orchestrator.v1 import orchestrator_service_pb2 as api
from vmshepherd.orchestrator.v1.orchestrator_service_pb2_grpc import OrchestratorServiceStub
from vmshepherd.orchestrator.v1.view_pb2 import PresetPhase, PresetView
from vmshepherd_kit import dial
from vmshepherd_kit.errors import Unavailable

TEXT: Final = "count: {count}\nflavor: small\nimage: any\nhealthcheck: {{driver: dummy}}\n"

_ACTOR: Final = "bench"
_PAUSED: Final = PresetPhase.PRESET_PHASE_PAUSED
_RUNNING: Final = VmState.VM_STATE_RUNNING
# A count that changes by more than this, or by more than half, rounded up, needs a person.
_FREE: Final = 5
_LARGEST: Final = 25


class Wishes:
    """One person who wishes for one thing after the other."""

    def __init__(
        self,
        errands: Errands,
        cloud: Cloud,
        *,
        counts: dict[str, int],
        folder: Path,
        chance: random.Random,
    ) -> None:
        """`counts` is changed with the files in the folder."""
        self._errands = errands
        self._cloud = cloud
        self._counts = counts
        self._folder = folder
        self._chance = chance
        self._is_over = False
        self.disturbed: Counter[str] = Counter()

    async def work(self, every: float) -> None:
        """Wish for something at a random replica, until it is enough."""
        wishes: Sequence[Callable[[str], Awaitable[None]]] = [
            self._pause,
            self._terminate,
            self._approve,
            self._grow,
        ]
        while not self._is_over:
            await asyncio.sleep(every)
            calm = [name for name in self._counts if self._errands.is_calm(name)]
            if calm:
                wish, preset = self._chance.choice(wishes), self._chance.choice(calm)
                try:
                    await wish(preset)
                except Disturbed:
                    self.disturbed[wish.__name__[1:]] += 1

    def end(self) -> None:
        """Begin nothing any more; what is begun comes to its end."""
        self._is_over = True

    def declare(self, preset: str, count: int) -> None:
        """Write a preset's file as an editor does."""
        self._counts[preset] = count
        new = self._folder / f".{preset}.new"
        new.write_text(TEXT.format(count=count))
        new.replace(self._folder / f"{preset}.yaml")

    async def _pause(self, preset: str) -> None:
        request = api.PausePresetRequest(preset=preset, actor=_ACTOR, reason="to see how soon")
        back = api.ResumePresetRequest(preset=preset, actor=_ACTOR)
        try:
            await self._errands.measured(
                "pause",
                preset,
                lambda stub: dial.ask(stub.PausePreset, request, deadline=DEADLINE),
                lambda: self._errands.at_holder(preset, lambda view: view.phase == _PAUSED),
            )
        finally:
            # One that stays paused would be found at the end.
            await self._errands.insist(
                lambda stub: dial.ask(stub.ResumePreset, back, deadline=DEADLINE)
            )

    async def _terminate(self, preset: str) -> None:
        vms = [vm for vm in self._cloud.vms.values() if vm.marker.preset == preset]
        found = [vm.vm_id for vm in vms if vm.state == _RUNNING]
        if len(found) < self._counts[preset]:
            return
        vm_id = self._chance.choice(found)
        self._cloud.wanted.add(vm_id)
        request = api.TerminateVmRequest(preset=preset, vm_id=vm_id, actor=_ACTOR)

        async def is_gone() -> bool:
            answer = await self._cloud.get(vm_id)
            return answer.status.code != 0 or answer.vm.state != _RUNNING

        await self._errands.measured(
            "terminate",
            preset,
            lambda stub: dial.ask(stub.TerminateVm, request, deadline=DEADLINE),
            is_gone,
        )

    async def _approve(self, preset: str) -> None:
        before = self._counts[preset]
        wanted = before + max(_FREE, (before + 1) // 2) + 1
        if wanted > _LARGEST:
            return
        self.declare(preset, wanted)
        request = api.ReconcilePresetRequest(presets=[preset], approve_count=True, actor=_ACTOR)

        async def is_growing() -> bool:
            return await self._number(preset) > before

        async def ask(stub: OrchestratorServiceStub) -> None:
            answer = await dial.ask(stub.ReconcilePreset, request, deadline=DEADLINE)
            for result in answer.results:
                if result.status.code:
                    raise Unavailable(result.status.message)

        try:
            await self._errands.until(preset, lambda: self._errands.at_holder(preset, _asks))
            await self._errands.measured("approve", preset, ask, is_growing)
        except Disturbed:
            # A count that nobody approves would stay open.
            while not await is_growing():
                await self._errands.insist(ask)
                await asyncio.sleep(1)
            raise

    async def _number(self, preset: str) -> int:
        return sum(vm.marker.preset == preset for vm in await self._cloud.listed())

    async def _grow(self, preset: str) -> None:
        if self._counts[preset] < _LARGEST:
            self.declare(preset, self._counts[preset] + 1)


def _asks(view: PresetView) -> bool:
    return any(each.code == "COUNT_NEEDS_APPROVAL" for each in view.conditions)
