"""Is there an order of these calls that explains every answer?

A search after Wing and Gong, just in time as in G. Lowe, "Testing for linearizability" (2017): it
walks along the sending and answering of calls, and lets a call take effect only when an answer
demands it, at some moment since it was sent.  No place is tried twice.  A call without an answer
may take effect at any later time, or never.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from .calls import Call, Close, Expire, TryLock
from .model import Model, Name

MOST_PLACES: Final = 300_000
"""Places that are tried before the search gives up."""

Done = frozenset[int]
Event = tuple[int, int, int]
"""When, whether something was answered (1) or sent (0), and which call that is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """No order explains the answer of this call, whatever became of those before it."""

    call: Call
    possible: tuple[Name, ...]
    """What the name can have been before it took effect."""
    is_proven: bool = True
    """False when the search gave up: then it may be all right."""


def violation(
    calls: Sequence[Call], *, initial: Name | None = None, most_places: int = MOST_PLACES
) -> Violation | None:
    """The first answer that nothing explains; None when the calls of a name are linearizable."""
    search = _Search(calls)
    return search.run(initial or Name(), most_places)


class _Search:
    """A place is an event that comes next, a state, and the calls that have taken effect early."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._calls = calls
        self._model = Model(calls)
        self._events = list(_events(calls))
        self._waiting = list(_waiting(calls, self._events))
        self._open = [n for n, call in enumerate(calls) if call.is_open]
        self._silent = list(_silent(calls, self._events))
        self._tried: set[tuple[int, Name, Done]] = set()
        self._furthest = 0

    def run(self, initial: Name, most_places: int) -> Violation | None:
        """Try one place after the other, the likeliest first."""
        places: list[tuple[int, Name, Done]] = [(0, initial, frozenset())]
        while places:
            place = places.pop()
            if place in self._tried:
                continue
            if place[0] == len(self._events):
                return None
            if len(self._tried) == most_places:
                return self._violation(is_proven=False)
            self._tried.add(place)
            self._furthest = max(self._furthest, place[0])
            places.extend(self._next(*place))
        return self._violation(is_proven=True)

    def _next(self, at: int, name: Name, done: Done) -> list[tuple[int, Name, Done]]:
        """Where one may go from there, the likeliest last."""
        moment, is_answer, number = self._events[at]
        if not is_answer:
            return [(at + 1, name, done)]
        if number in done:
            # Whether a session has ended that has nothing to say any more does not matter.
            forgotten = self._silent[at] - {name.holder}
            name = name._replace(ended=name.ended - forgotten)
            return [(at + 1, name, done - {number})]
        ways = []
        for each in self._waiting[at]:
            if each not in done:
                states = self._model.after(name, self._calls[each])
                if states == [name]:
                    # It changes nothing: sooner is as good as later.
                    return [(at, name, done | {each})]
                ways += [(at, state, done | {each}) for state in states]
        return [*self._by_open_calls(at, name, done, moment), *reversed(ways)]

    def _by_open_calls(
        self, at: int, name: Name, done: Done, moment: int
    ) -> Iterator[tuple[int, Name, Done]]:
        asking = {name.holder, *(self._calls[n].session for n in self._waiting[at])}
        for each in self._open:
            call = self._calls[each]
            if each in done or call.sent > moment:
                continue
            # Who neither holds the lock nor waits for an answer may as well end later.
            if isinstance(call.ask, Close | Expire) and call.session not in asking:
                continue
            for state in self._model.after(name, call):
                if state != name:
                    yield at, state, done | {each}

    def _violation(self, *, is_proven: bool) -> Violation:
        call = self._calls[self._events[self._furthest][2]]
        possible = {name: None for at, name, _ in self._tried if at == self._furthest}
        return Violation(call=call, possible=tuple(possible), is_proven=is_proven)


def _events(calls: Sequence[Call]) -> list[Event]:
    sent = [(call.sent, 0, number) for number, call in enumerate(calls)]
    answered = [(c.answered, 1, n) for n, c in enumerate(calls) if c.answered is not None]
    return sorted(sent + answered)


def _waiting(calls: Sequence[Call], events: Sequence[Event]) -> Iterator[tuple[int, ...]]:
    """The calls that wait for their answer before each event, the earliest answer first."""
    waiting: list[int] = []
    for _, is_answer, number in events:
        yield tuple(waiting)
        if is_answer:
            waiting.remove(number)
        elif not calls[number].is_open:
            waiting.append(number)
            waiting.sort(key=lambda n: calls[n].answered or 0)


def _silent(calls: Sequence[Call], events: Sequence[Event]) -> Iterator[frozenset[str | None]]:
    """The sessions of which nothing can be heard any more behind each event."""
    last = {calls[n].session: at for at, (_, is_answer, n) in enumerate(events) if is_answer}
    # These may take effect at any time, even of one that does not hold the lock.
    endless = {call.session for call in calls if call.is_open and isinstance(call.ask, TryLock)}
    ends = {at: session for session, at in last.items() if session not in endless}
    silent: frozenset[str | None] = frozenset()
    for at in range(len(events)):
        silent |= {ends[at]} if at in ends else set()
        yield silent
