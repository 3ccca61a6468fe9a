"""Stores with a fault of their own, to prove that the check finds it: each spoils a sound one.

`test_planted` alone uses them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

from runtime_service import rules
from runtime_service.domain import (
    Acquired,
    FencingToken,
    Grant,
    Held,
    LockWish,
    SessionId,
    StaleToken,
    State,
    StateWrite,
    WriteOutcome,
    Written,
)
from runtime_service.drivers.memory import MemoryRuntime
from runtime_service.rules import LockRecord, SessionRecord


class StaleReads(MemoryRuntime):
    """Every tenth read comes from a cache that nobody refreshes for a while."""

    _reads = itertools.count(1)
    _cache: Mapping[str, State] = {}

    async def get_states(self, names: Sequence[str]) -> list[State | None]:
        if next(self._reads) % 10:
            return await super().get_states(names)
        answer = [self._cache.get(name) for name in names]
        self._cache = dict(self._states)
        return answer


class WritesUnderAnyToken(MemoryRuntime):
    """The fencing token is not looked at."""

    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]:
        session = self._live(session_id, self._now())
        before = self._locks
        held = {w.name: LockRecord(w.fencing_token, session_id, session.opened) for w in writes}
        self._locks = before | held
        try:
            return await super().put_states(session_id, writes)
        finally:
            self._locks = before


class WritesOfAnySession(MemoryRuntime):
    """Whose lock it is is not looked at, once the token is right."""

    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]:
        self._live(session_id, self._now())
        before = self._locks
        self._locks = {name: replace(lock, holder=session_id) for name, lock in before.items()}
        try:
            return await super().put_states(session_id, writes)
        finally:
            self._locks = before


class TwoHolders(MemoryRuntime):
    """Every twentieth who is to be refused gets the lock as well, under the same token."""

    _refused = itertools.count(1)

    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]:
        grants = await super().try_lock(session_id, wishes)
        return [
            Acquired(self._locks[wish.name].token)
            if isinstance(grant, Held) and next(self._refused) % 20 == 0
            else grant
            for wish, grant in zip(wishes, grants, strict=True)
        ]


class Robbery(MemoryRuntime):
    """Every twentieth who is to be refused takes the lock away, under a new token."""

    _refused = itertools.count(1)

    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]:
        for wish in wishes:
            lock = self._locks.get(wish.name)
            if lock and lock.holder not in {None, session_id} and next(self._refused) % 20 == 0:
                self._locks[wish.name] = replace(lock, holder=None)
        return await super().try_lock(session_id, wishes)


class TokensThatStandStill(MemoryRuntime):
    """A lock that was given back is granted under its old token now and then."""

    _granted = itertools.count(1)

    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]:
        before = dict(self._locks)
        grants = await super().try_lock(session_id, wishes)
        for at, wish in enumerate(wishes):
            old, new = before.get(wish.name), self._locks[wish.name]
            if old and new.token == old.token + 1 and next(self._granted) % 10 == 0:
                self._locks[wish.name] = replace(new, token=old.token)
                grants[at] = Acquired(FencingToken(old.token))
        return grants


class LostWrites(MemoryRuntime):
    """Every tenth write is acknowledged, and gone."""

    _written = itertools.count(1)

    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]:
        before = dict(self._states)
        outcomes = await super().put_states(session_id, writes)
        for write, outcome in zip(writes, outcomes, strict=True):
            if isinstance(outcome, Written) and next(self._written) % 10 == 0:
                self._states.pop(write.name)
                self._states |= {n: s for n, s in before.items() if n == write.name}
        return outcomes


class WritesUponAnyVersion(MemoryRuntime):
    """The expected version is not looked at."""

    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]:
        known = {name: state.version for name, state in self._states.items()}
        upon = [replace(write, expected_version=known.get(write.name, 0)) for write in writes]
        return await super().put_states(session_id, upon)


class RepeatedWrites(MemoryRuntime):
    """Every tenth write is sent twice, and the second answer is told."""

    _sent = itertools.count(1)

    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]:
        if next(self._sent) % 10 == 0:
            await super().put_states(session_id, writes)
        return await super().put_states(session_id, writes)


class RefusedAtRandom(MemoryRuntime):
    """Every twentieth write is refused as stale, whoever writes."""

    _sent = itertools.count(1)

    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]:
        if next(self._sent) % 20 == 0:
            return [StaleToken(self._newest_token(write.name)) for write in writes]
        return await super().put_states(session_id, writes)

    def _newest_token(self, name: str) -> int:
        return self._locks.get(name, rules.NEVER_LOCKED).token


class ClosedSessionsLiveOn(MemoryRuntime):
    """A closed session frees its locks, and may take them again."""

    async def close_session(self, session_id: SessionId) -> bool:
        session = self._sessions.get(session_id)
        closed = await super().close_session(session_id)
        for name, lock in self._locks.items():
            if lock.holder == session_id:
                self._locks[name] = replace(lock, holder=None)
        if session:
            self._sessions[session_id] = session
        return closed


class EarlyExpiry(MemoryRuntime):
    """A lock is granted to another when half of its holder's life is over."""

    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]:
        before = self._sessions
        self._sessions = {
            name: session if name == session_id else _older(session)
            for name, session in before.items()
        }
        try:
            return await super().try_lock(session_id, wishes)
        finally:
            self._sessions = before


class NoLockDelay(MemoryRuntime):
    """A lock is free as soon as its holder's session has expired."""

    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]:
        now = self._now()
        self._sessions = {n: s for n, s in self._sessions.items() if s.is_live(now)}
        return await super().try_lock(session_id, wishes)


class ExpiredSessionsComeBack(MemoryRuntime):
    """A refresh that comes late is taken all the same."""

    def _live(self, session_id: SessionId, now: object) -> SessionRecord:
        session = self._sessions.get(session_id)
        return rules.live(session, session.opened if session else self._now())


def _older(session: SessionRecord) -> SessionRecord:
    return replace(session, expires=session.expires - session.ttl / 2)
