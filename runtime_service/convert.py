"""Messages ⇄ domain values, and what is wrong with a message.

Pure; the servicer calls it.  What is wrong with one item of a batch becomes a value, so that the
others are served; what is wrong with a whole request is raised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeVar

from vmshepherd.runtime.v1 import event_pb2
from vmshepherd.runtime.v1 import runtime_service_pb2 as pb
from vmshepherd_kit import pages, stamps
from vmshepherd_kit.errors import (
    BadRequest,
    NotFound,
    ShepherdError,
    StaleFencingToken,
    VersionMismatch,
    Violation,
)
from vmshepherd_kit.status import to_proto

from .domain import (
    MIB,
    TOKEN_LIMIT,
    Acquired,
    Event,
    EventFilter,
    FencingToken,
    Grant,
    HeldLock,
    Lock,
    LockWish,
    NewSession,
    Session,
    SessionId,
    State,
    StateWrite,
    StoredEvent,
    VersionConflict,
    WriteOutcome,
    Written,
)

Message = TypeVar("Message")
Value = TypeVar("Value")

BATCH: Final = 10_000
_NAME_CHARACTERS: Final = 256
_VALUE_BYTES: Final = MIB
_EVENT_BYTES: Final = 16 * 1024
_LABEL_CHARACTERS: Final = 4096
_KINDS: Final = 100
# A floor this high comes from no store and no VM, and would use up the tokens of its name.
_FLOOR_LIMIT: Final = TOKEN_LIMIT // 2

_SHORTEST_TTL: Final = timedelta(milliseconds=100)
_LONGEST: Final = timedelta(minutes=10)

# Control characters, line separators and halves of surrogate pairs.
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


# What is asked


def batch(messages: Sequence[Message], field: str) -> Sequence[Message]:
    """The items of a request: some, and not too many."""
    if not 0 < len(messages) <= BATCH:
        raise _wrong(field, f"must have 1 to {BATCH} items, and has {len(messages)}")
    return messages


def each(
    parse: Callable[[Message, str], Value], messages: Sequence[Message], field: str
) -> list[Value | BadRequest]:
    """What every item means, or what is wrong with it."""
    return [_caught(parse, item, f"{field}[{i}]") for i, item in enumerate(batch(messages, field))]


def session_id(text: str) -> SessionId:
    """The id of a session."""
    return SessionId(name(text, "session_id"))


def new_session(request: pb.OpenSessionRequest, new_id: str) -> NewSession:
    """The session that shall begin."""
    ttl = stamps.from_duration(request.ttl)
    if not _SHORTEST_TTL <= ttl <= _LONGEST:
        raise _wrong("ttl", "must be 100 ms to 10 min")
    lock_delay = stamps.from_duration(request.lock_delay)
    if not timedelta(0) <= lock_delay <= _LONGEST:
        raise _wrong("lock_delay", "must be 0 to 10 min")
    return NewSession(
        session_id=SessionId(new_id),
        owner=name(request.owner, "owner"),
        ttl=ttl,
        lock_delay=lock_delay,
        labels=labels(request.labels),
    )


def labels(facts: Mapping[str, str]) -> Mapping[str, str]:
    """What others are told of the owner of a session."""
    if sum(len(key) + len(value) for key, value in facts.items()) > _LABEL_CHARACTERS:
        raise _wrong("labels", f"must not be longer than {_LABEL_CHARACTERS} characters together")
    return dict(facts)


def name(text: str, field: str) -> str:
    """A name of a lock, a state, an owner or an event."""
    if not 0 < len(text) <= _NAME_CHARACTERS:
        raise _wrong(field, f"must have 1 to {_NAME_CHARACTERS} characters")
    if _UNPRINTABLE.search(text):
        raise _wrong(field, "must not have control characters")
    return text


def wish(message: pb.LockWish, field: str) -> LockWish:
    """A lock that is wanted."""
    if not 0 <= message.floor < _FLOOR_LIMIT:
        raise _wrong(f"{field}.floor", "must be 0 or greater, and less than 2^61")
    return LockWish(name(message.name, f"{field}.name"), message.floor)


def held_lock(message: pb.HeldLock, field: str) -> HeldLock:
    """A lock that shall be freed."""
    return HeldLock(name(message.name, f"{field}.name"), _token(message, field))


def write(message: pb.StateWrite, field: str) -> StateWrite:
    """A state that shall be written."""
    if len(message.value) > _VALUE_BYTES:
        raise _wrong(f"{field}.value", "must not be larger than 1 MiB")
    if not message.HasField("expected_version"):
        raise _wrong(f"{field}.expected_version", "is required; 0 if nothing is stored yet")
    if message.expected_version < 0:
        raise _wrong(f"{field}.expected_version", "must not be negative")
    return StateWrite(
        name=name(message.name, f"{field}.name"),
        value=message.value,
        fencing_token=_token(message, field),
        expected_version=message.expected_version,
    )


def refuse_repeated_names(writes: Iterable[pb.StateWrite]) -> None:
    """BadRequest if a name stands there twice: which one is meant to be the last?"""
    seen: set[str] = set()
    for i, item in enumerate(writes):
        if item.name in seen:
            raise _wrong(f"writes[{i}].name", "stands in this request already")
        seen.add(item.name)


def event(message: event_pb2.Event, field: str, *, now: datetime) -> Event:
    """An event that shall be stored; one without a time happened now."""
    if message.ByteSize() > _EVENT_BYTES:
        raise _wrong(field, "must not be larger than 16 KiB")
    return Event(
        event_id=name(message.event_id, f"{field}.event_id"),
        time=stamps.from_timestamp(message.time) or now,
        preset=message.preset,
        vm_id=message.vm_id,
        kind=message.kind,
        reason=message.reason,
        message=message.message,
        actor=message.actor,
        fencing_token=message.fencing_token if message.HasField("fencing_token") else None,
        evidence=dict(message.evidence),
        severity=message.severity,
    )


def event_filter(message: event_pb2.EventFilter) -> EventFilter:
    """Which events are meant."""
    if len(message.kinds) > _KINDS:
        raise _wrong("filter.kinds", f"must not be more than {_KINDS}")
    return EventFilter(
        preset=message.preset,
        vm_id=message.vm_id,
        kinds=frozenset(message.kinds),
        since=stamps.from_timestamp(message.since_time),
    )


def resume_from(request: pb.WatchEventsRequest) -> int | None:
    """The sequence to go on after; None: from now on."""
    if not request.HasField("after_sequence"):
        return None
    if request.after_sequence < 0:
        raise _wrong("after_sequence", "must not be negative")
    return request.after_sequence


def after_number(page_token: str) -> int | None:
    """Behind which number the page begins; None for the first page."""
    after = pages.decode(page_token).get("after")
    if after is None or (isinstance(after, int) and 0 <= after < TOKEN_LIMIT):
        return after
    raise _wrong("page_token", "must be a next_page_token of this method")


def after_name(page_token: str) -> str:
    """Behind which name the page begins; "" for the first page."""
    after = pages.decode(page_token).get("after", "")
    if isinstance(after, str):
        return name(after, "page_token") if after else ""
    raise _wrong("page_token", "must be a next_page_token of this method")


# What is answered


def next_page(last: int | str, *, more: bool) -> str:
    """The token of the page behind the last item; "" when there is none."""
    return pages.encode({"after": last}) if more else ""


def from_session(session: Session, *, is_owner: bool) -> pb.Session:
    """A session; its id is for its owner only."""
    return pb.Session(
        session_id=session.session_id if is_owner else "",
        owner=session.owner,
        ttl=stamps.to_duration(session.ttl),
        lock_delay=stamps.to_duration(session.lock_delay),
        remaining=stamps.to_duration(session.remaining),
        age=stamps.to_duration(session.age),
        labels=session.labels,
    )


def from_grant(wanted: LockWish, grant: Grant) -> pb.LockResult:
    """Whose the lock is now."""
    if isinstance(grant, Acquired):
        answer = pb.Acquired(fencing_token=grant.fencing_token)
        return pb.LockResult(name=wanted.name, acquired=answer)
    held = pb.Held(owner=grant.owner, remaining=stamps.to_duration(grant.remaining))
    return pb.LockResult(name=wanted.name, held=held)


def from_lock(lock: Lock) -> pb.Lock:
    """A name that was locked."""
    return pb.Lock(
        name=lock.name,
        fencing_token=lock.fencing_token,
        owner=lock.owner or "",
        age=stamps.to_duration(lock.age),
    )


def from_state(state: State) -> pb.State:
    """A state."""
    return pb.State(
        name=state.name,
        value=state.value,
        version=state.version,
        fencing_token=state.fencing_token,
        written_time=stamps.to_timestamp(state.written),
    )


def from_state_or_none(wanted: str, state: State | None) -> pb.StateResult:
    """A state, or that it was never written."""
    if state is not None:
        return pb.StateResult(state=from_state(state))
    missing = NotFound(f"no state {wanted!r} was ever written", name=wanted)
    return pb.StateResult(status=to_proto(missing))


def from_outcome(written: StateWrite, outcome: WriteOutcome) -> pb.WriteResult:
    """What became of a write."""
    if isinstance(outcome, Written):
        return pb.WriteResult(version=outcome.version)
    return pb.WriteResult(status=to_proto(_refusal(written, outcome)))


def from_event(stored: StoredEvent) -> event_pb2.Event:
    """An event of the journal."""
    told = stored.event
    message = event_pb2.Event(
        event_id=told.event_id,
        sequence=stored.sequence,
        time=stamps.to_timestamp(told.time),
        preset=told.preset,
        vm_id=told.vm_id,
        kind=told.kind,
        reason=told.reason,
        message=told.message,
        actor=told.actor,
        fencing_token=told.fencing_token,
        evidence=told.evidence,
    )
    # An open enum: numbers of a later contract pass through.
    message.severity = told.severity  # type: ignore[assignment]
    return message


def _refusal(written: StateWrite, outcome: WriteOutcome) -> ShepherdError:
    if isinstance(outcome, VersionConflict):
        return VersionMismatch(
            f"the state {written.name!r} has version {outcome.version}, "
            f"not {written.expected_version}: read it again",
            name=written.name,
            version=str(outcome.version),
        )
    return StaleFencingToken(
        f"the lock {written.name!r} is not held by this session under that token: stop",
        name=written.name,
        fencing_token=str(written.fencing_token),
    )


def _token(message: pb.HeldLock | pb.StateWrite, field: str) -> FencingToken:
    # Absent reads as 0, and is refused all the same.
    if not 0 < message.fencing_token < TOKEN_LIMIT:
        raise _wrong(f"{field}.fencing_token", "is required: 1 or greater, and less than 2^62")
    return FencingToken(message.fencing_token)


def _caught(
    parse: Callable[[Message, str], Value], message: Message, field: str
) -> Value | BadRequest:
    try:
        return parse(message, field)
    except BadRequest as e:
        return e


def _wrong(field: str, description: str) -> BadRequest:
    return BadRequest(f"{field} {description}", violations=[Violation(field, description)])
