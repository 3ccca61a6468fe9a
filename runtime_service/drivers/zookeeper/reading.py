"""What one process has read of the journal: all events that are not forgotten, in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runtime_service.domain import Event, EventPage, EventQuery, StoredEvent, first_fitting

from .records import Head


class Reading:
    """The events up to a version of the head.  `journal` keeps it current."""

    def __init__(self, created: int = 0) -> None:
        self.created = created
        """Which head it is: another one begins another journal."""
        self.version = -1
        self.head = Head()
        self.is_current = False
        self.sequences: dict[str, int] = {}
        self.parts: dict[int, str] = {}
        """Of the chunks whose events are elsewhere: where, by their first sequence."""
        self._events: dict[int, Event] = {}

    def new(self, events: Iterable[Event]) -> list[StoredEvent]:
        """Those that are not stored yet, each once, with the next sequences."""
        unknown = {e.event_id: e for e in events if e.event_id not in self.sequences}
        return [StoredEvent(s, e) for s, e in enumerate(unknown.values(), self.head.newest + 1)]

    def take(self, events: Sequence[StoredEvent]) -> None:
        """Add events of the journal; those that are known are skipped."""
        for stored in events:
            if stored.sequence > self.head.newest:
                self._events[stored.sequence] = stored.event
                self.sequences[stored.event.event_id] = stored.sequence

    def reach(self, head: Head, version: int) -> None:
        """All events up to this head are taken, but for its own."""
        self.take(head.tail)
        self.head, self.version = head, version
        while self._events and (oldest := next(iter(self._events))) <= head.forgotten:
            del self.sequences[self._events.pop(oldest).event_id]

    def page(self, query: EventQuery) -> EventPage:
        """What is found of a query."""
        places = self._places(query)
        events = (StoredEvent(place, self._events[place]) for place in places)
        page = first_fitting((e for e in events if query.filter.takes(e.event)), query.limit)
        return EventPage(
            events=page.items,
            more=page.more,
            forgotten=self.head.forgotten,
            newest=self.head.newest,
        )

    def _places(self, query: EventQuery) -> range:
        oldest, newest = self.head.forgotten + 1, self.head.newest
        if query.ascending:
            return range(max(oldest, (query.after or 0) + 1), newest + 1)
        before = newest + 1 if query.after is None else query.after
        return range(min(before - 1, newest), oldest - 1, -1)
