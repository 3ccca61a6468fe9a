"""What clients asked of one name, when, and what they were told: the words of a history.

`record` writes it, `model` knows what each of them may mean, `check` looks for an order of them
that explains all.  Moments are nanoseconds of one monotonic clock; sessions go by the names of
their owners, which are unique in a history.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from runtime_service.domain import Acquired, StaleToken, VersionConflict, Written


@dataclass(frozen=True, slots=True)
class TryLock:
    """A session wants the lock, under a token greater than the floor."""

    session: str
    floor: int = 0
    is_alone: bool = True
    """False for one of several wishes of a call: the session may end between them."""


@dataclass(frozen=True, slots=True)
class Unlock:
    """A session gives the lock back."""

    session: str
    token: int


@dataclass(frozen=True, slots=True)
class Put:
    """A session writes a value that nobody else ever writes."""

    session: str
    token: int
    expected: int
    value: str


@dataclass(frozen=True, slots=True)
class Get:
    """Somebody reads the state."""


@dataclass(frozen=True, slots=True)
class Look:
    """Somebody reads who holds the lock."""


@dataclass(frozen=True, slots=True)
class Refresh:
    """A session wants to live on."""

    session: str


@dataclass(frozen=True, slots=True)
class Close:
    """A session ends."""

    session: str


@dataclass(frozen=True, slots=True)
class Expire:
    """The store ends a session that nobody refreshed, and frees its locks if the delay is over."""

    session: str
    frees: bool


Ask = TryLock | Unlock | Put | Get | Look | Refresh | Close | Expire


@dataclass(frozen=True, slots=True)
class HeldBy:
    """The lock is that session's."""

    session: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A state as it was read; version 0 is none at all."""

    value: str = ""
    version: int = 0
    token: int = 0


@dataclass(frozen=True, slots=True)
class Looked:
    """A lock as it was read; its holder is None while it is free."""

    token: int
    holder: str | None


@dataclass(frozen=True, slots=True)
class Lost:
    """SessionLost."""


Answer = Acquired | HeldBy | bool | Written | StaleToken | VersionConflict | Seen | Looked | Lost

LOST: Final = Lost()
UNTOLD: Final = -1
"""The newest token of a refusal that does not tell it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One ask and its answer; None is no answer at all: it takes effect at any time since, or
    never.
    """

    client: str
    ask: Ask
    answer: Answer | None
    sent: int
    answered: int | None = None

    @property
    def session(self) -> str | None:
        """Who asks, if it matters."""
        return getattr(self.ask, "session", None)

    @property
    def is_open(self) -> bool:
        """Whether nobody knows what became of it."""
        return self.answered is None


@dataclass(frozen=True, kw_only=True, slots=True)
class Lifetime:
    """When a session may expire at the earliest, and when its locks may be free then."""

    session: str
    expires: int
    frees: int


_READS = (Get, Look, Refresh)


def by_name(
    named: Iterable[tuple[str, Call]], of_sessions: Iterable[Call], lifetimes: Iterable[Lifetime]
) -> dict[str, list[Call]]:
    """The calls that concern each name, in the order in which they were sent.

    Names do not influence each other, so that each may be explained alone.  The ends of a session
    concern every name that it ever asked for.
    """
    calls: Mapping[str, list[Call]] = defaultdict(list)
    for name, call in named:
        calls[name].append(call)
    ends = [*of_sessions, *(end for life in lifetimes for end in _ends(life))]
    for asked in calls.values():
        sessions = {call.session for call in asked}
        asked.extend(call for call in ends if call.session in sessions)
    return {name: in_order(asked) for name, asked in sorted(calls.items())}


def in_order(calls: Iterable[Call]) -> list[Call]:
    """Without those that tell nothing: reads that nobody answered."""
    telling = (call for call in calls if not (call.is_open and isinstance(call.ask, _READS)))
    return sorted(telling, key=lambda call: call.sent)


def _ends(life: Lifetime) -> Iterator[Call]:
    for frees, moment in ((False, life.expires), (True, life.frees)):
        ask = Expire(life.session, frees=frees)
        yield Call(client="store", ask=ask, answer=None, sent=moment)
