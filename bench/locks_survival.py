"""What must have survived a kill: what was answered, compared with what is found.  Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from runtime_service.domain import Lock, State, StoredEvent

EVENTS_A_BATCH: Final = 5
# Many pages of the file, and none like that of another version: a half is not mistaken for all.
_REPEATS: Final = 1000


@dataclass(slots=True)
class Answered:
    """The newest of what was answered to anybody; events are those of the present life."""

    tokens: dict[str, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    """Sequences by ids."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the opened file holds; events are those of the present life."""

    locks: Sequence[Lock]
    states: Sequence[State]
    events: Sequence[StoredEvent]
    integrity: str


def value_of(name: str, version: int) -> bytes:
    """What is written as a version of a state."""
    return f"{name} in version {version}, ".encode() * _REPEATS


def event_ids(batch: str) -> list[str]:
    """The ids of the events of one batch."""
    return [f"{batch}/{number}" for number in range(EVENTS_A_BATCH)]


def wrong(answered: Answered, found: Found) -> Iterator[str]:
    """All that is lost, half there, or damaged."""
    tokens = {lock.name: lock.fencing_token for lock in found.locks}
    versions = {state.name: state.version for state in found.states}
    yield from _gone_back("token", answered.tokens, tokens)
    yield from _gone_back("version", answered.versions, versions)
    yield from _events_lost(answered, found)
    for state in found.states:
        if state.value != value_of(state.name, state.version):
            yield f"half a state: {state.name} in version {state.version}"
    for batch, number in _batches(found).items():
        if number != EVENTS_A_BATCH:
            yield f"half a batch: {number} events of {batch}"
    if found.integrity != "ok":
        yield f"damaged: {found.integrity}"


def unanswered(answered: Answered, found: Found) -> int:
    """How much is stored that nobody was told of: it was being answered when the kill came."""
    tokens = sum(lock.fencing_token > answered.tokens.get(lock.name, 0) for lock in found.locks)
    versions = sum(state.version > answered.versions.get(state.name, 0) for state in found.states)
    return tokens + versions + len(found.events) - len(answered.events)


def _gone_back(what: str, told: Mapping[str, int], stored: Mapping[str, int]) -> Iterator[str]:
    for name, number in told.items():
        if stored.get(name, 0) < number:
            yield f"lost: {what} {number} of {name}, found {stored.get(name, 0)}"


def _events_lost(answered: Answered, found: Found) -> Iterator[str]:
    stored = {each.event.event_id: each.sequence for each in found.events}
    for event_id, sequence in answered.events.items():
        if stored.get(event_id) != sequence:
            yield f"lost: event {event_id} at {sequence}, found at {stored.get(event_id)}"


def _batches(found: Found) -> Counter[str]:
    return Counter(each.event.event_id.rpartition("/")[0] for each in found.events)
