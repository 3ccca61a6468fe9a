"""The sessions in ZooKeeper: opened, refreshed, closed, and ended when their time is over.

A session is a node with what is known of it and, as long as it may act, a child: its life.  Whoever
acts for a session makes its life a condition of the transaction, so that no act of it comes after
its end.  Once the lock delay has passed, too, the node itself goes, and only then the locks are
free: what one process says of a session is so for all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from runtime_service import rules
from runtime_service.domain import NewSession, Page, Session, SessionId, first
from runtime_service.rules import SessionRecord
from vmshepherd_kit.clock import Clock

from . import records
from .connection import Connection
from .failures import Conflict
from .lives import Lives
from .operations import Check, Create, Delete, Node, Operation, Set
from .paths import Paths, unquoted
from .records import Moment


@dataclass(frozen=True, slots=True)
class Known:
    """A session that keeps its locks, and the versions of its two nodes."""

    record: SessionRecord
    node: Node
    beat: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """Sessions as they were at a moment; whatever is decided upon them is decided for then."""

    known: Mapping[SessionId, Known]
    now: timedelta

    @property
    def records(self) -> dict[SessionId, SessionRecord]:
        """The sessions, for the rules."""
        return {each: known.record for each, known in self.known.items()}

    def live(self, session_id: SessionId) -> Known:
        """One that may act.  SessionLost."""
        rules.live(self.records.get(session_id), self.now)
        return self.known[session_id]


class Registry:
    """All sessions."""

    def __init__(self, connection: Connection, paths: Paths, clock: Clock) -> None:
        self._connection = connection
        self._paths = paths
        self._clock = clock
        self._lives = Lives()

    # What others build upon, within their steps

    async def find(self, ids: Iterable[SessionId], *, lax: bool = False) -> Found:
        """Those of the sessions that keep their locks.

        Whoever's time is over has ended for all others, too, before it is told here.
        """
        asked = list(dict.fromkeys(ids))
        paths = [path for each in asked for path in self._both(each)]
        nodes = await self._connection.read(paths, lax=lax)
        moment = Moment.now(self._clock)
        seen = {
            each: self._seen(each, node, life, moment)
            for each, node, life in zip(asked, nodes[::2], nodes[1::2], strict=True)
            if node is not None
        }
        for known in seen.values():
            await self._end_if_over(known, moment.elapsed)
        kept = {i: known for i, known in seen.items() if known.record.is_holding(moment.elapsed)}
        return Found(kept, moment.elapsed)

    async def sure(self, session_id: SessionId) -> Found:
        """One session; only that it may act need not be looked at twice, for what it does then
        has its life as a condition.
        """
        found = await self.find([session_id], lax=True)
        known = found.known.get(session_id)
        is_live = known is not None and known.record.is_live(found.now)
        return found if is_live else await self.find([session_id])

    def lives(self, session_id: SessionId) -> Operation:
        """The condition of all that a session does."""
        return Check(self._paths.life(session_id))

    def is_gone(self, session_id: SessionId) -> Iterator[Operation]:
        """The condition that a session is not there, for whoever takes its locks."""
        node = self._paths.session(session_id)
        yield Create(node)
        yield Delete(node)

    # Steps

    async def open(self, new: NewSession) -> Session:
        """See the port."""
        data = records.from_session(new, Moment.now(self._clock))
        node, life = self._both(new.session_id)
        try:
            await self._connection.commit(Create(node, data), Create(life))
        except Conflict:
            # By a former try, whose answer was lost, it may be open.
            if new.session_id not in (await self.find([new.session_id])).known:
                raise
        found = await self.find([new.session_id], lax=True)
        return found.live(new.session_id).record.seen(found.now)

    async def refresh(self, session_id: SessionId, labels: Mapping[str, str]) -> Session:
        """See the port."""
        known = (await self.sure(session_id)).live(session_id)
        node, life = self._both(session_id)
        beats: list[Operation] = [Set(life, b"", _beat(known))]
        if labels:
            data = records.with_labels(known.node.data, dict(labels))
            beats.append(Set(node, data, known.node.version))
        await self._connection.commit(*beats)
        now = self._clock.elapsed()
        session = self._lives.seen(known.record, _beat(known) + 1, now)
        return session.refreshed(now, labels).seen(now)

    async def list(self, *, after: int, limit: int) -> Page[Session]:
        """See the port."""
        found = await self._all(lax=False)
        wanted = (s for s in found.records.values() if s.is_live(found.now) and s.number > after)
        in_order = sorted(wanted, key=lambda session: session.number)
        return first((session.seen(found.now) for session in in_order), limit)

    async def look(self) -> None:
        """End those whose time is over, and see the beats of the others."""
        self._lives.keep((await self._all(lax=True)).known)

    def closing(self, session_id: SessionId) -> Callable[[], Awaitable[bool]]:
        """The step that closes it.  After a lost answer, one that is gone was closed by us."""
        tried = False

        async def close() -> bool:
            nonlocal tried
            found = await self.find([session_id])
            known = found.known.get(session_id)
            if known is None or not known.record.is_live(found.now):
                return tried and known is None
            node, life = self._both(session_id)
            tried = True
            try:
                await self._connection.commit(Delete(life, _beat(known)), Delete(node))
            except Conflict:
                tried = False
                raise
            return True

        return close

    # What they are made of

    async def _all(self, *, lax: bool) -> Found:
        names = await self._connection.children(self._paths.sessions, lax=lax)
        return await self.find((SessionId(unquoted(name)) for name in names), lax=lax)

    async def _end_if_over(self, known: Known, now: timedelta) -> None:
        """Make it true for all that a life is over, or that its locks are free.

        A refresh in the meantime has set another version: then the step is repeated.
        """
        session = known.record
        node, life = self._both(session.session_id)
        ending: list[Operation] = []
        if known.beat is not None and not session.is_live(now):
            ending.append(Delete(life, known.beat))
        if not session.is_holding(now):
            ending.append(Delete(node))
        if ending:
            await self._connection.commit(*ending)
            self._lives.ended(session)

    def _seen(self, session_id: SessionId, node: Node, life: Node | None, moment: Moment) -> Known:
        beat = life.version if life else None
        session = records.to_session(session_id, node.data, number=node.created, moment=moment)
        return Known(self._lives.seen(session, beat, moment.elapsed), node, beat)

    def _both(self, session_id: SessionId) -> tuple[str, str]:
        return self._paths.session(session_id), self._paths.life(session_id)


def _beat(known: Known) -> int:
    if known.beat is None:
        raise Conflict(known.record.session_id)
    return known.beat
