"""Asks a store as its clients do, and writes down what was asked, when, and what came back.

`clients` calls it.  Moments are taken before the ask leaves and after the answer is there, so that
whatever the store did lies between them.  A failure is an open end: nobody knows what it did.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Protocol, TypeVar

from runtime_service.domain import (
    FencingToken,
    Grant,
    Held,
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
)
from vmshepherd_kit.errors import (
    OutcomeUnknown,
    QuotaExceeded,
    SessionLost,
    Throttled,
    Unavailable,
)

from .calls import (
    LOST,
    Answer,
    Ask,
    Call,
    Close,
    Get,
    HeldBy,
    Lifetime,
    Look,
    Looked,
    Lost,
    Put,
    Refresh,
    Seen,
    TryLock,
    Unlock,
    by_name,
)

T = TypeVar("T")

# The store's clock may be another than ours: so much may they differ within a session's life.
_CLOCKS_DIFFER: Final = timedelta(milliseconds=20)
_ALL: Final = 1000


class Store(Protocol):
    """What is asked of a store: sessions, locks and states of its port."""

    async def open_session(self, new: NewSession) -> Session: ...
    async def refresh_session(self, session_id: SessionId) -> Session: ...
    async def close_session(self, session_id: SessionId) -> bool: ...
    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]: ...
    async def unlock(self, session_id: SessionId, locks: Sequence[HeldLock]) -> list[bool]: ...
    async def list_locks(self, *, after: str, limit: int) -> Page[Lock]: ...
    async def get_states(self, names: Sequence[str]) -> list[State | None]: ...
    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """How long sessions live, and how long their locks are kept then."""

    ttl: timedelta
    lock_delay: timedelta


@dataclass(slots=True)
class Record:
    """All that was asked, by all clients."""

    span: Span
    named: list[tuple[str, Call]] = field(default_factory=list)
    of_sessions: list[Call] = field(default_factory=list)
    ids: dict[str, SessionId] = field(default_factory=dict)
    """Of the sessions, by the names of their owners."""
    refreshed: dict[str, int] = field(default_factory=dict)
    """When the last refresh of each session was sent that succeeded."""
    bugs: list[str] = field(default_factory=list)
    """Failures that a store must not have: what it cannot do for the moment has names."""

    def histories(self) -> dict[str, list[Call]]:
        """The calls that concern each name."""
        return by_name(self.named, self.of_sessions, self._lifetimes())

    def answered(self) -> int:
        """How many calls were answered."""
        calls = (*(call for _, call in self.named), *self.of_sessions)
        return sum(not call.is_open for call in calls)

    def unanswered(self) -> int:
        """How many calls have an open end."""
        return len(self.named) + len(self.of_sessions) - self.answered()

    def _lifetimes(self) -> Iterable[Lifetime]:
        last = max((call.sent for _, call in self.named), default=0)
        for session, sent in self.refreshed.items():
            expires = sent + _nanoseconds(self.span.ttl - _CLOCKS_DIFFER)
            frees = expires + _nanoseconds(self.span.lock_delay)
            if expires < last:
                yield Lifetime(session=session, expires=expires, frees=frees)


class Asking:
    """One client's way to a store; everything it does goes into the record."""

    def __init__(
        self, client: str, store: Store, record: Record, *, patience: float | None = None
    ) -> None:
        self._client = client
        self._store = store
        self._record = record
        self._patience = patience

    async def open_session(self, owner: str) -> bool:
        """Whether there is one of that owner now; one that was not answered is never used."""
        span = self._record.span
        new = NewSession(
            session_id=SessionId(owner), owner=owner, ttl=span.ttl, lock_delay=span.lock_delay
        )
        sent = time.monotonic_ns()
        session = await self._told(self._store.open_session(new))
        if not isinstance(session, Session):
            return False
        self._record.ids[owner] = session.session_id
        self._record.refreshed[owner] = sent
        return True

    async def refresh(self, session: str) -> Answer | None:
        """Let a session live on."""
        sent = time.monotonic_ns()
        told = await self._told(self._store.refresh_session(self._id(session)))
        answer: Answer | None = LOST if isinstance(told, Lost) else True if told else None
        if answer is True:
            self._record.refreshed[session] = max(self._record.refreshed[session], sent)
        self._record.of_sessions += self._calls([Refresh(session)], [answer], sent)
        return answer

    async def close(self, session: str) -> Answer | None:
        """End a session."""
        sent = time.monotonic_ns()
        answer = await self._told(self._store.close_session(self._id(session)))
        self._record.of_sessions += self._calls([Close(session)], [answer], sent)
        return answer

    async def try_lock(self, session: str, floors: Mapping[str, int]) -> list[Answer] | None:
        """Ask for locks, each with a floor."""
        is_alone = len(floors) == 1
        asks = {n: TryLock(session, floor, is_alone) for n, floor in floors.items()}
        wishes = [LockWish(name, floor) for name, floor in floors.items()]
        return await self._asked(asks, self._store.try_lock(self._id(session), wishes))

    async def unlock(self, session: str, name: str, token: int) -> list[Answer] | None:
        """Give a lock back."""
        lock = HeldLock(name, FencingToken(token))
        work = self._store.unlock(self._id(session), [lock])
        return await self._asked({name: Unlock(session, token)}, work)

    async def put(self, puts: Mapping[str, Put]) -> list[Answer] | None:
        """Write states, all by one session."""
        writes = [
            StateWrite(
                name=name,
                value=put.value.encode(),
                fencing_token=FencingToken(put.token),
                expected_version=put.expected,
            )
            for name, put in puts.items()
        ]
        [session] = {put.session for put in puts.values()}
        return await self._asked(puts, self._store.put_states(self._id(session), writes))

    async def get(self, names: Sequence[str]) -> list[Answer] | None:
        """Read states."""
        return await self._asked(dict.fromkeys(names, Get()), self._store.get_states(names))

    async def look(self, names: Sequence[str]) -> list[Answer] | None:
        """Read who holds which lock."""

        async def work() -> list[Looked]:
            page = await self._store.list_locks(after="", limit=_ALL)
            locks = {lock.name: Looked(lock.fencing_token, lock.owner) for lock in page.items}
            return [locks.get(name, Looked(0, None)) for name in names]

        return await self._asked(dict.fromkeys(names, Look()), work())

    # How it is done

    async def _asked(
        self, asks: Mapping[str, Ask], work: Awaitable[Sequence[object]]
    ) -> list[Answer] | None:
        sent = time.monotonic_ns()
        told = await self._told(work)
        answers: list[Answer] | None = None
        if told is not None:
            answers = [LOST] * len(asks) if isinstance(told, Lost) else [*map(_said, told)]
        calls = self._calls(asks.values(), answers or [None] * len(asks), sent)
        self._record.named.extend(zip(asks, calls, strict=True))
        return answers

    async def _told(self, work: Awaitable[T]) -> T | Lost | None:
        """What was answered; None when nobody knows what became of it."""
        try:
            async with asyncio.timeout(self._patience):
                return await work
        except SessionLost:
            return LOST
        except (TimeoutError, OutcomeUnknown, QuotaExceeded, Throttled, Unavailable):
            return None
        except Exception as e:  # noqa: BLE001  (the history goes on, and is told as a failure)
            self._record.bugs.append("".join(traceback.format_exception(e)[-3:]))
            return None

    def _calls(
        self, asks: Iterable[Ask], answers: Iterable[Answer | None], sent: int
    ) -> list[Call]:
        now = time.monotonic_ns()
        return [
            Call(
                client=self._client,
                ask=ask,
                answer=answer,
                sent=sent,
                answered=None if answer is None else now,
            )
            for ask, answer in zip(asks, answers, strict=True)
        ]

    def _id(self, session: str) -> SessionId:
        return self._record.ids[session]


def _said(answer: object) -> Answer:
    """In the words of a history."""
    match answer:
        case None:
            return Seen()
        case State():
            return Seen(answer.value.decode(), answer.version, answer.fencing_token)
        case Held(owner):
            return HeldBy(owner)
    return answer  # type: ignore[return-value]


def _nanoseconds(duration: timedelta) -> int:
    return round(duration / timedelta(microseconds=1)) * 1000
