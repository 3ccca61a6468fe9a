"""The locks in ZooKeeper: a node each, for ever, with the newest token and who got it.

Steps on locks read them before the sessions of their holders: whoever holds a lock that was read
was there already, and if it is not there now, it has gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from runtime_service import rules
from runtime_service.domain import Grant, HeldLock, Lock, LockWish, Page, SessionId, first
from runtime_service.rules import LockRecord
from vmshepherd_kit.clock import Clock

from . import records
from .connection import Connection
from .operations import Check, Create, Operation, Set
from .paths import Paths, unquoted
from .records import Moment
from .registry import Registry


@dataclass(frozen=True, slots=True)
class Stored:
    """Locks as they were read, those that are there, with stamps and their nodes' versions."""

    locks: dict[str, LockRecord]
    stamps: dict[str, str]
    versions: dict[str, int]


class Locks:
    """All locks."""

    def __init__(
        self, connection: Connection, paths: Paths, registry: Registry, clock: Clock
    ) -> None:
        self._connection = connection
        self._paths = paths
        self._registry = registry
        self._clock = clock

    # What others build upon, within their steps

    async def stored(self, names: Iterable[str], *, lax: bool = False) -> Stored:
        """The locks of these names, as far as they were ever taken."""
        asked = list(dict.fromkeys(names))
        paths = [self._paths.lock(name) for name in asked]
        nodes = await self._connection.read(paths, lax=lax)
        moment = Moment.now(self._clock)
        found = {name: node for name, node in zip(asked, nodes, strict=True) if node}
        locks = {name: records.to_lock(node.data, moment) for name, node in found.items()}
        return Stored(
            {name: lock.record for name, lock in locks.items()},
            {name: lock.stamp for name, lock in locks.items()},
            {name: node.version for name, node in found.items()},
        )

    def unchanged(self, name: str, stored: Stored) -> Operation:
        """The condition that a lock that is there is as it was read."""
        return Check(self._paths.lock(name), stored.versions[name])

    # Steps

    async def grant(
        self, session_id: SessionId, wishes: Sequence[LockWish], *, stamp: str
    ) -> list[Grant]:
        """What each wish gets.  SessionLost."""
        stored = await self.stored(wish.name for wish in wishes)
        holders = {lock.holder for lock in stored.locks.values() if lock.holder}
        found = await self._registry.find({session_id, *holders}, lax=True)
        if session_id not in found.known:
            found = await self._registry.find({session_id, *holders})
        grants, changed = rules.grant(
            wishes,
            found.live(session_id).record,
            locks=stored.locks,
            sessions=found.records,
            now=found.now,
        )
        await self._keep(session_id, changed, stored, stamp)
        return grants

    async def give_back(
        self, session_id: SessionId, given: Sequence[HeldLock], *, stamp: str
    ) -> list[bool]:
        """Whether each was held.  What bears our stamp was given back by a former try."""
        found = await self._registry.sure(session_id)
        session = found.records.get(session_id)
        if session is None or not session.is_live(found.now):
            return [False] * len(given)
        stored = await self.stored(lock.name for lock in given)
        ours = {name for name, its in stored.stamps.items() if its == stamp}
        before = {name: replace(stored.locks[name], holder=session_id) for name in ours}
        released, changed = rules.give_back(given, session, locks=stored.locks | before)
        undone = {name: lock for name, lock in changed.items() if name not in ours}
        await self._keep(session_id, undone, stored, stamp)
        return released

    async def list(self, *, after: str, limit: int) -> Page[Lock]:
        """See the port."""
        everything = map(unquoted, await self._connection.children(self._paths.locks))
        names = sorted(name for name in everything if name > after)
        stored = await self.stored(names[: limit + 1])
        holders = {lock.holder for lock in stored.locks.values() if lock.holder}
        found = await self._registry.find(holders)
        sessions, now = found.records, found.now
        return first((k.seen(name, now, sessions) for name, k in stored.locks.items()), limit)

    async def _keep(
        self, session_id: SessionId, changed: dict[str, LockRecord], stored: Stored, stamp: str
    ) -> None:
        """Store locks as they are now, if they are as they were read and the session lives."""
        if not changed:
            return
        moment = Moment.now(self._clock)
        writes = [
            self._write(name, records.from_lock(lock, moment, stamp), stored)
            for name, lock in changed.items()
        ]
        taken_from = {stored.locks[name].holder for name in changed if name in stored.locks}
        gone = (self._registry.is_gone(each) for each in taken_from - {None, session_id} if each)
        await self._connection.commit(
            self._registry.lives(session_id), *chain.from_iterable(gone), *writes
        )

    def _write(self, name: str, data: bytes, stored: Stored) -> Operation:
        if name in stored.versions:
            return Set(self._paths.lock(name), data, stored.versions[name])
        return Create(self._paths.lock(name), data)
