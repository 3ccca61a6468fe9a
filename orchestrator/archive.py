"""What is remembered of each preset, in the runtime store and in a copy of this holder's.

Only the holder of a preset's lock writes its record, so the copy is true for as long as the token
is the same; under a new token the record is read again and its timers start anew. Nothing is
written that has not changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vmshepherd.orchestrator.v1 import record_pb2, view_pb2
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import SessionLost, ShepherdError

from . import records
from .authority import Authority, lock_name
from .clients.runtime import Runtime, Write
from .model import Memory, PresetName
from .recall import restarted

Views = Callable[[], tuple[view_pb2.PresetView, list[view_pb2.VmView]]]


@dataclass(slots=True)
class _Copy:
    fencing_token: int
    version: int
    memory: Memory
    shown: object = None


class Archive:
    """Records of the presets that this replica holds."""

    def __init__(self, runtime: Runtime, authority: Authority, *, clock: Clock) -> None:
        self._runtime = runtime
        self._authority = authority
        self._clock = clock
        self._copies: dict[PresetName, _Copy] = {}

    async def load(self, preset: PresetName, fencing_token: int) -> Memory:
        """What is remembered.  Refused when a newer version wrote it."""
        copy = self._copies.get(preset)
        if copy is not None and copy.fencing_token == fencing_token:
            return copy.memory
        state = await self._runtime.get_state(lock_name(preset))
        now, memory, version = self._clock.wall(), Memory(), 0
        if state is not None:
            record = records.preset_record(state.value)
            memory, version = restarted(records.memory_of(record, now=now), now), state.version
        self._copies[preset] = _Copy(fencing_token, version, memory)
        return memory

    async def keep(
        self,
        preset: PresetName,
        memory: Memory,
        *,
        shown: object = None,
        views: Views | None = None,
    ) -> None:
        """Write what changed; `shown` tells whether views did.  StaleFencingToken, SessionLost."""
        copy = self._copies.get(preset)
        if copy is None:
            raise SessionLost(f"preset {preset} is not held any more")
        if memory == copy.memory and (views is None or shown == copy.shown):
            return
        record = records.memory_record(memory, fencing_token=copy.fencing_token)
        if views is not None:
            view, vm_views = views()
            record.view.CopyFrom(view)
            record.vm_views.extend(vm_views)
        try:
            copy.version = await self._runtime.put_state(self._write(preset, copy, record))
        except ShepherdError:
            # Written or not: read it again before the next decision.
            self._copies.pop(preset, None)
            raise
        copy.memory = memory
        copy.shown = shown if views is not None else copy.shown

    def forget(self, preset: PresetName) -> None:
        """Drop the copy: the lock was lost or given up."""
        self._copies.pop(preset, None)

    def forget_all(self) -> None:
        """Drop every copy: the session was lost."""
        self._copies.clear()

    def _write(self, preset: PresetName, copy: _Copy, record: record_pb2.PresetRecord) -> Write:
        self._authority.remaining()
        return Write(
            session_id=self._authority.session_id,
            name=lock_name(preset),
            value=record.SerializeToString(deterministic=True),
            fencing_token=copy.fencing_token,
            expected_version=copy.version,
        )
