"""The journal in ZooKeeper: a head with the newest events, and chunks of older ones.

Whoever appends sets the head at the version that was read; when it grows too large, its events
become a chunk in the same transaction.  Chunks never change, so each process keeps what it has read
of them, and an append or a look costs one small node.  What does not fit a packet with others is
stored before, as a part that a chunk points to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Final

from runtime_service.domain import Event, EventPage, EventQuery, StoredEvent

from . import records
from .connection import Connection
from .failures import LOST, Conflict
from .operations import Check, Create, Delete, Operation, Set, packets
from .paths import Paths
from .reading import Reading
from .records import Head

_TAIL_BYTES: Final = 24_000
"""Events in the head: each append writes them again."""

_READ_AT_ONCE: Final = 8


class Journal:
    """The events, and what this process has read of them."""

    def __init__(self, connection: Connection, paths: Paths, *, max_events: int) -> None:
        self._connection = connection
        self._paths = paths
        self._max_events = max_events
        self._turn = asyncio.Lock()
        self._reading = Reading()

    # Steps

    async def look(self) -> int:
        """Read what is new; how far the journal reaches."""
        async with self._turn:
            await self._catch_up(lax=True)
            return self._reading.head.newest

    async def page(self, query: EventQuery) -> EventPage:
        """See the port."""
        async with self._turn:
            await self._catch_up()
            return self._reading.page(query)

    async def append(self, events: Sequence[Event], *, stamp: str) -> list[int]:
        """See the port; the stamp names what has to be stored before."""
        async with self._turn:
            if not self._reading.is_current:
                await self._catch_up()
            new = self._reading.new(events)
            known = self._reading.sequences
            sequences = {e.event_id: known[e.event_id] for e in events if e.event_id in known}
            sequences |= {each.event.event_id: each.sequence for each in new}
            if new:
                await self._store(new, stamp)
            return [sequences[event.event_id] for event in events]

    # Reading

    async def _catch_up(self, *, lax: bool = False) -> None:
        [node] = await self._connection.read([self._paths.journal], lax=lax)
        if node is None:
            raise Conflict(self._paths.journal)
        if node.created != self._reading.created:
            self._reading = Reading(node.created)
        # A lax look may see less than is known.
        if node.version > self._reading.version:
            head = records.to_head(node.data)
            for first in await self._chunks(head):
                self._reading.take(first)
            self._reading.reach(head, node.version)
        self._reading.is_current = True

    async def _chunks(self, head: Head) -> list[tuple[StoredEvent, ...]]:
        """The events between what is known and the tail of the head, chunk by chunk."""
        known = max(self._reading.head.newest, head.forgotten)
        if known >= head.sealed:
            return []
        firsts = [first for first in await self._firsts() if first <= head.sealed]
        lasts = [*(first - 1 for first in firsts[1:]), head.sealed]
        wanted = [first for first, last in zip(firsts, lasts, strict=True) if last > known]
        return [
            chunk
            for i in range(0, len(wanted), _READ_AT_ONCE)
            for chunk in await self._read(wanted[i : i + _READ_AT_ONCE])
        ]

    async def _read(self, firsts: Sequence[int]) -> list[tuple[StoredEvent, ...]]:
        paths = [self._paths.chunk(first) for first in firsts]
        return [
            await self._events(first, data)
            for first, data in zip(firsts, await self._data(paths), strict=True)
        ]

    async def _events(self, first: int, data: bytes) -> tuple[StoredEvent, ...]:
        chunk = records.to_chunk(data)
        if not isinstance(chunk, str):
            return chunk
        self._reading.parts[first] = chunk
        [data] = await self._data([self._paths.part(chunk)])
        events = records.to_chunk(data)
        return () if isinstance(events, str) else events

    async def _data(self, paths: Sequence[str]) -> list[bytes]:
        nodes = await self._connection.read(paths)
        found = [node.data for node in nodes if node]
        # Trimmed since the head was read: read that again.
        if len(found) < len(paths):
            raise Conflict(self._paths.journal)
        return found

    async def _firsts(self) -> list[int]:
        return sorted(map(int, await self._connection.children(self._paths.journal)))

    # Writing

    async def _store(self, new: Sequence[StoredEvent], stamp: str) -> None:
        reading, newest = self._reading, new[-1].sequence
        forgotten = max(reading.head.forgotten, newest - self._max_events)
        tail = (*reading.head.tail, *new)
        is_sealed = sum(event.size for event in tail) > _TAIL_BYTES
        head = (
            Head(newest, forgotten, newest)
            if is_sealed
            else Head(newest, forgotten, reading.head.sealed, tail)
        )
        # Until the answer is there, nobody knows whether it is so.
        reading.is_current = False
        chunks = await self._sealing(tail, stamp) if is_sealed else []
        await self._connection.commit(
            Set(self._paths.journal, records.from_head(head), reading.version), *chunks
        )
        reading.take(new)
        reading.reach(head, reading.version + 1)
        reading.is_current = True
        if is_sealed:
            await self._trim()

    async def _sealing(self, events: Sequence[StoredEvent], stamp: str) -> list[Operation]:
        """What makes chunks of the events; those of many chunks are stored before."""
        chunks = list(packets(events, lambda event: event.size))
        if len(chunks) == 1:
            path = self._paths.chunk(events[0].sequence)
            return [Create(path, records.from_chunk(events))]
        operations: list[Operation] = []
        for number, chunk in enumerate(chunks):
            first, part = chunk[0].sequence, f"{stamp}-{number}-{chunk[0].sequence}"
            await self._stage(self._paths.part(part), records.from_chunk(chunk))
            self._reading.parts[first] = part
            operations += [
                Check(self._paths.part(part)),
                Create(self._paths.chunk(first), records.from_pointer(part)),
            ]
        return operations

    async def _stage(self, path: str, data: bytes) -> None:
        # From a former try it may be there: the name tells what is in it.
        with suppress(Conflict):
            await self._connection.commit(Create(path, data))

    async def _trim(self) -> None:
        """Delete what is forgotten, and parts that no chunk points to; if it fails, the next one
        does it.
        """
        with suppress(Conflict, *LOST):
            forgotten, firsts = self._reading.head.forgotten, await self._firsts()
            over = [first for first, then in pairwise(firsts) if then - 1 <= forgotten]
            for packet in packets(over, lambda _: 100):
                await self._connection.commit(*(Delete(self._paths.chunk(f)) for f in packet))
            for first in over:
                self._reading.parts.pop(first, None)
            pointed_at = set(self._reading.parts.values())
            for part in await self._connection.children(self._paths.parts):
                if part not in pointed_at:
                    # Of a head that we do not know yet it may be pointed at.
                    known = Check(self._paths.journal, self._reading.version)
                    await self._connection.commit(known, Delete(self._paths.part(part)))
