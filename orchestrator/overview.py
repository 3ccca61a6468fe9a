"""Every preset as it can be shown by this replica: its own from the board, others' from the store.

Removed presets whose record is in the store are shown as removed, with the VMs they had. Called by
the servicer; asks no cloud.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vmshepherd.orchestrator.v1 import record_pb2, view_pb2
from vmshepherd_kit.errors import NotFound, Refused

from . import records, views
from .authority import lock_name
from .board import Board, Phase
from .clients.presets import Presets
from .clients.runtime import Runtime
from .model import PresetName

_PREFIX = lock_name(PresetName(""))


@dataclass(frozen=True, slots=True)
class Overview:
    """A preset and its VMs, as clients see them."""

    preset: view_pb2.PresetView
    vms: Sequence[view_pb2.VmView]


class Overviews:
    """Reads overviews for the admin API."""

    def __init__(self, *, presets: Presets, board: Board, runtime: Runtime) -> None:
        self._presets = presets
        self._board = board
        self._runtime = runtime

    async def all(self) -> list[Overview]:
        """Every preset that is declared or was, in order of names."""
        names = self._presets.names()
        found = {name: shown for name in names if (shown := self._here(name))}
        if len(found) < len(names) or self._presets.is_synced:
            found |= await self._elsewhere(names, found)
        for name in self._presets.removed():
            found.setdefault(name, self._gone(name))
        return [found[name] for name in sorted(found)]

    async def get(self, name: str) -> Overview:
        """One preset.  NotFound, naming the nearest known."""
        preset = PresetName(name)
        here = self._here(preset)
        if here is not None:
            return here
        declared = self._presets.get(preset)
        state = await self._runtime.get_state(lock_name(preset))
        if state is not None:
            return self._from_record(preset, _record(state.value))
        if declared is not None:
            return Overview(views.preset_view(preset, declared, None), [])
        if preset in self._presets.removed():
            return self._gone(preset)
        raise self.unknown(name)

    def unknown(self, name: str) -> NotFound:
        """The sentence for a preset that nobody declares."""
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

    async def _elsewhere(
        self, names: Iterable[PresetName], known: Iterable[PresetName]
    ) -> dict[PresetName, Overview]:
        known = set(known)
        found = {
            name: Overview(views.preset_view(name, self._presets.get(name), None), [])
            for name in names
            if name not in known
        }
        for state in await self._runtime.states(_PREFIX):
            name = PresetName(state.name.removeprefix(_PREFIX))
            if name not in known and (name in found or self._presets.is_synced):
                found[name] = self._from_record(name, _record(state.value))
        return found

    def _from_record(self, name: PresetName, record: record_pb2.PresetRecord) -> Overview:
        if self._presets.get(name) is None and self._presets.is_synced:
            return self._removed(name, record.vm_views)
        view = record.view if record.HasField("view") else view_pb2.PresetView(name=name)
        return Overview(view, list(record.vm_views))

    def _gone(self, name: PresetName) -> Overview:
        return self._here(name) or self._removed(name, [])

    def _removed(self, name: PresetName, vms: Iterable[view_pb2.VmView]) -> Overview:
        condition = view_pb2.Condition(
            code="PRESET_REMOVED",
            message="removed from its source: its VMs run on, unmanaged; they are shown as last seen",
        )
        view = view_pb2.PresetView(
            name=name, phase=view_pb2.PRESET_PHASE_REMOVED, conditions=[condition]
        )
        return Overview(view, list(vms))


def _record(value: bytes) -> record_pb2.PresetRecord:
    try:
        return records.preset_record(value)
    except Refused:
        return record_pb2.PresetRecord()
