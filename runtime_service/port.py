"""What a store must do to keep the suite's memory: the port of the drivers in the group
`vmshepherd.drivers.runtime`.

Each item of a batch is one atomic step of the store, a batch of events as a whole, and survives
whatever its traits promise once it is answered.  Cancelling a caller never halves a step.  When a
session expires is judged by the store alone, never by a clock of its owner.
`testing.RuntimeStoreContract` says the same as tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Final, Protocol

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.settings import Settings

from .domain import (
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
)

NOTHING_NEW: Final[Mapping[str, str]] = MappingProxyType({})
"""Labels of a refresh that leaves them as they are."""

GROUP: Final = "runtime"
"""Short for the entry-point group `vmshepherd.drivers.runtime`."""


class Trait(StrEnum):
    """What a store guarantees beyond the port."""

    DURABLE = "durable"
    """What was answered is there after any crash of the process or of the machine."""
    EXCLUSIVE = "exclusive"
    """At most one runtime_service uses it at a time, and the store itself makes sure of it."""


class Sessions(Protocol):
    """Sessions and the locks that live as long as they do."""

    async def open_session(self, new: NewSession) -> Session:
        """Begin a session under an id that nobody has."""
        ...

    async def refresh_session(
        self, session_id: SessionId, labels: Mapping[str, str] = NOTHING_NEW
    ) -> Session:
        """Let it live for another ttl, with these labels in place of its own, if there are any.

        SessionLost when it has expired, even if nobody noticed, or was closed.
        """
        ...

    async def close_session(self, session_id: SessionId) -> bool:
        """End it and free its locks at once; False when it was not alive any more."""
        ...

    async def list_sessions(self, *, after: int, limit: int) -> Page[Session]:
        """Live sessions with a greater number than `after`, in order."""
        ...

    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]:
        """What each wish gets, in order.  SessionLost."""
        ...

    async def unlock(self, session_id: SessionId, locks: Sequence[HeldLock]) -> list[bool]:
        """Whether that session held each under that token, in order; if so, it is free now."""
        ...

    async def list_locks(self, *, after: str, limit: int) -> Page[Lock]:
        """Every name ever locked that sorts behind `after`, in order."""
        ...


class States(Protocol):
    """Values that survive their writers, each guarded by the lock of the same name."""

    async def get_states(self, names: Sequence[str]) -> list[State | None]:
        """The states in order, None for what was never written.  BadRequest when they fit no
        answer.
        """
        ...

    async def list_states(self, *, prefix: str, after: str, limit: int) -> Page[State]:
        """States with the prefix whose names sort behind `after`, in order; fewer than `limit` when
        they are large.
        """
        ...

    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]:
        """What becomes of each write, in order, no name twice; token and version are checked in the
        step that writes.

        SessionLost: nothing is written then.  Of a session that ends meanwhile, the rest is stale.
        """
        ...


class Journal(Protocol):
    """The events of the suite, in order, bounded by forgetting the oldest."""

    async def append_events(self, events: Sequence[Event]) -> list[int]:
        """The sequence of each, in order; an id that is stored already keeps its sequence.  All or
        none.
        """
        ...

    async def read_events(self, query: EventQuery) -> EventPage:
        """A page of the journal, and how far the journal reaches at the same moment."""
        ...

    async def grown_beyond(self, sequence: int) -> None:
        """Wait until the newest sequence may be greater than this one."""
        ...


class RuntimeStore(Sessions, States, Journal, Protocol):
    """A store, opened.  Whatever it cannot do for the moment is Unavailable, or QuotaExceeded when
    it is full.
    """

    @property
    def traits(self) -> frozenset[Trait]:
        """What it guarantees."""
        ...


class Driver(Protocol):
    """The class that an entry point names; `settings.parse` makes its options."""

    Options: ClassVar[type[Settings]]

    @classmethod
    def open(
        cls, options: Any, *, suite: Suite, clock: Clock
    ) -> AbstractAsyncContextManager[RuntimeStore]:
        """The store, within the block; what it holds open is closed behind it."""
        ...
