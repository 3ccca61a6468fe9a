"""The SQL: records in and out of one connection, within whatever transaction is under way.

Moments and durations are whole microseconds.  Nothing here decides; `rules` does.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from runtime_service.domain import (
    Event,
    EventQuery,
    FencingToken,
    NewSession,
    SessionId,
    State,
    StateWrite,
    StoredEvent,
)
from runtime_service.rules import LockRecord, SessionRecord

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

_SESSION: Final = """
    SELECT number, session_id, owner, ttl, lock_delay, labels, opened, expires FROM sessions
"""
_STATE: Final = "SELECT name, value, version, token, written FROM states"
_EVENT: Final = "SELECT sequence, event_id, time, preset, vm_id, kind, rest FROM events"
_AMONG: Final = "IN (SELECT value FROM json_each(?))"


class Tables:
    """The tables of one database."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    # Sessions

    def begin(self, boot: str, now: timedelta) -> None:
        """Make the moments of what is stored comparable with those of the clock of this boot.

        When they are not, because the machine was started anew, every session is given a full
        life: too long is harmless, too short is not.
        """
        moment = _count(now)
        (former,) = self._db.execute("SELECT id FROM boot").fetchone()
        (is_ahead,) = self._db.execute(
            "SELECT EXISTS (SELECT 1 FROM sessions WHERE expires > ? + ttl)", (moment,)
        ).fetchone()
        if not boot or former != boot or is_ahead:
            self._db.execute("UPDATE sessions SET opened = ?1, expires = ?1 + ttl", (moment,))
            self._db.execute("UPDATE locks SET granted = ?", (moment,))
            self._db.execute("UPDATE boot SET id = ?", (boot,))

    def end_all_sessions(self) -> int:
        """Forget every session; how many there were."""
        return self._db.execute("DELETE FROM sessions").rowcount

    def add_session(self, new: NewSession, now: timedelta) -> SessionRecord:
        """Store a session that begins now."""
        row = (
            new.session_id,
            new.owner,
            _count(new.ttl),
            _count(new.lock_delay),
            json.dumps(dict(new.labels)),
            _count(now),
            _count(now + new.ttl),
        )
        (number,) = self._db.execute(
            "INSERT INTO sessions (session_id, owner, ttl, lock_delay, labels, opened, expires) "
            "VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING number",
            row,
        ).fetchone()
        return SessionRecord.opening(new, number=number, now=now)

    def session(self, session_id: SessionId) -> SessionRecord | None:
        """The session of that id."""
        row = self._db.execute(f"{_SESSION} WHERE session_id = ?", (session_id,)).fetchone()
        return _session(row) if row else None

    def keep_session(self, session: SessionRecord) -> None:
        """Store when it expires now, and what is known of its owner."""
        labels = json.dumps(dict(session.labels))
        self._db.execute(
            "UPDATE sessions SET expires = ?, labels = ? WHERE session_id = ?",
            (_count(session.expires), labels, session.session_id),
        )

    def forget_session(self, session_id: SessionId) -> None:
        """Forget it; its locks lose their holder with it."""
        self._db.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))

    def forget_sessions(self, now: timedelta) -> None:
        """Forget all whose locks are free, for they have expired long enough ago."""
        self._db.execute("DELETE FROM sessions WHERE expires + lock_delay <= ?", (_count(now),))

    def sessions_after(self, number: int) -> Iterator[SessionRecord]:
        """All behind that number, in order."""
        rows = self._db.execute(f"{_SESSION} WHERE number > ? ORDER BY number", (number,))
        return map(_session, rows)

    # Locks

    def locks(self, names: Iterable[str]) -> dict[str, LockRecord]:
        """The locks of these names, as far as they were ever taken."""
        rows = self._db.execute(
            "SELECT name, token, holder, granted FROM locks "
            "WHERE name IN (SELECT value FROM json_each(?))",
            (_array(names),),
        )
        return dict(map(_lock, rows))

    def holders(self, locks: Iterable[LockRecord]) -> dict[SessionId, SessionRecord]:
        """The sessions that these locks were given to."""
        ids = {lock.holder for lock in locks if lock.holder}
        rows = self._db.execute(f"{_SESSION} WHERE session_id {_AMONG}", (_array(ids),))
        return {session.session_id: session for session in map(_session, rows)}

    def keep_locks(self, changed: Mapping[str, LockRecord]) -> None:
        """Store locks as they are now."""
        self._db.executemany(
            "INSERT INTO locks (name, token, holder, granted) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET "
            "token = excluded.token, holder = excluded.holder, granted = excluded.granted",
            [(name, k.token, k.holder, _count(k.granted)) for name, k in changed.items()],
        )

    def locks_after(self, name: str, limit: int) -> dict[str, LockRecord]:
        """So many locks behind that name, in order."""
        rows = self._db.execute(
            "SELECT name, token, holder, granted FROM locks WHERE name > ? ORDER BY name LIMIT ?",
            (name, limit),
        )
        return dict(map(_lock, rows))

    # States

    def size_of_states(self, names: Iterable[str]) -> int:
        """Bytes that the states of these names take up together."""
        (size,) = self._db.execute(
            "SELECT coalesce(sum(length(value)), 0) FROM states "
            "WHERE name IN (SELECT value FROM json_each(?))",
            (_array(names),),
        ).fetchone()
        return int(size)

    def states(self, names: Iterable[str]) -> dict[str, State]:
        """The states of these names, as far as they were ever written."""
        rows = self._db.execute(f"{_STATE} WHERE name {_AMONG}", (_array(names),))
        return {state.name: state for state in map(_state, rows)}

    def states_from(self, name: str) -> Iterator[State]:
        """All from that name on, in order; read one by one."""
        return map(_state, self._db.execute(f"{_STATE} WHERE name >= ? ORDER BY name", (name,)))

    def versions(self, names: Iterable[str]) -> dict[str, int]:
        """The versions of the states of these names, as far as they were ever written."""
        return dict(
            self._db.execute(
                "SELECT name, version FROM states WHERE name IN (SELECT value FROM json_each(?))",
                (_array(names),),
            )
        )

    def keep_states(self, written: Iterable[tuple[StateWrite, int]], at: datetime) -> None:
        """Store values under their new versions."""
        moment = _count(at - _EPOCH)
        self._db.executemany(
            "INSERT INTO states (name, value, version, token, written) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value, "
            "version = excluded.version, token = excluded.token, written = excluded.written",
            [(w.name, w.value, version, w.fencing_token, moment) for w, version in written],
        )

    # Journal

    def append(self, event: Event) -> int:
        """Store an event, unless its id is there; its sequence."""
        time = _count(event.time - _EPOCH)
        row = (event.event_id, time, event.preset, event.vm_id, event.kind, _rest(event))
        added = self._db.execute(
            "INSERT INTO events (event_id, time, preset, vm_id, kind, rest) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING RETURNING sequence",
            row,
        ).fetchone()
        known = "SELECT sequence FROM events WHERE event_id = ?"
        (sequence,) = added or self._db.execute(known, (event.event_id,)).fetchone()
        return int(sequence)

    def trim(self, limit: int) -> None:
        """Forget the oldest events beyond so many; sequences have no gaps."""
        self._db.execute("DELETE FROM events WHERE sequence <= ?", (self.newest() - limit,))

    def newest(self) -> int:
        """The greatest sequence ever given; 0 at first."""
        row = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
        return int(row[0]) if row else 0

    def forgotten(self) -> int:
        """The greatest sequence that was trimmed; 0 at first."""
        (oldest,) = self._db.execute("SELECT min(sequence) FROM events").fetchone()
        return self.newest() if oldest is None else int(oldest) - 1

    def events(self, query: EventQuery) -> Iterator[StoredEvent]:
        """All that the query means beyond its beginning, in its order; read one by one."""
        clauses, values = _clauses(query)
        order = "ASC" if query.ascending else "DESC"
        # The clauses are words of this file; what is asked for goes in as values.
        sql = f"{_EVENT} WHERE {' AND '.join(clauses)} ORDER BY sequence {order}"
        return map(_event, self._db.execute(sql, values))


def _clauses(query: EventQuery) -> tuple[list[str], list[Any]]:
    wanted = query.filter
    clauses: dict[str, Any] = {}
    if query.after is not None:
        clauses["sequence > ?" if query.ascending else "sequence < ?"] = query.after
    if wanted.preset:
        clauses["preset = ?"] = wanted.preset
    if wanted.vm_id:
        clauses["vm_id = ?"] = wanted.vm_id
    if wanted.kinds:
        clauses["kind IN (SELECT value FROM json_each(?))"] = _array(wanted.kinds)
    if wanted.since is not None:
        clauses["time >= ?"] = _count(wanted.since - _EPOCH)
    return ["true", *clauses], list(clauses.values())


def _count(duration: timedelta) -> int:
    return duration // _MICROSECOND


def _duration(count: int) -> timedelta:
    return timedelta(microseconds=count)


def _array(values: Iterable[str]) -> str:
    return json.dumps(list(values))


def _session(row: tuple[Any, ...]) -> SessionRecord:
    number, session_id, owner, ttl, lock_delay, labels, opened, expires = row
    return SessionRecord(
        number=number,
        session_id=SessionId(session_id),
        owner=owner,
        ttl=_duration(ttl),
        lock_delay=_duration(lock_delay),
        labels=json.loads(labels),
        opened=_duration(opened),
        expires=_duration(expires),
    )


def _lock(row: tuple[Any, ...]) -> tuple[str, LockRecord]:
    name, token, holder, granted = row
    return name, LockRecord(FencingToken(token), holder, _duration(granted))


def _state(row: tuple[Any, ...]) -> State:
    name, value, version, token, written = row
    return State(
        name=name,
        value=value,
        version=version,
        fencing_token=FencingToken(token),
        written=_EPOCH + _duration(written),
    )


def _rest(event: Event) -> str:
    return json.dumps(
        {
            "reason": event.reason,
            "message": event.message,
            "actor": event.actor,
            "fencing_token": event.fencing_token,
            "evidence": dict(event.evidence),
            "severity": event.severity,
        },
        ensure_ascii=False,
    )


def _event(row: tuple[Any, ...]) -> StoredEvent:
    sequence, event_id, time, preset, vm_id, kind, rest = row
    event = Event(
        event_id=event_id,
        time=_EPOCH + _duration(time),
        preset=preset,
        vm_id=vm_id,
        kind=kind,
        **json.loads(rest),
    )
    return StoredEvent(sequence, event)
