"""Which presets their sources do not declare any more although something of them is left, and
whether so many may be meant.

The store is asked at the start and once in a while, so that a replica which never saw them declared
looks after them too. Called by the cycle, the overview and the background; it touches no VM.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from vmshepherd.orchestrator.v1 import record_pb2
from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import Refused, ShepherdError

from . import records
from .authority import lock_name
from .clients.presets import Presets
from .clients.runtime import Runtime
from .model import PresetName
from .schedule import Schedule

# Presets that vanish while this replica runs are known at once; older ones are looked up.
FRESH_FOR = timedelta(minutes=1)
RETRY_AFTER = timedelta(seconds=1)
# So many may always go, however few presets there are.
FREE = 1
_PREFIX = lock_name(PresetName(""))

_log = log.get("removals")


class Removals:
    """The presets that are removed and not over."""

    def __init__(self, *, presets: Presets, runtime: Runtime, clock: Clock) -> None:
        self._presets = presets
        self._runtime = runtime
        self._clock = clock
        self._stored: dict[PresetName, record_pb2.PresetRecord] = {}
        # Removed in this process life, and over, as far as is known.
        self._over: set[PresetName] = set()
        self._until = timedelta(0)

    async def stored(self) -> Mapping[PresetName, record_pb2.PresetRecord]:
        """Records of presets that no source declares and that are not over, a minute old at most.

        Nothing before every source was read: then nobody can tell.
        """
        if self._presets.is_synced and self._clock.elapsed() >= self._until:
            await self._look()
        return {
            name: record
            for name, record in self._stored.items()
            if self._presets.get(name) is None and name not in self._over
        }

    def names(self) -> set[PresetName]:
        """The presets that are removed and not over, as far as is known."""
        known = {*self._stored, *self._presets.removed()} - self._over
        return {name for name in known if self._presets.get(name) is None}

    def end(self, name: PresetName) -> None:
        """Nothing of it is left."""
        self._over.add(name)

    def revive(self, name: PresetName) -> None:
        """It is declared again."""
        self._over.discard(name)
        self._stored.pop(name, None)

    async def why_held_back(self, name: PresetName, percent: int, *, was_held_back: bool) -> str:
        """Why its removal waits for a person, "" when it does not; `percent` of all may go.

        One that was held back goes on waiting when the others are over: they were approved, it was
        not.
        """
        await self.stored()
        removed = len(self.names())
        total = removed + len(self._presets.names())
        limit = f"too many at once to be destroyed unasked (limit: {FREE} and {percent} %)"
        if removed == total:
            why = "no source declares any preset any more: it may be a directory that is not there"
        elif removed > FREE and 100 * removed > percent * total:
            why = f"{removed} of {total} presets are removed: {limit}"
        elif was_held_back:
            why = f"it was removed with others: {limit}"
        else:
            return ""
        return f"{why}. Approve it: vmshepherd preset reconcile {name} --approve-count"

    async def watch(self, schedule: Schedule) -> None:
        """Have them looked at for ever, those too that were removed before this process began."""
        while True:
            pause = FRESH_FOR if self._presets.is_synced else RETRY_AFTER
            try:
                schedule.include(_with_a_will(await self.stored()))
            except ShepherdError as e:
                _log.debug("removed presets cannot be looked up", error=e.message)
                pause = RETRY_AFTER
            await self._clock.sleep(pause)

    async def _look(self) -> None:
        states = await self._runtime.states(_PREFIX)
        self._stored = {
            name: record
            for state in states
            if self._presets.get(name := PresetName(state.name.removeprefix(_PREFIX))) is None
            and not is_over(record := _record(state.value))
        }
        self._over = set(self._presets.removed()) - self._stored.keys()
        self._until = self._clock.elapsed() + FRESH_FOR


def is_over(record: record_pb2.PresetRecord) -> bool:
    """Whether nothing of a preset is left that anybody could look after."""
    return not record.vms and not record.vm_views and not record.intents


def _with_a_will(found: Mapping[PresetName, record_pb2.PresetRecord]) -> Collection[PresetName]:
    """Those of which it is known where their VMs are; an older version left no such word."""
    return [name for name, record in found.items() if record.HasField("will")]


def _record(value: bytes) -> record_pb2.PresetRecord:
    try:
        return records.preset_record(value)
    except Refused:
        return record_pb2.PresetRecord()
