"""The driver `sqlite`: the port, each method one job of the writer."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from typing import ClassVar, Final, Self, TypeVar

from pydantic import Field

from runtime_service import rules
from runtime_service.bell import Bell
from runtime_service.domain import (
    Event,
    EventPage,
    EventQuery,
    Grant,
    HeldLock,
    Lock,
    LockWish,
    NewSession,
    Page,
    Session,
    SessionId,
    State,
    StateWrite,
    WriteOutcome,
    Written,
    first,
    first_fitting,
    refuse_too_large,
)
from runtime_service.port import NOTHING_NEW, Trait
from runtime_service.rules import SessionRecord
from vmshepherd_kit import log
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.settings import Settings

from . import file
from .tables import Tables
from .writer import Writer, writing

T = TypeVar("T")

_FILE: Final = "runtime.sqlite"

_log = log.get("runtime")


class SqliteOptions(Settings):
    """What may be set of it; the path is `runtime.sqlite` in the suite's state directory."""

    path: Path | None = None
    max_events: int = Field(default=100_000, ge=1, le=100_000_000)


class SqliteRuntime:
    """A store in one file, used by one process at a time."""

    Options: ClassVar[type[Settings]] = SqliteOptions
    traits = frozenset({Trait.DURABLE, Trait.EXCLUSIVE})

    def __init__(self, writer: Writer, options: SqliteOptions, clock: Clock) -> None:
        self._writer = writer
        self._options = options
        self._clock = clock
        self._bell = Bell(0)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, options: SqliteOptions, *, suite: Suite, clock: Clock
    ) -> AsyncIterator[Self]:
        """The store in its file, which is made if it is not there.

        Refused when another process has it, when it lies on a network, or when it is of a newer
        schema.  In a suite of one process, all former sessions are known to be dead: they end.
        """
        path = suite.base_dir / options.path if options.path else suite.state_dir / _FILE
        with file.ours_alone(path):
            async with writing(path) as writer:
                store = cls(writer, options, clock)
                await store._begin(is_alone=suite.embedded)
                yield store

    async def _begin(self, *, is_alone: bool) -> None:
        ended, newest = await self._write(lambda tables: self._resume(tables, is_alone=is_alone))
        if ended:
            _log.info("former sessions ended", sessions=ended)
        self._bell.ring(newest)

    def _resume(self, tables: Tables, *, is_alone: bool) -> tuple[int, int]:
        tables.begin(file.this_boot(), self._now())
        ended = tables.end_all_sessions() if is_alone else 0
        return ended, tables.newest()

    # Sessions and locks

    async def open_session(self, new: NewSession) -> Session:
        """See the port."""

        def work(tables: Tables) -> Session:
            now = self._now()
            tables.forget_sessions(now)
            return tables.add_session(new, now).seen(now)

        return await self._write(work)

    async def refresh_session(
        self, session_id: SessionId, labels: Mapping[str, str] = NOTHING_NEW
    ) -> Session:
        """See the port."""

        def work(tables: Tables) -> Session:
            now = self._now()
            session = _live(tables, session_id, now).refreshed(now, labels)
            tables.keep_session(session)
            return session.seen(now)

        return await self._write(work)

    async def close_session(self, session_id: SessionId) -> bool:
        """See the port."""

        def work(tables: Tables) -> bool:
            session = tables.session(session_id)
            if session is None or not session.is_live(self._now()):
                return False
            tables.forget_session(session_id)
            return True

        return await self._write(work)

    async def list_sessions(self, *, after: int, limit: int) -> Page[Session]:
        """See the port."""

        def work(tables: Tables) -> Page[Session]:
            now = self._now()
            live = (s.seen(now) for s in tables.sessions_after(after) if s.is_live(now))
            return first(live, limit)

        return await self._read(work)

    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]:
        """See the port."""

        def work(tables: Tables) -> list[Grant]:
            now = self._now()
            session = _live(tables, session_id, now)
            locks = tables.locks(wish.name for wish in wishes)
            sessions = tables.holders(locks.values())
            grants, changed = rules.grant(wishes, session, locks=locks, sessions=sessions, now=now)
            tables.keep_locks(changed)
            return grants

        return await self._write(work)

    async def unlock(self, session_id: SessionId, locks: Sequence[HeldLock]) -> list[bool]:
        """See the port."""

        def work(tables: Tables) -> list[bool]:
            session = tables.session(session_id)
            if session is None or not session.is_live(self._now()):
                return [False] * len(locks)
            stored = tables.locks(lock.name for lock in locks)
            released, changed = rules.give_back(locks, session, locks=stored)
            tables.keep_locks(changed)
            return released

        return await self._write(work)

    async def list_locks(self, *, after: str, limit: int) -> Page[Lock]:
        """See the port."""

        def work(tables: Tables) -> Page[Lock]:
            now = self._now()
            locks = tables.locks_after(after, limit + 1)
            sessions = tables.holders(locks.values())
            return first((k.seen(name, now, sessions) for name, k in locks.items()), limit)

        return await self._read(work)

    # States

    async def get_states(self, names: Sequence[str]) -> list[State | None]:
        """See the port."""

        def work(tables: Tables) -> list[State | None]:
            refuse_too_large(tables.size_of_states(names))
            states = tables.states(names)
            answer = [states.get(name) for name in names]
            # A name may stand there many times.
            refuse_too_large(sum(state.size for state in answer if state))
            return answer

        return await self._read(work)

    async def list_states(self, *, prefix: str, after: str, limit: int) -> Page[State]:
        """See the port."""

        def work(tables: Tables) -> Page[State]:
            found = tables.states_from(max(prefix, after))
            ours = takewhile(lambda state: state.name.startswith(prefix), found)
            return first_fitting((state for state in ours if state.name != after), limit)

        return await self._read(work)

    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]:
        """See the port."""

        def work(tables: Tables) -> list[WriteOutcome]:
            session = _live(tables, session_id, self._now())
            names = [write.name for write in writes]
            outcomes = rules.judge_writes(
                writes, session, locks=tables.locks(names), versions=tables.versions(names)
            )
            judged = zip(writes, outcomes, strict=True)
            written = [(w, o.version) for w, o in judged if isinstance(o, Written)]
            tables.keep_states(written, self._clock.wall())
            return outcomes

        return await self._write(work)

    # Journal

    async def append_events(self, events: Sequence[Event]) -> list[int]:
        """See the port."""

        def work(tables: Tables) -> list[int]:
            sequences = [tables.append(event) for event in events]
            tables.trim(self._options.max_events)
            return sequences

        return await self._write(
            work, then=lambda sequences: self._bell.ring(max(sequences, default=0))
        )

    async def read_events(self, query: EventQuery) -> EventPage:
        """See the port."""

        def work(tables: Tables) -> EventPage:
            page = first_fitting(tables.events(query), query.limit)
            return EventPage(
                events=page.items,
                more=page.more,
                forgotten=tables.forgotten(),
                newest=tables.newest(),
            )

        return await self._read(work)

    async def grown_beyond(self, sequence: int) -> None:
        """See the port."""
        await self._bell.grown_beyond(sequence)

    # What it is made of

    def _now(self) -> timedelta:
        return self._clock.elapsed()

    async def _read(self, work: Callable[[Tables], T]) -> T:
        return await self._writer.read(_on_tables(work))

    async def _write(
        self, work: Callable[[Tables], T], *, then: Callable[[T], None] | None = None
    ) -> T:
        if then is None:
            return await self._writer.write(_on_tables(work))
        return await self._writer.write(_on_tables(work), then=then)


def _on_tables(work: Callable[[Tables], T]) -> Callable[[sqlite3.Connection], T]:
    return lambda db: work(Tables(db))


def _live(tables: Tables, session_id: SessionId, now: timedelta) -> SessionRecord:
    return rules.live(tables.session(session_id), now)
