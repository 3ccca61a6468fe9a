"""Every preset as it can be shown by this replica: its own from the board, others' from the store.

Removed presets whose record is in the store are shown as removed, with the VMs they had. Called by
the servicer; asks no cloud.
"""

from __future__ import annotations

import asyncio
import difflib
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from vmshepherd.orchestrator.v1 import record_pb2, view_pb2
from vmshepherd_kit.errors import NotFound, OutcomeUnknown, Refused, ShepherdError, Unavailable

from . import records, views
from .authority import lock_name
from .board import Board, Phase
from .clauses import clause_of
from .clients.presets import Presets
from .clients.runtime import Runtime
from .model import PresetName
from .removals import Removals, is_over


@dataclass(frozen=True, slots=True)
class Overview:
    """A preset and its VMs, as clients see them."""

    preset: view_pb2.PresetView
    vms: Sequence[view_pb2.VmView]


class Overviews:
    """Reads overviews for the admin API."""

    def __init__(
        self, *, presets: Presets, board: Board, runtime: Runtime, removals: Removals
    ) -> None:
        self._presets = presets
        self._board = board
        self._runtime = runtime
        self._removals = removals

    async def all(self) -> list[Overview]:
        """Every preset that is declared, or was and has VMs still, in order of names.

        While the store cannot be asked, of those that others hold only that is told.
        """
        with suppress(Unavailable, OutcomeUnknown):
            # Those that were removed before this process began are known by it.
            await self._removals.stored()
        names = {*self._presets.names(), *self._removals.names()}
        found = {name: shown for name in names if (shown := self._here(name))}
        missing = sorted(names - found.keys())
        others = await asyncio.gather(*map(self._elsewhere, missing))
        found |= dict(zip(missing, others, strict=True))
        return [found[name] for name in sorted(found)]

    async def get(self, name: str) -> Overview:
        """One preset.  NotFound, naming the nearest known; Unavailable before all are known."""
        preset = PresetName(name)
        here = self._here(preset)
        if here is not None:
            return here
        if self._presets.get(preset) is not None:
            return await self._elsewhere(preset)
        state = await self._runtime.get_state(lock_name(preset))
        if state is not None and not is_over(record := _record(state.value)):
            return self._from_record(preset, record)
        if preset in self._presets.removed():
            return self._removed(preset, None)
        raise self.unknown(name)

    def unknown(self, name: str) -> ShepherdError:
        """The error for a preset that nobody declares, as far as can be told."""
        if not self._presets.is_synced:
            return Unavailable(f"no preset {name!r} so far: not every source has been read yet")
        known = [*self._presets.names(), *sorted(self._removals.names())]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return NotFound(f"no source declares a preset {name!r}{hint}", preset=name)

    def _here(self, name: PresetName) -> Overview | None:
        shown = self._board.get(name)
        if shown is None or shown.phase is Phase.ELSEWHERE:
            return None
        declared = self._presets.get(name)
        return Overview(views.preset_view(name, declared, shown), views.vm_views(name, shown))

    async def _elsewhere(self, name: PresetName) -> Overview:
        """A preset that this replica does not hold."""
        try:
            state = await self._runtime.get_state(lock_name(name))
        except (Unavailable, OutcomeUnknown) as e:
            return self._out_of_sight(name, e)
        if state is None:
            declared = self._presets.get(name)
            if declared is None:
                return self._removed(name, None)
            return Overview(views.preset_view(name, declared, None), [])
        return self._from_record(name, _record(state.value))

    def _out_of_sight(self, name: PresetName, error: ShepherdError) -> Overview:
        """A preset of another replica, of which nobody can be asked at present."""
        shown, message = self._board.get(name), f"nobody can tell: {error.message}"
        why = view_pb2.Condition(code="STORE_UNREACHABLE", message=message)
        view = view_pb2.PresetView(
            name=name,
            phase=view_pb2.PRESET_PHASE_ELSEWHERE,
            owner=shown.holder if shown else "",
            conditions=[why],
        )
        if declared := self._presets.get(name):
            views.declare(view, declared)
        return Overview(view, [])

    def _from_record(self, name: PresetName, record: record_pb2.PresetRecord) -> Overview:
        declared = self._presets.get(name)
        if declared is None and self._presets.is_synced:
            return self._removed(name, record)
        view = record.view if record.HasField("view") else view_pb2.PresetView(name=name)
        if declared is not None and view.phase == view_pb2.PRESET_PHASE_REMOVED:
            # It came back, and nobody has looked at it yet.
            view = view_pb2.PresetView(name=name, phase=view_pb2.PRESET_PHASE_WAITING)
        if declared is not None:
            # Written when the preset changed last; its text is known here, and may be newer.
            views.declare(view, declared)
        return Overview(view, list(record.vm_views))

    def _removed(self, name: PresetName, record: record_pb2.PresetRecord | None) -> Overview:
        """A removed preset that nobody looks after here: as its record has it."""
        record = record or record_pb2.PresetRecord()
        if record.view.phase == view_pb2.PRESET_PHASE_REMOVED:
            return Overview(record.view, list(record.vm_views))
        condition = view_pb2.Condition(
            code="PRESET_REMOVED",
            message="removed from its source: its VMs run on unmanaged, shown as last seen"
            if record.vm_views
            else "removed from its source, and no VM of it is left as far as is known",
            clause=clause_of("PRESET_REMOVED"),
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


def _record(value: bytes) -> record_pb2.PresetRecord:
    try:
        return records.preset_record(value)
    except Refused:
        return record_pb2.PresetRecord()
