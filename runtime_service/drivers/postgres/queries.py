"""The statements and what their rows mean: values of `domain` in and out, nothing decided.

Texts from clients that may hold a NUL are kept as the inside of a JSON string: PostgreSQL's own
text takes none, and plain ones stay readable.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import asyncpg

from runtime_service.domain import (
    Acquired,
    Event,
    EventQuery,
    FencingToken,
    Grant,
    Held,
    Lock,
    Session,
    SessionId,
    StaleToken,
    State,
    StateWrite,
    StoredEvent,
    VersionConflict,
    WriteOutcome,
    Written,
)

Row = asyncpg.Record

_SESSION: Final = """
    SELECT s.number, s.session_id, s.owner, s.ttl, s.lock_delay, s.labels,
        s.expires - clock_timestamp() AS remaining, clock_timestamp() - s.opened AS age
"""

OPEN_SESSION: Final = f"{_SESSION} FROM {{schema}}.open_session_1($1, $2, $3, $4, $5) s"
REFRESH_SESSION: Final = f"{_SESSION} FROM {{schema}}.refresh_session_1($1, $2) s"
CLOSE_SESSION: Final = "SELECT {schema}.close_session_1($1) AS existed"
LIST_SESSIONS: Final = f"""
    {_SESSION} FROM {{schema}}.sessions s
    WHERE s.number > $1 AND s.expires > clock_timestamp() ORDER BY s.number LIMIT $2
"""
TRY_LOCK: Final = "SELECT token, owner, remaining FROM {schema}.try_lock_1($1, $2, $3)"
UNLOCK: Final = "SELECT name, token FROM {schema}.unlock_1($1, $2, $3)"
LIST_LOCKS: Final = """
    SELECT k.name, k.token, s.owner, clock_timestamp() - k.granted AS age
    FROM {schema}.locks k LEFT JOIN {schema}.sessions s
        ON s.session_id = k.holder AND s.expires + s.lock_delay > clock_timestamp()
    WHERE k.name > $1 ORDER BY k.name LIMIT $2
"""
# A value stays where it is unless all of them fit.
GET_STATES: Final = """
    SELECT name, CASE WHEN size <= $2 THEN value END AS value, version, token, written, size
    FROM (
        SELECT s.*, w.place,
            sum(octet_length(s.value) + octet_length(s.name)) OVER () AS size
        FROM unnest($1::text[]) WITH ORDINALITY AS w (wanted, place)
        LEFT JOIN {schema}.states s ON s.name = w.wanted
    ) found ORDER BY place
"""
# No name is longer than what stands behind the prefix here, so all that begin with it are within.
LIST_STATES: Final = """
    SELECT name, value, version, token, written FROM (
        SELECT sized.*, sum(size) OVER (ORDER BY name) - size AS before FROM (
            SELECT s.*, octet_length(s.value) + octet_length(s.name) AS size
            FROM {schema}.states s
            WHERE s.name > $2 AND s.name BETWEEN $1 AND $1::text || repeat(chr(1114111), 256)
                AND starts_with(s.name, $1)
            ORDER BY s.name LIMIT $3
        ) sized
    ) found WHERE before <= $4 ORDER BY name
"""
PUT_STATES: Final = "SELECT is_held, newest, version FROM {schema}.put_states_1($1, $2, $3, $4, $5)"
APPEND_EVENTS: Final = (
    "SELECT * FROM {schema}.append_events_1($1, $2, $3, $4, $5, $6, $7, $8) AS sequence"
)
_READ_EVENTS: Final = """
    SELECT j.newest, j.forgotten, e.* FROM {schema}.journal j LEFT JOIN LATERAL (
        SELECT found.*, sum(size) OVER (ORDER BY sequence {order}) - size AS before FROM (
            SELECT sequence, event_id, time, preset, vm_id, kind, rest, size
            FROM {schema}.events WHERE {clauses} ORDER BY sequence {order} LIMIT $1
        ) found
    ) e ON e.before <= $2 ORDER BY e.sequence {order}
"""


def read_events(query: EventQuery) -> tuple[str, list[Any]]:
    """The statement of a query, and its values from the third on."""
    wanted = query.filter
    clauses: dict[str, Any] = {}
    if query.after is not None:
        clauses["sequence > ?" if query.ascending else "sequence < ?"] = query.after
    # The beginning of a text is what the index holds.
    if wanted.preset:
        clauses["left(preset, 100) = left(?, 100) AND preset = ?"] = kept(wanted.preset)
    if wanted.vm_id:
        clauses["left(vm_id, 100) = left(?, 100) AND vm_id = ?"] = kept(wanted.vm_id)
    if wanted.kinds:
        clauses["kind = ANY(?)"] = [kept(kind) for kind in wanted.kinds]
    if wanted.since is not None:
        clauses["time >= ?"] = wanted.since
    numbered = [text.replace("?", f"${i}") for i, text in enumerate(clauses, start=3)]
    statement = _READ_EVENTS.replace("{clauses}", " AND ".join(["true", *numbered]))
    order = "ASC" if query.ascending else "DESC"
    return statement.replace("{order}", order), list(clauses.values())


def session(row: Row) -> Session:
    """A session as it was when the database answered."""
    return Session(
        number=row["number"],
        session_id=SessionId(row["session_id"]),
        owner=row["owner"],
        ttl=row["ttl"],
        lock_delay=row["lock_delay"],
        remaining=_not_negative(row["remaining"]),
        age=_not_negative(row["age"]),
        labels=json.loads(row["labels"]),
    )


def facts(labels: Mapping[str, str]) -> str:
    """Labels as they are kept."""
    return json.dumps(dict(labels), ensure_ascii=False)


def grant(row: Row) -> Grant:
    """What became of a wish."""
    if row["token"] is None:
        return Held(row["owner"], row["remaining"])
    return Acquired(FencingToken(row["token"]))


def lock(row: Row) -> Lock:
    """A lock, and who has it."""
    return Lock(
        name=row["name"],
        fencing_token=FencingToken(row["token"]),
        owner=row["owner"],
        age=_not_negative(row["age"]),
    )


def state(row: Row) -> State:
    """A state whose value was fetched."""
    return State(
        name=row["name"],
        value=row["value"],
        version=row["version"],
        fencing_token=FencingToken(row["token"]),
        written=row["written"],
    )


def outcome(write: StateWrite, row: Row) -> WriteOutcome:
    """What became of a write."""
    if not row["is_held"]:
        return StaleToken(row["newest"])
    if row["version"] != write.expected_version:
        return VersionConflict(row["version"])
    return Written(row["version"] + 1)


def columns_of(events: Sequence[Event]) -> list[list[Any]]:
    """What is kept of some events, column by column."""
    return [
        [event.event_id for event in events],
        [event.time for event in events],
        [kept(event.preset) for event in events],
        [kept(event.vm_id) for event in events],
        [kept(event.kind) for event in events],
        [_rest(event) for event in events],
        [StoredEvent(0, event).size for event in events],
    ]


def events(rows: Iterable[Row]) -> list[StoredEvent]:
    """The events of a page; one row without an event tells of the journal alone."""
    return [_event(row) for row in rows if row["sequence"] is not None]


def kept(text: str) -> str:
    """A text as it is kept."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _told(text: str) -> str:
    told: str = json.loads(f'"{text}"')
    return told


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


def _event(row: Row) -> StoredEvent:
    event = Event(
        event_id=row["event_id"],
        time=row["time"],
        preset=_told(row["preset"]),
        vm_id=_told(row["vm_id"]),
        kind=_told(row["kind"]),
        **json.loads(row["rest"]),
    )
    return StoredEvent(row["sequence"], event)


def _not_negative(duration: timedelta) -> timedelta:
    return max(duration, timedelta(0))
