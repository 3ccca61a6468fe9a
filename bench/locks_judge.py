"""Whether locks were locks: what clients did and were told, and what was wrong about it.

Pure.  All moments are readings of one clock in one process, so that "before" means before.  Clients
of bench/locks.py write the history; nothing here knows how it came about.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import TypeVar

Item = TypeVar("Item", bound="Grant | Write | Sight")
Seconds = float


@dataclass(slots=True)
class Grant:
    """A lock that a session got anew: its client had the right to act from `answered` until
    `ended`.
    """

    name: str
    client: int
    session: str
    token: int
    asked: Seconds
    answered: Seconds
    ended: Seconds


@dataclass(frozen=True, slots=True)
class Write:
    """A state that was written, or tried; `version` is None if it was refused or nobody knows.

    `mark` is in its value: whoever reads the state sees whose write it is.
    """

    name: str
    mark: str
    token: int
    sent: Seconds
    answered: Seconds
    version: int | None


@dataclass(frozen=True, slots=True)
class Sight:
    """A state as somebody read it."""

    name: str
    mark: str
    token: int
    version: int
    sent: Seconds
    answered: Seconds


@dataclass(slots=True)
class History:
    """All that clients of one store did."""

    grants: list[Grant] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    sights: list[Sight] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Findings:
    """What was wrong, in sentences; all empty is what is wanted."""

    overlaps: tuple[str, ...]
    token_regressions: tuple[str, ...]
    stale_writes: tuple[str, ...]
    state_regressions: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        """Every sentence."""
        return (
            *self.overlaps,
            *self.token_regressions,
            *self.stale_writes,
            *self.state_regressions,
        )


def judge(history: History) -> Findings:
    """All that is wrong in a history."""
    return Findings(
        overlaps=tuple(_each(history.grants, _overlaps)),
        token_regressions=tuple(_each(history.grants, _token_regressions)),
        stale_writes=tuple(_stale_writes(history)),
        state_regressions=tuple(_each(_known_versions(history), _state_regressions)),
    )


def longest_pause(grants: Iterable[Grant], began: Seconds, ended: Seconds) -> Seconds:
    """The longest time in which nobody was granted anything."""
    moments = [began, *sorted(grant.answered for grant in grants), ended]
    return max(later - sooner for sooner, later in pairwise(moments))


def _overlaps(grants: list[Grant]) -> Iterator[str]:
    """Two clients that had the right to act on one name at one moment."""
    acting = sorted((g for g in grants if g.ended > g.answered), key=lambda g: g.answered)
    longest: Grant | None = None
    for grant in acting:
        if longest and longest.client != grant.client and grant.answered < longest.ended:
            yield f"{_told(longest)} until {longest.ended:.6f}, and {_told(grant)} meanwhile"
        if longest is None or grant.ended > longest.ended:
            longest = grant


def _token_regressions(grants: list[Grant]) -> Iterator[str]:
    """A token of two sessions, or one that is not greater than what was granted before."""
    newest = _newest_before(grants)
    owners: dict[int, Grant] = {}
    for grant in sorted(grants, key=lambda grant: grant.asked):
        other = owners.setdefault(grant.token, grant)
        before = newest(grant.asked)
        if other.session != grant.session:
            yield f"one token of two sessions: {_told(other)}, and {_told(grant)}"
        elif before and before.token >= grant.token:
            yield f"{_told(before)}, and asked for later {_told(grant)}"


def _stale_writes(history: History) -> Iterator[str]:
    """Writes that were taken after somebody had been told of a newer grant."""
    newest = {name: _newest_before(own) for name, own in _by_name(history.grants).items()}
    for write in _taken(history):
        later = newest[write.name](write.sent) if write.name in newest else None
        if later and later.token > write.token:
            yield f"{_told(later)}, and a write sent at {write.sent:.6f} under {write.token} taken"


def _taken(history: History) -> Iterator[Write]:
    """Writes that were answered so, or seen by somebody who read."""
    seen = {(sight.name, sight.mark) for sight in history.sights}
    for write in history.writes:
        if write.version is not None or (write.name, write.mark) in seen:
            yield write


def _known_versions(history: History) -> list[Sight]:
    """What is known of stored versions, from those who read and those whose write was answered."""
    own = (
        Sight(w.name, w.mark, w.token, w.version, w.sent, w.answered)
        for w in history.writes
        if w.version is not None
    )
    return [*history.sights, *own]


def _state_regressions(sights: list[Sight]) -> Iterator[str]:
    """A version of two writes, a version whose token is older than a former one's, or what was
    there and is not there any more.
    """
    yield from _marks_that_differ(sights)
    by_version = sorted(sights, key=lambda sight: (sight.version, sight.answered))
    for sooner, later in pairwise(by_version):
        if later.token < sooner.token:
            yield f"{_seen(sooner)}, and then {_seen(later)}"
    newest = _newest_before(sights, rank="version")
    for sight in sights:
        before = newest(sight.sent)
        if before and before.version > sight.version:
            yield f"{_seen(before)}, and asked for later {_seen(sight)}"


def _marks_that_differ(sights: list[Sight]) -> Iterator[str]:
    first: dict[int, Sight] = {}
    for sight in sights:
        other = first.setdefault(sight.version, sight)
        if other.mark != sight.mark:
            yield f"one version of two writes: {_seen(other)}, and {_seen(sight)}"


def _newest_before(
    items: Iterable[Item], *, rank: str = "token"
) -> Callable[[Seconds], Item | None]:
    """Which of those that were answered before a moment has the greatest token, or version."""
    answered = sorted(items, key=lambda item: item.answered)
    ranked = attrgetter(rank)
    greatest: list[Item] = list(
        accumulate(answered, lambda one, other: max(one, other, key=ranked))
    )

    def look(moment: Seconds) -> Item | None:
        place = bisect_left(answered, moment, key=lambda item: item.answered)
        return greatest[place - 1] if place else None

    return look


def _by_name(items: Iterable[Item]) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        found[item.name].append(item)
    return found


def _each(items: Sequence[Item], rule: Callable[[list[Item]], Iterator[str]]) -> Iterator[str]:
    """What a rule says of the items of each name."""
    for own in _by_name(items).values():
        yield from rule(own)


def _told(grant: Grant) -> str:
    return (
        f"{grant.name} granted to client {grant.client} under {grant.token} (asked at "
        f"{grant.asked:.6f}, answered at {grant.answered:.6f})"
    )


def _seen(sight: Sight) -> str:
    return (
        f"{sight.name} in version {sight.version} under {sight.token} by {sight.mark or 'nobody'} "
        f"(asked at {sight.sent:.6f}, answered at {sight.answered:.6f})"
    )
