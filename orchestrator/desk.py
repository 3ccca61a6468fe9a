"""What people asked of a preset: written by any replica, read by the holder in each cycle.

Every write happens under a lock of its own (`operator/NAME`), held for that write alone, so that
two people at two replicas do not overwrite each other. Called by the servicer and the cycle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context
from datetime import timedelta
from weakref import WeakValueDictionary

from vmshepherd.orchestrator.v1 import record_pb2
from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import SessionLost, ShepherdError, Unavailable, VersionMismatch

from . import records
from .authority import Authority
from .clients.runtime import Held, Lock, Runtime, Wish, Write
from .model import PresetName, VmId, Wishes

ATTEMPTS = 20
PATIENCE = timedelta(milliseconds=50)

Change = Callable[[record_pb2.OperatorRecord], None]

_log = log.get("desk")


class Desk:
    """The wishes of all presets."""

    def __init__(self, runtime: Runtime, authority: Authority, *, clock: Clock) -> None:
        self._runtime = runtime
        self._authority = authority
        self._clock = clock
        # The lock in the store is the session's: callers within this replica are kept apart here.
        self._turns: WeakValueDictionary[PresetName, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[record_pb2.OperatorRecord]] = set()

    async def wishes(self, preset: PresetName) -> Wishes:
        """What is wished for now."""
        return records.wishes_of(await self.read(preset))

    async def read(self, preset: PresetName) -> record_pb2.OperatorRecord:
        """The record as it stands; an empty one when there is none."""
        state = await self._runtime.get_small_state(_name(preset))
        return records.operator_record(state.value if state else b"")

    async def change(self, preset: PresetName, change: Change) -> record_pb2.OperatorRecord:
        """Apply a change; the record after it.

        VersionMismatch when others keep writing; Unavailable while this replica has no session.
        """
        # To its end, however early its caller goes: the lock would stay taken.
        task = asyncio.get_running_loop().create_task(
            self._change(preset, change), context=Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    async def _change(self, preset: PresetName, change: Change) -> record_pb2.OperatorRecord:
        async with self._turns.setdefault(preset, asyncio.Lock()):
            other: Held | None = None
            for _ in range(ATTEMPTS):
                try:
                    done = await self._attempt(preset, change)
                except SessionLost as e:
                    raise Unavailable(f"this replica cannot write at present: {e.message}") from e
                if not isinstance(done, Held):
                    return done
                other = done
                await self._clock.sleep(PATIENCE)
        raise _taken(preset, other)

    async def _attempt(
        self, preset: PresetName, change: Change
    ) -> record_pb2.OperatorRecord | Held:
        """The record as written, or who writes it now."""
        self._authority.remaining()
        session_id = self._authority.session_id
        token = await self._runtime.try_lock(Wish(session_id, _name(preset), 0))
        if isinstance(token, Held):
            return token
        try:
            return await self._write(preset, change, session_id, token)
        finally:
            await self._free(preset, session_id, token)

    async def _free(self, preset: PresetName, session_id: str, token: int) -> None:
        try:
            await self._runtime.unlock(Lock(session_id, _name(preset), token))
        except ShepherdError as e:
            # What was written is written; the lock is freed by the next change, or by the session.
            _log.warning("lock of wishes was not freed", preset=preset, error=e.message)

    async def forget(
        self, preset: PresetName, done: Iterable[VmId], *, gone: Iterable[VmId] = ()
    ) -> None:
        """Strike terminations that are done with, and protections of VMs that are gone."""
        answered, vanished = set(done), set(gone)

        def strike(record: record_pb2.OperatorRecord) -> None:
            wanted = [wish for wish in record.terminations if wish.vm_id not in answered]
            kept = [each for each in record.protections if each.vm_id not in vanished]
            del record.terminations[:], record.protections[:]
            record.terminations.extend(wanted)
            record.protections.extend(kept)

        await self.change(preset, strike)

    async def strike_approval(self, preset: PresetName, count: int | None = None) -> None:
        """Let a count that was approved before count no more; one of another count stays."""

        def strike(record: record_pb2.OperatorRecord) -> None:
            if count is None or record.approved_count == count:
                record.ClearField("approved_count")

        if (await self.read(preset)).HasField("approved_count"):
            await self.change(preset, strike)

    async def clear(self, preset: PresetName) -> None:
        """Wish nothing more of a preset that is over: the next of its name is another one.

        How often it was resumed stays: a count that went back would be taken for a lost one.
        """

        def forget(record: record_pb2.OperatorRecord) -> None:
            resumes = record.resumes
            record.Clear()
            record.resumes = resumes

        found = await self.read(preset)
        if found.ListFields():
            await self.change(preset, forget)

    async def _write(
        self, preset: PresetName, change: Change, session_id: str, token: int
    ) -> record_pb2.OperatorRecord:
        state = await self._runtime.get_state(_name(preset))
        record = records.operator_record(state.value if state else b"")
        change(record)
        record.schema_version = records.SCHEMA_VERSION
        await self._runtime.put_state(
            Write(
                session_id=session_id,
                name=_name(preset),
                value=record.SerializeToString(deterministic=True),
                fencing_token=token,
                expected_version=state.version if state else 0,
            )
        )
        return record


def _name(preset: PresetName) -> str:
    return f"operator/{preset}"


def _taken(preset: PresetName, other: Held | None) -> VersionMismatch:
    """Others write quickly, unless one died doing so: then its lock ends with its session."""
    who, left = (other.owner, other.remaining) if other else ("others", timedelta(0))
    return VersionMismatch(
        f"the wishes of preset {preset} are being written by {who}: try again; if that replica has "
        f"died, in {max(1, round(left.total_seconds()))} s at the latest"
    )
