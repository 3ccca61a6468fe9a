"""What is stored, as bytes and back: JSON, with moments of the wall clock.

ZooKeeper has no clock to compare with, and the monotonic clocks of two machines have nothing in
common: stored moments are for people only, and nothing is decided by them.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from runtime_service.domain import (
    Event,
    FencingToken,
    NewSession,
    SessionId,
    State,
    StateWrite,
    StoredEvent,
)
from runtime_service.rules import LockRecord, SessionRecord
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import Unavailable

T = TypeVar("T")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment on both clocks of this process, to turn moments of one into those of the other."""

    elapsed: timedelta
    wall: timedelta

    @classmethod
    def now(cls, clock: Clock) -> Moment:
        """This moment."""
        return cls(clock.elapsed(), clock.wall() - _EPOCH)

    def stored(self, moment: timedelta) -> int:
        """A reading of the monotonic clock, as it is stored."""
        return (self.wall - (self.elapsed - moment)) // _MICROSECOND

    def read(self, stored: int) -> timedelta:
        """What the monotonic clock said then, or would have said."""
        return self.elapsed - (self.wall - timedelta(microseconds=stored))


# Sessions and locks


def from_session(new: NewSession, moment: Moment) -> bytes:
    """A session that begins now."""
    return _dumped(
        {
            "owner": new.owner,
            "ttl": new.ttl // _MICROSECOND,
            "lock_delay": new.lock_delay // _MICROSECOND,
            "labels": dict(new.labels),
            "opened": moment.stored(moment.elapsed),
        }
    )


def with_labels(data: bytes, labels: dict[str, str]) -> bytes:
    """The same session with these labels."""
    return _dumped({**_loaded(data), "labels": labels})


def to_session(session_id: SessionId, data: bytes, *, number: int, moment: Moment) -> SessionRecord:
    """A session, as if it expired now: whoever watches it knows when it does."""

    def read(told: dict[str, Any]) -> SessionRecord:
        return SessionRecord(
            number=number,
            session_id=session_id,
            owner=told["owner"],
            ttl=timedelta(microseconds=told["ttl"]),
            lock_delay=timedelta(microseconds=told["lock_delay"]),
            labels=told["labels"],
            opened=moment.read(told["opened"]),
            expires=moment.elapsed,
        )

    return _understood(data, read)


@dataclass(frozen=True, slots=True)
class StoredLock:
    """A lock as it is stored."""

    record: LockRecord
    stamp: str
    """Tells one call that changed it from another."""


def from_lock(lock: LockRecord, moment: Moment, stamp: str) -> bytes:
    """A lock."""
    told = {"token": lock.token, "holder": lock.holder, "granted": moment.stored(lock.granted)}
    return _dumped({**told, "stamp": stamp})


def to_lock(data: bytes, moment: Moment) -> StoredLock:
    """A lock."""

    def read(told: dict[str, Any]) -> StoredLock:
        granted = moment.read(told["granted"])
        record = LockRecord(FencingToken(told["token"]), told["holder"], granted)
        return StoredLock(record, told["stamp"])

    return _understood(data, read)


# States


@dataclass(frozen=True, slots=True)
class StoredState:
    """A state as it is stored; the value of a large one is in so many parts elsewhere."""

    token: FencingToken
    written: datetime
    stamp: str
    """Tells one write from another."""
    parts: int
    value: bytes

    def named(self, name: str, *, version: int, value: bytes) -> State:
        """What others are told of it."""
        return State(
            name=name,
            value=value,
            version=version,
            fencing_token=self.token,
            written=self.written,
        )


def from_state(write: StateWrite, *, stamp: str, parts: int, at: datetime) -> bytes:
    """A state; without its value when that is in parts."""
    head = {
        "token": write.fencing_token,
        "written": (at - _EPOCH) // _MICROSECOND,
        "stamp": stamp,
        "parts": parts,
    }
    return _dumped(head) + b"\n" + (b"" if parts else write.value)


def to_state(data: bytes) -> StoredState:
    """A state."""
    head, _, value = data.partition(b"\n")
    return _understood(
        head,
        lambda told: StoredState(
            token=FencingToken(told["token"]),
            written=_EPOCH + timedelta(microseconds=told["written"]),
            stamp=told["stamp"],
            parts=told["parts"],
            value=value,
        ),
    )


# Journal

_EVENT_FIELDS: Final = tuple(field.name for field in fields(Event))


@dataclass(frozen=True, slots=True)
class Head:
    """How far the journal reaches, and its newest events: those behind `sealed`."""

    newest: int = 0
    forgotten: int = 0
    sealed: int = 0
    tail: tuple[StoredEvent, ...] = ()


def from_head(head: Head) -> bytes:
    """The head of the journal."""
    told = {"newest": head.newest, "forgotten": head.forgotten, "sealed": head.sealed}
    return _packed({**told, "tail": _from_events(head.tail)})


def to_head(data: bytes) -> Head:
    """The head of the journal; a journal that was just made has an empty one."""
    if not data:
        return Head()
    return _unpacked(
        data,
        lambda told: Head(
            newest=told["newest"],
            forgotten=told["forgotten"],
            sealed=told["sealed"],
            tail=_to_events(told["tail"]),
        ),
    )


def from_chunk(events: Sequence[StoredEvent]) -> bytes:
    """Some events of the journal."""
    return _packed({"events": _from_events(events)})


def from_pointer(part: str) -> bytes:
    """A chunk whose events are elsewhere."""
    return _packed({"part": part})


def to_chunk(data: bytes) -> tuple[StoredEvent, ...] | str:
    """Some events of the journal, or the name of the part that has them."""
    return _unpacked(
        data, lambda told: told["part"] if "part" in told else _to_events(told["events"])
    )


def _from_events(events: Iterable[StoredEvent]) -> list[dict[str, Any]]:
    return [
        {
            **{name: getattr(stored.event, name) for name in _EVENT_FIELDS},
            "time": (stored.event.time - _EPOCH) // _MICROSECOND,
            "evidence": dict(stored.event.evidence),
            "sequence": stored.sequence,
        }
        for stored in events
    ]


def _to_events(told: Iterable[dict[str, Any]]) -> tuple[StoredEvent, ...]:
    return tuple(_to_event(dict(each)) for each in told)


def _to_event(told: dict[str, Any]) -> StoredEvent:
    sequence = told.pop("sequence")
    time = _EPOCH + timedelta(microseconds=told.pop("time"))
    return StoredEvent(sequence, Event(time=time, **told))


# Bytes


def _dumped(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _loaded(data: bytes) -> Any:
    return json.loads(data)


def _packed(value: object) -> bytes:
    return zlib.compress(_dumped(value))


def _unpacked(data: bytes, read: Callable[[Any], T]) -> T:
    try:
        inflated = zlib.decompress(data)
    except zlib.error as e:
        raise _damaged() from e
    return _understood(inflated, read)


def _understood(data: bytes, read: Callable[[Any], T]) -> T:
    try:
        return read(_loaded(data))
    except (ValueError, KeyError, TypeError) as e:
        raise _damaged() from e


def _damaged() -> Unavailable:
    return Unavailable(
        "a record in ZooKeeper is damaged, or was written by another program: set "
        "runtime.options.working_path to a path of this suite alone, or repair what is there",
        reason="STORE_DAMAGED",
    )
