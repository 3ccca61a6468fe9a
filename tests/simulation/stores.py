"""The stores behind runtime_service, as they survive it: memory with a lagging copy, and SQLite.

The memory store stands for a database of its own, which several runtime services share and which
may fail over to a copy that lacks the last writes. SQLite is the real driver on a real file; only
its thread is none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from runtime_service.bell import Bell
from runtime_service.domain import Event, Grant, LockWish, SessionId, StateWrite, WriteOutcome
from runtime_service.drivers.memory import MemoryOptions, MemoryRuntime
from runtime_service.drivers.sqlite import file
from runtime_service.drivers.sqlite.store import SqliteOptions, SqliteRuntime
from runtime_service.drivers.sqlite.writer import Writer
from runtime_service.port import NOTHING_NEW, RuntimeStore
from vmshepherd_kit.clock import Clock

# How many writes a copy may be behind.
BEHIND = 40


class SharedMemory(MemoryRuntime):
    """The memory store, with a past that it can fall back to."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(MemoryOptions(), clock)
        self._past: deque[tuple[Any, ...]] = deque(maxlen=BEHIND)
        self.bells: list[Bell] = []

    def fail_over(self, lost: int) -> int:
        """Go on with a copy that lacks so many writes; how many were lost."""
        lost = min(lost, len(self._past))
        for _ in range(lost):
            self._sessions, self._locks, self._states, self._newest, self._opened = self._past.pop()
        for sequence in [n for n in self._events if n > self._newest]:
            del self._sequences[self._events.pop(sequence).event_id]
        return lost

    async def open_session(self, new: Any) -> Any:
        """See the port."""
        self._remember()
        return await super().open_session(new)

    async def refresh_session(
        self, session_id: SessionId, labels: Mapping[str, str] = NOTHING_NEW
    ) -> Any:
        """See the port."""
        self._remember()
        return await super().refresh_session(session_id, labels)

    async def close_session(self, session_id: SessionId) -> bool:
        """See the port."""
        self._remember()
        return await super().close_session(session_id)

    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]:
        """See the port."""
        self._remember()
        return await super().try_lock(session_id, wishes)

    async def unlock(self, session_id: SessionId, locks: Any) -> list[bool]:
        """See the port."""
        self._remember()
        return await super().unlock(session_id, locks)

    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]:
        """See the port."""
        self._remember()
        return await super().put_states(session_id, writes)

    async def append_events(self, events: Sequence[Event]) -> list[int]:
        """See the port."""
        self._remember()
        sequences = await super().append_events(events)
        for bell in self.bells:
            bell.ring(self._newest)
        return sequences

    def _remember(self) -> None:
        self._past.append(
            (
                dict(self._sessions),
                dict(self._locks),
                dict(self._states),
                self._newest,
                self._opened,
            )
        )


class OverConnection:
    """The shared store as one runtime service has it: its watchers wait in its own process."""

    def __init__(self, store: SharedMemory) -> None:
        self._store = store
        self._bell = Bell(store._newest)
        store.bells.append(self._bell)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def grown_beyond(self, sequence: int) -> None:
        """See the port."""
        await self._bell.grown_beyond(sequence)


class SqliteFile:
    """A database file, and what a killed process leaves of it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "runtime.sqlite"
        self._held = ExitStack()
        self._writer: Writer | None = None

    async def open(self, clock: Clock) -> RuntimeStore:
        """The store, as the driver itself opens it."""
        self._held.enter_context(file.ours_alone(self._path))
        self._writer = Writer(self._path, ThreadPoolExecutor(1))
        await self._writer.open()
        store = SqliteRuntime(self._writer, SqliteOptions(), clock)
        await store._begin(is_alone=False)
        return store

    def drop(self) -> None:
        """The process is gone: the operating system frees what it held."""
        if self._writer:
            self._writer._db.close()
            self._writer = None
        self._held.close()
        self._held = ExitStack()
