"""When a session is over, judged by what this process saw of it: pure.

ZooKeeper tells nobody the time.  As in client-go, a session is over when the same beat was seen for
its whole ttl on the observer's own clock, counted from after the beat was first seen.  So it lives
at least as long as it may, whatever the clocks of others say; that it is over becomes true for all
by deleting its life at that beat, which a refresh in the meantime prevents.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta

from runtime_service.domain import SessionId
from runtime_service.rules import SessionRecord


@dataclass(frozen=True, slots=True)
class _Sight:
    """A beat (None: the life has ended), and since when nothing else was seen."""

    beat: int | None
    since: timedelta


class Lives:
    """The beats that were seen, and when."""

    def __init__(self) -> None:
        self._sights: dict[SessionId, _Sight] = {}

    def seen(self, session: SessionRecord, beat: int | None, now: timedelta) -> SessionRecord:
        """The session with the end of its life, by what is seen of it now."""
        sight = self._sights.get(session.session_id)
        if sight is None or sight.beat != beat:
            sight = self._sights[session.session_id] = _Sight(beat, now)
        left = timedelta(0) if beat is None else session.ttl
        return replace(session, expires=sight.since + left)

    def ended(self, session: SessionRecord) -> None:
        """Its life was ended, at the beat that it was judged by."""
        self._sights[session.session_id] = _Sight(None, session.expires)

    def keep(self, sessions: Collection[SessionId]) -> None:
        """Forget all others: they are gone."""
        self._sights = {each: sight for each, sight in self._sights.items() if each in sessions}
