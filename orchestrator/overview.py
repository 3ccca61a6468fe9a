"""Every preset as it can be shown by this replica: its own from the board, others' from the store.

Removed presets whose record is in the store are shown as removed, with the VMs they had. Called by
the servicer; asks no cloud.
"""

from __future__ import annotations

import asyncio
import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from vmshepherd.orchestrator.v1 import record_pb2, view_pb2
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import NotFound, Refused, ShepherdError, Unavailable

from . import records, views
from .authority import lock_name
from .board import Board, Phase
from .clients.presets import Presets
from .clients.runtime import Runtime
from .model import PresetName

_PREFIX = lock_name(PresetName(""))
# Presets that vanish while this replica runs are known at once; older ones are looked up.
ORPHANS_FRESH_FOR = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Overview:
    """A preset and its VMs, as clients see them."""

    preset: view_pb2.PresetView
    vms: Sequence[view_pb2.VmView]


class Overviews:
    """Reads overviews for the admin API."""

    def __init__(self, *, presets: Presets, board: Board, runtime: Runtime, clock: Clock) -> None:
        self._presets = presets
        self._board = board
        self._runtime = runtime
        self._clock = clock
        self._orphans: dict[PresetName, record_pb2.PresetRecord] = {}
        self._orphans_until = timedelta(0)

    async def all(self) -> list[Overview]:
        """Every preset that is declared, or was and has VMs still, in order of names."""
        names = self._presets.names()
        found = {name: shown for name in names if (shown := self._here(name))}
        missing = [name for name in names if name not in found]
        others = await asyncio.gather(*(self._elsewhere(name) for name in missing))
        found |= dict(zip(missing, others, strict=True))
        for name, record in (await self._undeclared()).items():
            found.setdefault(name, self._from_record(name, record))
        for name in self._presets.removed():
            found.setdefault(name, self._gone(name))
        return [found[name] for name in sorted(found) if not _is_over(found[name])]

    async def get(self, name: str) -> Overview:
        """One preset.  NotFound, naming the nearest known; Unavailable before all are known."""
        preset = PresetName(name)
        here = self._here(preset)
        if here is not None:
            return here
        if self._presets.get(preset) is not None:
            return await self._elsewhere(preset)
        if preset in self._presets.removed():
            return self._gone(preset)
        state = await self._runtime.get_state(lock_name(preset))
        if state is None:
            raise self.unknown(name)
        return self._from_record(preset, _record(state.value))

    def unknown(self, name: str) -> ShepherdError:
        """The error for a preset that nobody declares, as far as can be told."""
        if not self._presets.is_synced:
            return Unavailable(f"no preset {name!r} so far: not every source has been read yet")
        near = difflib.get_close_matches(name, self._presets.names(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return NotFound(f"no source declares a preset {name!r}{hint}", preset=name)

    def _here(self, name: PresetName) -> Overview | None:
        shown = self._board.get(name)
        if shown is None or shown.phase is Phase.ELSEWHERE:
            return None
        declared = self._presets.get(name)
        return Overview(
            views.preset_view(name, declared, shown), views.vm_views(name, declared, shown)
        )

    async def _elsewhere(self, name: PresetName) -> Overview:
        """A declared preset that this replica does not hold."""
        state = await self._runtime.get_state(lock_name(name))
        if state is None:
            return Overview(views.preset_view(name, self._presets.get(name), None), [])
        return self._from_record(name, _record(state.value))

    async def _undeclared(self) -> dict[PresetName, record_pb2.PresetRecord]:
        """Records of presets that no source declares; looked up once in a while."""
        now = self._clock.elapsed()
        if now >= self._orphans_until and self._presets.is_synced:
            self._orphans = {
                name: _record(state.value)
                for state in await self._runtime.states(_PREFIX)
                if self._presets.get(name := PresetName(state.name.removeprefix(_PREFIX))) is None
            }
            self._orphans_until = now + ORPHANS_FRESH_FOR
        return {
            name: record
            for name, record in self._orphans.items()
            if self._presets.get(name) is None
        }

    def _from_record(self, name: PresetName, record: record_pb2.PresetRecord) -> Overview:
        declared = self._presets.get(name)
        if declared is None and self._presets.is_synced:
            return self._removed(name, record)
        view = record.view if record.HasField("view") else view_pb2.PresetView(name=name)
        if declared is not None:
            # Written when the preset changed last; its text is known here, and may be newer.
            views.declare(view, declared)
        return Overview(view, list(record.vm_views))

    def _gone(self, name: PresetName) -> Overview:
        return self._here(name) or self._removed(name, record_pb2.PresetRecord())

    def _removed(self, name: PresetName, record: record_pb2.PresetRecord) -> Overview:
        condition = view_pb2.Condition(
            code="PRESET_REMOVED",
            message="removed from its source: its VMs run on unmanaged, shown as last seen",
        )
        statuses = [view_pb2.VmStatus.Name(vm.status) for vm in record.vm_views]
        view = view_pb2.PresetView(
            name=name,
            phase=view_pb2.PRESET_PHASE_REMOVED,
            conditions=[condition],
            vms_by_status=Counter(each.removeprefix("VM_STATUS_") for each in statuses),
            open_intents=len(record.intents),
        )
        return Overview(view, list(record.vm_views))


def _is_over(shown: Overview) -> bool:
    """Whether it is a removed preset of which nothing is left that anybody could look after."""
    is_removed = shown.preset.phase == view_pb2.PRESET_PHASE_REMOVED
    return is_removed and not shown.vms and not shown.preset.open_intents


def _record(value: bytes) -> record_pb2.PresetRecord:
    try:
        return records.preset_record(value)
    except Refused:
        return record_pb2.PresetRecord()
