"""A store that forgets: everything is in this process, and gone with it.

For trying things out and for simulations; `sqlite` is what a single machine should use.  Every
method runs to its end without yielding, which makes it atomic.  Tokens and sequences start from the
wall clock's milliseconds, so that the next life of this process never gives out those of a former
one.  Two of them would grant everything twice: a lock file in the state directory refuses a second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import ClassVar, Final, Self

from pydantic import Field

from runtime_service import alone, rules
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
    StoredEvent,
    WriteOutcome,
    Written,
    first,
    first_fitting,
    refuse_too_large,
)
from runtime_service.port import NOTHING_NEW, Trait
from runtime_service.rules import LockRecord, SessionRecord
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.settings import Settings

_LOCK_FILE: Final = "runtime.memory.lock"
_ELSEWHERE: Final = "set state_dir to another folder"


class MemoryOptions(Settings):
    """What may be set of it."""

    max_events: int = Field(default=100_000, ge=1)


class MemoryRuntime:
    """The driver `memory`."""

    Options: ClassVar[type[Settings]] = MemoryOptions
    traits = frozenset({Trait.EXCLUSIVE})

    def __init__(self, options: MemoryOptions, clock: Clock) -> None:
        self._options = options
        self._clock = clock
        self._base = int(clock.wall().timestamp() * 1000)
        self._opened = 0
        self._sessions: dict[SessionId, SessionRecord] = {}
        self._locks: dict[str, LockRecord] = {}
        self._states: dict[str, State] = {}
        self._events: dict[int, Event] = {}
        self._sequences: dict[str, int] = {}
        self._newest = self._base
        self._bell = Bell(self._newest)

    @classmethod
    @asynccontextmanager
    async def open(
        cls, options: MemoryOptions, *, suite: Suite, clock: Clock
    ) -> AsyncIterator[Self]:
        """An empty store, whose tokens are above those of all former lives.

        Refused when another process keeps one for the same state directory.
        """
        store = f"the memory store of {suite.state_dir}"
        lock_file = suite.state_dir / _LOCK_FILE
        with alone.ours_alone(lock_file, store=store, elsewhere=_ELSEWHERE):
            yield cls(options, clock)

    # Sessions and locks

    async def open_session(self, new: NewSession) -> Session:
        """See the port."""
        now = self._now()
        self._forget_sessions(now)
        self._opened += 1
        session = SessionRecord.opening(new, number=self._opened, now=now)
        self._sessions[new.session_id] = session
        return session.seen(now)

    async def refresh_session(
        self, session_id: SessionId, labels: Mapping[str, str] = NOTHING_NEW
    ) -> Session:
        """See the port."""
        now = self._now()
        session = self._live(session_id, now).refreshed(now, labels)
        self._sessions[session_id] = session
        return session.seen(now)

    async def close_session(self, session_id: SessionId) -> bool:
        """See the port."""
        session = self._sessions.get(session_id)
        if session is None or not session.is_live(self._now()):
            return False
        del self._sessions[session_id]
        return True

    async def list_sessions(self, *, after: int, limit: int) -> Page[Session]:
        """See the port."""
        now = self._now()
        live = (session.seen(now) for session in self._sessions.values() if session.is_live(now))
        return first((session for session in live if session.number > after), limit)

    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]:
        """See the port."""
        now = self._now()
        session = self._live(session_id, now)
        grants, changed = rules.grant(
            wishes,
            session,
            locks=self._locks,
            sessions=self._sessions,
            now=now,
            base=self._base,
        )
        self._locks.update(changed)
        return grants

    async def unlock(self, session_id: SessionId, locks: Sequence[HeldLock]) -> list[bool]:
        """See the port."""
        session = self._sessions.get(session_id)
        if session is None or not session.is_live(self._now()):
            return [False] * len(locks)
        released, changed = rules.give_back(locks, session, locks=self._locks)
        self._locks.update(changed)
        return released

    async def list_locks(self, *, after: str, limit: int) -> Page[Lock]:
        """See the port."""
        now = self._now()
        names = sorted(name for name in self._locks if name > after)
        return first((self._locks[name].seen(name, now, self._sessions) for name in names), limit)

    # States

    async def get_states(self, names: Sequence[str]) -> list[State | None]:
        """See the port."""
        states = [self._states.get(name) for name in names]
        refuse_too_large(sum(state.size for state in states if state))
        return states

    async def list_states(self, *, prefix: str, after: str, limit: int) -> Page[State]:
        """See the port."""
        names = sorted(name for name in self._states if name.startswith(prefix) and name > after)
        return first_fitting((self._states[name] for name in names), limit)

    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]:
        """See the port."""
        session = self._live(session_id, self._now())
        old = (self._states.get(write.name) for write in writes)
        versions = {state.name: state.version for state in old if state}
        outcomes = rules.judge_writes(writes, session, locks=self._locks, versions=versions)
        for write, outcome in zip(writes, outcomes, strict=True):
            if isinstance(outcome, Written):
                self._states[write.name] = State(
                    name=write.name,
                    value=write.value,
                    version=outcome.version,
                    fencing_token=write.fencing_token,
                    written=self._clock.wall(),
                )
        return outcomes

    # Journal

    async def append_events(self, events: Sequence[Event]) -> list[int]:
        """See the port."""
        sequences = [self._append(event) for event in events]
        while len(self._events) > self._options.max_events:
            trimmed = self._events.pop(next(iter(self._events)))
            del self._sequences[trimmed.event_id]
        self._bell.ring(self._newest)
        return sequences

    async def read_events(self, query: EventQuery) -> EventPage:
        """See the port."""
        oldest = next(iter(self._events), self._newest + 1)
        places: Iterable[int]
        if query.ascending:
            places = range(max(oldest, (query.after or 0) + 1), self._newest + 1)
        else:
            before = self._newest + 1 if query.after is None else query.after
            places = range(min(before - 1, self._newest), oldest - 1, -1)
        events = (StoredEvent(place, self._events[place]) for place in places)
        page = first_fitting((e for e in events if query.filter.takes(e.event)), query.limit)
        return EventPage(
            events=page.items, more=page.more, forgotten=oldest - 1, newest=self._newest
        )

    async def grown_beyond(self, sequence: int) -> None:
        """See the port."""
        await self._bell.grown_beyond(sequence)

    # What it is made of

    def _now(self) -> timedelta:
        return self._clock.elapsed()

    def _live(self, session_id: SessionId, now: timedelta) -> SessionRecord:
        return rules.live(self._sessions.get(session_id), now)

    def _forget_sessions(self, now: timedelta) -> None:
        for session in [s for s in self._sessions.values() if not s.is_holding(now)]:
            del self._sessions[session.session_id]

    def _append(self, event: Event) -> int:
        if event.event_id not in self._sequences:
            self._newest += 1
            self._events[self._newest] = event
            self._sequences[event.event_id] = self._newest
        return self._sequences[event.event_id]
