"""The driver `postgres`: the port, each method one statement of the database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Self

from runtime_service.bell import Bell
from runtime_service.domain import (
    ANSWER_BYTES,
    PAGE_BYTES,
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
    first,
    first_fitting,
    refuse_too_large,
)
from runtime_service.port import NOTHING_NEW, Trait
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import SessionLost
from vmshepherd_kit.settings import Settings

from . import failures, queries
from .database import Database
from .listener import Listener
from .options import PostgresOptions
from .schema import within


class PostgresRuntime:
    """A store in one database, used by any number of processes."""

    Options: ClassVar[type[Settings]] = PostgresOptions
    traits = frozenset({Trait.DURABLE})

    def __init__(self, database: Database, options: PostgresOptions, bell: Bell) -> None:
        self._database = database
        self._options = options
        self._bell = bell

    @classmethod
    @asynccontextmanager
    async def open(
        cls, options: PostgresOptions, *, suite: Suite, clock: Clock
    ) -> AsyncIterator[Self]:
        """The store in its database, whose tables are made if they are not there.

        A database that is away is waited for while calls are Unavailable.  Refused when it will
        not have us as it is set up, when it may lose what it confirms, or when it is too new.
        """
        database, bell = Database(options, suite.base_dir), Bell(0)
        async with database.opened():
            await database.introduce()
            listening = asyncio.create_task(Listener(database, bell, clock).listen())
            try:
                yield cls(database, options, bell)
            finally:
                listening.cancel()
                await asyncio.wait([listening])

    # Sessions and locks

    async def open_session(self, new: NewSession) -> Session:
        """See the port."""
        labels = queries.facts(new.labels)
        values = (new.session_id, new.owner, new.ttl, new.lock_delay, labels)
        [row] = await self._ask(queries.OPEN_SESSION, *values)
        return queries.session(row)

    async def refresh_session(
        self, session_id: SessionId, labels: Mapping[str, str] = NOTHING_NEW
    ) -> Session:
        """See the port."""
        facts = queries.facts(labels) if labels else None
        rows = await self._ask(queries.REFRESH_SESSION, session_id, facts)
        if not rows:
            raise SessionLost(failures.LOST)
        return queries.session(rows[0])

    async def close_session(self, session_id: SessionId) -> bool:
        """See the port."""
        [row] = await self._ask(queries.CLOSE_SESSION, session_id)
        return bool(row["existed"])

    async def list_sessions(self, *, after: int, limit: int) -> Page[Session]:
        """See the port."""
        rows = await self._ask(queries.LIST_SESSIONS, after, limit + 1)
        return first(map(queries.session, rows), limit)

    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]:
        """See the port.  A name that is wished for twice is granted once, above both floors."""
        floors: dict[str, int] = {}
        for wish in wishes:
            floors[wish.name] = max(wish.floor, floors.get(wish.name, 0))
        rows = await self._ask(queries.TRY_LOCK, session_id, list(floors), list(floors.values()))
        grants = dict(zip(floors, map(queries.grant, rows), strict=True))
        return [grants[wish.name] for wish in wishes]

    async def unlock(self, session_id: SessionId, locks: Sequence[HeldLock]) -> list[bool]:
        """See the port.  Of a lock that is named twice, the first is the one that was held."""
        wanted = list(dict.fromkeys(locks))
        names, tokens = [lock.name for lock in wanted], [lock.fencing_token for lock in wanted]
        rows = await self._ask(queries.UNLOCK, session_id, names, tokens)
        freed = {(row["name"], row["token"]) for row in rows}
        released = []
        for lock in locks:
            released.append((lock.name, lock.fencing_token) in freed)
            freed.discard((lock.name, lock.fencing_token))
        return released

    async def list_locks(self, *, after: str, limit: int) -> Page[Lock]:
        """See the port."""
        rows = await self._ask(queries.LIST_LOCKS, after, limit + 1)
        return first(map(queries.lock, rows), limit)

    # States

    async def get_states(self, names: Sequence[str]) -> list[State | None]:
        """See the port."""
        rows = await self._ask(queries.GET_STATES, list(names), ANSWER_BYTES)
        refuse_too_large(max((row["size"] or 0 for row in rows), default=0))
        return [queries.state(row) if row["name"] is not None else None for row in rows]

    async def list_states(self, *, prefix: str, after: str, limit: int) -> Page[State]:
        """See the port."""
        # No name holds a NUL, and no statement takes one.
        if "\0" in prefix:
            return Page((), more=False)
        rows = await self._ask(queries.LIST_STATES, prefix, after, limit + 1, PAGE_BYTES)
        return first_fitting(map(queries.state, rows), limit)

    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]:
        """See the port."""
        rows = await self._ask(
            queries.PUT_STATES,
            session_id,
            [write.name for write in writes],
            [write.value for write in writes],
            [write.fencing_token for write in writes],
            [write.expected_version for write in writes],
        )
        return list(map(queries.outcome, writes, rows))

    # Journal

    async def append_events(self, events: Sequence[Event]) -> list[int]:
        """See the port."""
        columns = queries.columns_of(events)
        rows = await self._ask(queries.APPEND_EVENTS, *columns, self._options.max_events)
        return [row["sequence"] for row in rows]

    async def read_events(self, query: EventQuery) -> EventPage:
        """See the port."""
        statement, values = queries.read_events(query)
        rows = await self._ask(statement, query.limit + 1, PAGE_BYTES, *values)
        page = first_fitting(queries.events(rows), query.limit)
        return EventPage(
            events=page.items,
            more=page.more,
            forgotten=rows[0]["forgotten"],
            newest=rows[0]["newest"],
        )

    async def grown_beyond(self, sequence: int) -> None:
        """See the port."""
        await self._bell.grown_beyond(sequence)

    async def _ask(self, statement: str, *values: Any) -> list[queries.Row]:
        return await self._database.fetch(within(self._database.schema, statement), *values)
