"""Who gets a lock and which writes are taken: pure, so that every driver obeys the same rules.

A driver loads what is concerned within one transaction, asks here, and stores what has changed.
`now` is always the store's own clock.  A lock is taken as long as its session is known, and until
the session's life and lock delay have passed: a closed session is forgotten, and so its locks are
free at once.  An expired one can do nothing any more, not even shorten its own lock delay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from vmshepherd_kit.errors import SessionLost

from .domain import (
    Acquired,
    FencingToken,
    Grant,
    Held,
    HeldLock,
    Lock,
    LockWish,
    NewSession,
    Session,
    SessionId,
    StaleToken,
    StateWrite,
    VersionConflict,
    WriteOutcome,
    Written,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionRecord:
    """A session as a store remembers it; moments are readings of the store's clock."""

    number: int
    session_id: SessionId
    owner: str
    ttl: timedelta
    lock_delay: timedelta
    labels: Mapping[str, str]
    opened: timedelta
    expires: timedelta

    @classmethod
    def opening(cls, new: NewSession, *, number: int, now: timedelta) -> SessionRecord:
        """The record of a session that begins now."""
        return cls(
            number=number,
            session_id=new.session_id,
            owner=new.owner,
            ttl=new.ttl,
            lock_delay=new.lock_delay,
            labels=new.labels,
            opened=now,
            expires=now + new.ttl,
        )

    @property
    def frees_locks(self) -> timedelta:
        """When its locks are free, unless it is refreshed."""
        return self.expires + self.lock_delay

    def is_live(self, now: timedelta) -> bool:
        """Whether it may be refreshed and may act."""
        return now < self.expires

    def is_holding(self, now: timedelta) -> bool:
        """Whether its locks are still taken."""
        return now < self.frees_locks

    def refreshed(self, now: timedelta, labels: Mapping[str, str]) -> SessionRecord:
        """The same, with a full life from now on, and with these labels if there are any."""
        return replace(self, expires=now + self.ttl, labels=labels or self.labels)

    def seen(self, now: timedelta) -> Session:
        """What others are told of it."""
        return Session(
            number=self.number,
            session_id=self.session_id,
            owner=self.owner,
            ttl=self.ttl,
            lock_delay=self.lock_delay,
            remaining=max(self.expires - now, timedelta(0)),
            age=max(now - self.opened, timedelta(0)),
            labels=self.labels,
        )


Sessions = Mapping[SessionId, SessionRecord]


@dataclass(frozen=True, slots=True)
class LockRecord:
    """A lock as a store remembers it: the newest token, who got it (None: given back), and when."""

    token: FencingToken
    holder: SessionId | None
    granted: timedelta

    def holder_at(self, now: timedelta, sessions: Sessions) -> SessionRecord | None:
        """Who holds it, or whose lock delay still keeps it from others."""
        session = sessions.get(self.holder) if self.holder else None
        return session if session and session.is_holding(now) else None

    def is_held_by(self, session: SessionRecord, token: FencingToken) -> bool:
        """Whether the session got it under that token and has not given it back."""
        return self.holder == session.session_id and self.token == token

    def seen(self, name: str, now: timedelta, sessions: Sessions) -> Lock:
        """What others are told of it."""
        holder = self.holder_at(now, sessions)
        return Lock(
            name=name,
            fencing_token=self.token,
            owner=holder.owner if holder else None,
            age=max(now - self.granted, timedelta(0)),
        )


Locks = Mapping[str, LockRecord]

NEVER_LOCKED: Final = LockRecord(FencingToken(0), None, timedelta(0))


def live(session: SessionRecord | None, now: timedelta) -> SessionRecord:
    """The session, if it is alive.  SessionLost when it has expired or is not known (any more)."""
    if session is None or not session.is_live(now):
        raise SessionLost("the session has expired or was closed: stop, then open another one")
    return session


def grant(
    wishes: Iterable[LockWish],
    session: SessionRecord,
    *,
    locks: Locks,
    sessions: Sessions,
    now: timedelta,
    base: int = 0,
) -> tuple[list[Grant], dict[str, LockRecord]]:
    """What each wish of a live session gets, in order, and the locks that change.

    `sessions` are the holders of `locks`, at least.  New tokens are greater than `base`, too.
    """
    changed: dict[str, LockRecord] = {}
    grants: list[Grant] = []
    for wish in wishes:
        lock = changed.get(wish.name) or locks.get(wish.name, NEVER_LOCKED)
        holder = session if wish.name in changed else lock.holder_at(now, sessions)
        if holder and holder.session_id != session.session_id:
            grants.append(Held(holder.owner, holder.frees_locks - now))
        elif holder and lock.token > wish.floor:
            grants.append(Acquired(lock.token))
        else:
            token = FencingToken(max(lock.token, wish.floor, base) + 1)
            changed[wish.name] = LockRecord(token, session.session_id, now)
            grants.append(Acquired(token))
    return grants, changed


def give_back(
    given: Iterable[HeldLock], session: SessionRecord, *, locks: Locks
) -> tuple[list[bool], dict[str, LockRecord]]:
    """Whether a live session held each lock under that token, in order; the locks that change."""
    changed: dict[str, LockRecord] = {}
    released: list[bool] = []
    for wanted in given:
        lock = changed.get(wanted.name) or locks.get(wanted.name, NEVER_LOCKED)
        is_held = lock.is_held_by(session, wanted.fencing_token)
        if is_held:
            changed[wanted.name] = replace(lock, holder=None)
        released.append(is_held)
    return released, changed


def judge_writes(
    writes: Iterable[StateWrite],
    session: SessionRecord,
    *,
    locks: Locks,
    versions: Mapping[str, int],
) -> list[WriteOutcome]:
    """What becomes of each write of a live session, in order; no name is written twice."""
    return [
        _judge(write, locks.get(write.name, NEVER_LOCKED), versions.get(write.name, 0), session)
        for write in writes
    ]


def _judge(
    write: StateWrite, lock: LockRecord, version: int, session: SessionRecord
) -> WriteOutcome:
    if not lock.is_held_by(session, write.fencing_token):
        return StaleToken(lock.token)
    if write.expected_version != version:
        return VersionConflict(version)
    return Written(version + 1)
