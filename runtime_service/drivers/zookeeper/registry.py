"""The sessions in ZooKeeper: opened, refreshed, closed, and ended when their time is over.

A session is a node with what is known of it and, as long as it may act, a child: its life.  Whoever
acts for a session makes its life a condition of the transaction, so that no act of it comes after
its end.  Once the lock delay has passed, too, the node itself goes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

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
    """A session whose life has not ended unnoticed, and the versions of its two nodes."""

    record: SessionRecord
    node: Node
    beat: int | None


class Registry:
    """All sessions."""

    def __init__(self, connection: Connection, paths: Paths, clock: Clock) -> None:
        self._connection = connection
        self._paths = paths
        self._clock = clock
        self._lives = Lives()

    # What others build upon, within their steps

    async def known(self, ids: Iterable[SessionId]) -> dict[SessionId, Known]:
        """Those of the sessions that still keep locks.

        Whoever's time is over is ended for all others, too, before it is told here.
        """
        asked = list(dict.fromkeys(ids))
        nodes = await self._connection.read([path for each in asked for path in self._both(each)])
        moment = Moment.now(self._clock)
        found = {
            each: self._seen(each, node, life, moment)
            for each, node, life in zip(asked, nodes[::2], nodes[1::2], strict=True)
            if node is not None
        }
        for known in found.values():
            if known.beat is not None and not known.record.is_live(self._clock.elapsed()):
                await self._end(known)
        return found

    async def holders(self, ids: Iterable[SessionId]) -> dict[SessionId, SessionRecord]:
        """The same, for the rules."""
        return {each: known.record for each, known in (await self.known(ids)).items()}

    def lives(self, session_id: SessionId) -> Operation:
        """The condition of all that a session does."""
        return Check(self._paths.life(session_id))

    # Steps

    async def open(self, new: NewSession) -> Session:
        """See the port."""
        if new.session_id not in await self.known([new.session_id]):
            data = records.from_session(new, Moment.now(self._clock))
            node, life = self._both(new.session_id)
            await self._connection.commit(Create(node, data), Create(life))
        return await self._told(new.session_id)

    async def refresh(self, session_id: SessionId, labels: Mapping[str, str]) -> Session:
        """See the port."""
        known = await self._live(session_id)
        node, life = self._both(session_id)
        beat: list[Operation] = [Set(life, b"", _beat(known))]
        if labels:
            data = records.with_labels(known.node.data, dict(labels))
            beat.append(Set(node, data, known.node.version))
        await self._connection.commit(*beat)
        return await self._told(session_id)

    async def list(self, *, after: int, limit: int) -> Page[Session]:
        """See the port."""
        sessions = await self._all()
        now = self._clock.elapsed()
        live = (s.seen(now) for s in sessions if s.is_live(now) and s.number > after)
        return first(sorted(live, key=lambda session: session.number), limit)

    async def look(self) -> None:
        """End those whose time is over, and forget those whose locks are free."""
        sessions = await self._all()
        now = self._clock.elapsed()
        for session in sessions:
            if not session.is_holding(now):
                await self._forget(session.session_id)
        self._lives.keep({session.session_id for session in sessions})

    def closing(self, session_id: SessionId) -> Callable[[], Awaitable[bool]]:
        """The step that closes it.  After a lost answer, one that is gone was closed by us."""
        tried = False

        async def close() -> bool:
            nonlocal tried
            known = (await self.known([session_id])).get(session_id)
            if known is None or not known.record.is_live(self._clock.elapsed()):
                return tried and known is None
            tried = True
            node, life = self._both(session_id)
            await self._connection.commit(Delete(life, _beat(known)), Delete(node))
            return True

        return close

    # What they are made of

    async def _told(self, session_id: SessionId) -> Session:
        known = await self._live(session_id)
        return known.record.seen(self._clock.elapsed())

    async def _live(self, session_id: SessionId) -> Known:
        known = await self.known([session_id])
        records_of = {each: found.record for each, found in known.items()}
        rules.live(records_of.get(session_id), self._clock.elapsed())
        return known[session_id]

    async def _all(self) -> Sequence[SessionRecord]:
        names = await self._connection.children(self._paths.sessions)
        known = await self.known(SessionId(unquoted(name)) for name in names)
        return [each.record for each in known.values()]

    async def _end(self, known: Known) -> None:
        # A refresh in the meantime has another version, and the step is repeated.
        life = self._paths.life(known.record.session_id)
        await self._connection.commit(Delete(life, _beat(known)))
        self._lives.ended(known.record)

    async def _forget(self, session_id: SessionId) -> None:
        with suppress(Conflict):
            await self._connection.commit(Delete(self._paths.session(session_id)))

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
