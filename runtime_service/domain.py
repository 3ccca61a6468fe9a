"""What the store is asked and what it answers: frozen values, no gRPC.

Servicer, rules and drivers speak in these.  Refusals that concern one item of a batch are values
here; errors that concern a whole call are raised from `vmshepherd_kit.errors`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Generic, NewType, Protocol, TypeVar

from vmshepherd_kit.errors import BadRequest

SessionId = NewType("SessionId", str)
FencingToken = NewType("FencingToken", int)

MIB: Final = 1024 * 1024

TOKEN_LIMIT: Final = 2**62
"""Tokens stay below this, so that every language's 64-bit integer holds them and the next one."""

PAGE_BYTES: Final = 2 * MIB
"""Values on one page: what a client with gRPC's own limit of 4 MiB a message can receive."""

ANSWER_BYTES: Final = 12 * MIB
"""Values in an answer that cannot be split into pages: what a client of the suite can receive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewSession:
    """A session that shall begin."""

    session_id: SessionId
    owner: str
    ttl: timedelta
    lock_delay: timedelta = timedelta(0)
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A session as it was when the store answered; `number` is its place in order of opening."""

    number: int
    session_id: SessionId
    owner: str
    ttl: timedelta
    lock_delay: timedelta
    remaining: timedelta
    age: timedelta
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LockWish:
    """A lock that is wanted, under a token greater than `floor`."""

    name: str
    floor: int = 0


@dataclass(frozen=True, slots=True)
class Acquired:
    """The lock is the asker's."""

    fencing_token: FencingToken


@dataclass(frozen=True, slots=True)
class Held:
    """The lock is another's, for so long at most unless the session is refreshed."""

    owner: str
    remaining: timedelta


Grant = Acquired | Held


@dataclass(frozen=True, slots=True)
class HeldLock:
    """A lock and the token it is held under."""

    name: str
    fencing_token: FencingToken


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """A name that was locked at least once; its owner is None while it is free."""

    name: str
    fencing_token: FencingToken
    owner: str | None
    age: timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """A value as it is stored; `written` is for people only."""

    name: str
    value: bytes
    version: int
    fencing_token: FencingToken
    written: datetime

    @property
    def size(self) -> int:
        """Bytes that it takes up in an answer, about."""
        return len(self.value) + len(self.name.encode())


@dataclass(frozen=True, kw_only=True, slots=True)
class StateWrite:
    """A value to be stored, if its lock is held under the token and its version is still this (0:
    nothing is stored yet).
    """

    name: str
    value: bytes
    fencing_token: FencingToken
    expected_version: int


@dataclass(frozen=True, slots=True)
class Written:
    """The value is stored under this version."""

    version: int


@dataclass(frozen=True, slots=True)
class StaleToken:
    """The session does not hold the lock under that token; the newest grant's token is this, 0 when
    there was none.
    """

    newest: int


@dataclass(frozen=True, slots=True)
class VersionConflict:
    """The stored version is another: this, 0 when nothing is stored."""

    version: int


WriteOutcome = Written | StaleToken | VersionConflict


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """What happened and why, as its writer tells it.  `severity` is the contract's number: unknown
    ones are kept.
    """

    event_id: str
    time: datetime
    preset: str = ""
    vm_id: str = ""
    kind: str = ""
    reason: str = ""
    message: str = ""
    actor: str = ""
    fencing_token: int | None = None
    evidence: Mapping[str, str] = field(default_factory=dict)
    severity: int = 0


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event at its place in the journal."""

    sequence: int
    event: Event

    @property
    def size(self) -> int:
        """Bytes that it takes up in an answer, about."""
        told = self.event
        places = (told.event_id, told.preset, told.vm_id, told.kind, told.reason, told.actor)
        facts = (part for fact in told.evidence.items() for part in fact)
        return 64 + len("".join((*places, told.message, *facts)).encode())


@dataclass(frozen=True, kw_only=True, slots=True)
class EventFilter:
    """Which events are meant; empty means all."""

    preset: str = ""
    vm_id: str = ""
    kinds: frozenset[str] = frozenset()
    since: datetime | None = None

    def takes(self, event: Event) -> bool:
        """Whether the event is meant."""
        return (
            self.preset in {"", event.preset}
            and self.vm_id in {"", event.vm_id}
            and (not self.kinds or event.kind in self.kinds)
            and (self.since is None or event.time >= self.since)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class EventQuery:
    """A page of the journal: at most `limit` events beyond the sequence `after`, in the direction
    of reading.
    """

    filter: EventFilter = EventFilter()
    ascending: bool = False
    after: int | None = None
    limit: int = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class EventPage:
    """What was found, and how far the journal reached at that moment."""

    events: tuple[StoredEvent, ...]
    more: bool
    forgotten: int
    """Events up to this sequence are trimmed."""
    newest: int
    """The greatest sequence ever given."""


class Sized(Protocol):
    """Something that takes up room in an answer."""

    @property
    def size(self) -> int:
        """How much, about."""
        ...


Item = TypeVar("Item")
SizedItem = TypeVar("SizedItem", bound=Sized)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some items in order, and whether there are more behind them."""

    items: tuple[Item, ...]
    more: bool


def first(items: Iterable[Item], limit: int) -> Page[Item]:
    """The first items, at most `limit`."""
    taken: list[Item] = []
    for item in items:
        if len(taken) == limit:
            return Page(tuple(taken), more=True)
        taken.append(item)
    return Page(tuple(taken), more=False)


def first_fitting(items: Iterable[SizedItem], limit: int) -> Page[SizedItem]:
    """The first items, at most `limit` and at most what fits one answer, but never none of some."""
    taken: list[SizedItem] = []
    size = 0
    for item in items:
        size += item.size
        if taken and (len(taken) == limit or size > PAGE_BYTES):
            return Page(tuple(taken), more=True)
        taken.append(item)
    return Page(tuple(taken), more=False)


def refuse_too_large(size: int) -> None:
    """BadRequest if states that take up so much are asked for in one answer."""
    if size > ANSWER_BYTES:
        raise BadRequest(
            f"these states take up {size} bytes, one answer at most {ANSWER_BYTES}: ask for fewer",
            reason="ANSWER_TOO_LARGE",
        )
