"""What is remembered of each preset, in the runtime store and in a copy of this holder's.

Only the holder of a preset's lock writes its record, so the copy is true for as long as the token
is the same; under a new token, or once the clock was set, its timers start anew: all but the
grace of a removed preset, of which what was waited is counted and written. Nothing is written that
has not changed. What a store that failed over has forgotten is still known from the copy, and is
written again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from vmshepherd.orchestrator.v1 import record_pb2, view_pb2
from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import SessionLost, ShepherdError
from vmshepherd_kit.stamps import from_duration, to_duration, to_timestamp

from . import records
from .authority import Authority, lock_name
from .clients.runtime import Runtime, Write
from .model import Memory, PresetName
from .recall import restarted

# A state takes 1 MiB. Views are for people at other replicas; memory is what must not be lost.
LARGEST = 1_000_000
# Between two looks a clock that is only kept true by small steps moves less than this.
CLOCK_DRIFT = timedelta(seconds=10)

_log = log.get("archive")

Views = Callable[[], tuple[view_pb2.PresetView, list[view_pb2.VmView]]]


@dataclass(frozen=True, slots=True)
class Legacy:
    """What outlasts a preset's declaration: its last will, and how its removal stands."""

    will: record_pb2.Will | None = None
    removed: datetime | None = None
    # Once held back, it waits for a person, although the others may be over by then.
    is_held_back: bool = False
    # How much of the grace was waited, and when that was counted here, by a clock that only runs:
    # neither a date that is set nor another holder's ends it.
    waited: timedelta = timedelta(0)
    counted_at: timedelta | None = field(default=None, compare=False)


@dataclass(slots=True)
class _Copy:
    fencing_token: int
    version: int
    memory: Memory
    # As which version it was surely written: above `version` while the store has forgotten that.
    newest: int
    # What the date was when the clock that only runs stood at nothing: it moves when one is set.
    clock_set_to: datetime
    legacy: Legacy = field(default_factory=Legacy)
    written_legacy: Legacy = field(default_factory=Legacy)
    shown: object = None
    # As they are in the store: whoever reads it sees VMs between two writes of views, too.
    view: view_pb2.PresetView | None = None
    vm_views: list[view_pb2.VmView] = field(default_factory=list)


class Archive:
    """Records of the presets that this replica holds."""

    def __init__(self, runtime: Runtime, authority: Authority, *, clock: Clock) -> None:
        self._runtime = runtime
        self._authority = authority
        self._clock = clock
        self._copies: dict[PresetName, _Copy] = {}
        # Of those whose last write got no answer: what was surely written before it.
        self._doubted: dict[PresetName, _Copy] = {}

    async def load(self, preset: PresetName, fencing_token: int) -> Memory:
        """What is remembered.  Refused when a newer version wrote it."""
        known = self._copy(preset, fencing_token)
        if known is not None:
            return self._with_own_times(known)
        state = await self._runtime.get_state(lock_name(preset))
        copy = _Copy(fencing_token, 0, Memory(), 0, self._clock_set_to())
        if state is not None:
            now, record = self._clock.wall(), records.preset_record(state.value)
            copy.version = copy.newest = state.version
            copy.memory = restarted(records.memory_of(record, now=now), now)
            copy.legacy = copy.written_legacy = _legacy(record, now)
            copy.view = record.view if record.HasField("view") else None
            copy.vm_views = list(record.vm_views)
        # Somebody else may have read it meanwhile, and written: then what was read here is old.
        known = self._copy(preset, fencing_token)
        if known is not None:
            return known.memory
        if self._authority.token(preset) == fencing_token:
            copy = self._copies[preset] = self._truer(preset, copy)
        return self._with_own_times(copy)

    async def peek(self, preset: PresetName) -> tuple[Memory, Legacy]:
        """What whoever holds the preset remembers of it; for a dry run.  Refused as by `load`."""
        state = await self._runtime.get_state(lock_name(preset))
        if state is None:
            return Memory(), Legacy()
        now, record = self._clock.wall(), records.preset_record(state.value)
        return records.memory_of(record, now=now), _legacy(record, now)

    def legacy(self, preset: PresetName) -> Legacy:
        """The legacy of a preset that was loaded."""
        copy = self._copies.get(preset)
        return copy.legacy if copy is not None else Legacy()

    def bequeath(self, preset: PresetName, legacy: Legacy) -> None:
        """Have the legacy written with whatever is kept next, even when that has not changed."""
        copy = self._copies.get(preset)
        if copy is not None:
            copy.legacy = legacy

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
        is_shown = views is None or shown == copy.shown
        is_known = copy.version == copy.newest and copy.legacy == copy.written_legacy
        if memory == copy.memory and is_known and is_shown:
            return
        if views is not None:
            copy.view, copy.vm_views = views()
        await self._put(preset, copy, memory)
        copy.shown = shown if views is not None else copy.shown

    async def clear(self, preset: PresetName) -> None:
        """Let nothing be remembered of a preset of which nothing is left."""
        copy = self._copies.get(preset)
        if copy is not None and copy.version:
            copy.legacy, copy.view, copy.vm_views = Legacy(), None, []
            await self._put(preset, copy, Memory())

    def forget(self, preset: PresetName) -> None:
        """Drop the copy: the lock was lost or given up."""
        self._copies.pop(preset, None)
        self._doubted.pop(preset, None)

    def forget_all(self) -> None:
        """Drop every copy: the session was lost."""
        self._copies.clear()
        self._doubted.clear()

    def _truer(self, preset: PresetName, read: _Copy) -> _Copy:
        """What was read, or what this holder wrote under the same token, if the store does not know
        of it any more: it failed over to a copy that lacked the last writes.
        """
        known = self._doubted.pop(preset, None)
        if known is None or known.fencing_token != read.fencing_token:
            return read
        if known.newest <= read.version:
            return read
        _log.warning("the store has forgotten what was written", preset=preset)
        known.version = read.version
        return known

    def _with_own_times(self, copy: _Copy) -> Memory:
        """The memory of a copy. Its timers start anew when the clock was set meanwhile: an hour
        that nobody waited must not end a grace, nor condemn a VM that boots.
        """
        set_to = self._clock_set_to()
        if abs(set_to - copy.clock_set_to) > CLOCK_DRIFT:
            _log.warning("the clock was set: timers start anew", by=str(set_to - copy.clock_set_to))
            copy.memory = restarted(copy.memory, self._clock.wall())
        copy.clock_set_to = set_to
        return copy.memory

    def _clock_set_to(self) -> datetime:
        return self._clock.wall() - self._clock.elapsed()

    def _copy(self, preset: PresetName, fencing_token: int) -> _Copy | None:
        copy = self._copies.get(preset)
        return copy if copy is not None and copy.fencing_token == fencing_token else None

    async def _put(self, preset: PresetName, copy: _Copy, memory: Memory) -> None:
        record, legacy = _record(copy, memory), copy.legacy
        try:
            version = await self._runtime.put_state(self._write(preset, copy, record))
        except ShepherdError:
            # Written or not: read it again before the next decision.
            self._doubted[preset] = self._copies.pop(preset, copy)
            raise
        copy.version = copy.newest = version
        copy.memory, copy.written_legacy = memory, legacy

    def _write(self, preset: PresetName, copy: _Copy, record: record_pb2.PresetRecord) -> Write:
        self._authority.remaining()
        return Write(
            session_id=self._authority.session_id,
            name=lock_name(preset),
            value=record.SerializeToString(deterministic=True),
            fencing_token=copy.fencing_token,
            expected_version=copy.version,
        )


def _record(copy: _Copy, memory: Memory) -> record_pb2.PresetRecord:
    record = records.memory_record(memory, fencing_token=copy.fencing_token)
    if copy.legacy.will is not None:
        record.will.CopyFrom(copy.legacy.will)
    if copy.legacy.removed is not None:
        record.removed_time.CopyFrom(to_timestamp(copy.legacy.removed))
    record.removal_held_back = copy.legacy.is_held_back
    if copy.legacy.waited:
        record.removal_waited.CopyFrom(to_duration(copy.legacy.waited))
    if copy.view is not None:
        record.view.CopyFrom(copy.view)
    record.vm_views.extend(copy.vm_views)
    if record.ByteSize() > LARGEST:
        del record.vm_views[:]
    return record


def _legacy(record: record_pb2.PresetRecord, now: datetime) -> Legacy:
    """The legacy in a record; one from a clock ahead of ours began now."""
    since = records.removed_since(record)
    return Legacy(
        will=record.will if record.HasField("will") else None,
        removed=min(since, now) if since is not None else None,
        is_held_back=record.removal_held_back,
        waited=from_duration(record.removal_waited),
    )
