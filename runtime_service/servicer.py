"""The RPCs of RuntimeService: validate, ask the store, convert.

It keeps nothing between calls and decides nothing: `rules` does, within the store's transactions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Final, TypeVar

from vmshepherd.runtime.v1 import runtime_service_pb2 as pb
from vmshepherd.runtime.v1 import runtime_service_pb2_grpc
from vmshepherd_kit import pages
from vmshepherd_kit.clock import Chance, Clock
from vmshepherd_kit.errors import BadRequest, ResumeTokenTooOld
from vmshepherd_kit.status import to_proto

from . import convert
from .domain import EventFilter, EventPage, EventQuery
from .port import RuntimeStore

Item = TypeVar("Item")
Answer = TypeVar("Answer")
Result = TypeVar("Result")

_CHUNK: Final = 100
# A watcher whose filter lets nothing through still hears how far it may resume, this often.
_BOOKMARK: Final = 1000
# And one for whom nothing happens hears that it would be told: silence is a fault.
_BEAT: Final = timedelta(seconds=2)


class RuntimeServicer(runtime_service_pb2_grpc.RuntimeServiceServicer):
    """Serves one store."""

    def __init__(self, store: RuntimeStore, *, clock: Clock, chance: Chance) -> None:
        self._store = store
        self._clock = clock
        self._chance = chance

    async def OpenSession(
        self, request: pb.OpenSessionRequest, context: object
    ) -> pb.OpenSessionResponse:
        """See the contract."""
        new = convert.new_session(request, self._chance.uuid())
        session = await self._store.open_session(new)
        return pb.OpenSessionResponse(session=convert.from_session(session, is_owner=True))

    async def RefreshSession(
        self, request: pb.RefreshSessionRequest, context: object
    ) -> pb.RefreshSessionResponse:
        """See the contract."""
        session_id, labels = convert.session_id(request.session_id), convert.labels(request.labels)
        session = await self._store.refresh_session(session_id, labels)
        return pb.RefreshSessionResponse(session=convert.from_session(session, is_owner=True))

    async def CloseSession(
        self, request: pb.CloseSessionRequest, context: object
    ) -> pb.CloseSessionResponse:
        """See the contract."""
        existed = await self._store.close_session(convert.session_id(request.session_id))
        return pb.CloseSessionResponse(existed=existed)

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: object
    ) -> pb.ListSessionsResponse:
        """See the contract."""
        limit = pages.clamp(request.page_size, default=1000, maximum=1000)
        after = convert.after_number(request.page_token)
        page = await self._store.list_sessions(after=after or 0, limit=limit)
        return pb.ListSessionsResponse(
            sessions=[convert.from_session(session, is_owner=False) for session in page.items],
            next_page_token=convert.next_page(
                page.items[-1].number if page.items else 0, more=page.more
            ),
        )

    async def TryLock(self, request: pb.TryLockRequest, context: object) -> pb.TryLockResponse:
        """See the contract."""
        session_id = convert.session_id(request.session_id)
        wishes = convert.each(convert.wish, request.wishes, "wishes")
        grants = await self._store.try_lock(session_id, _good(wishes))
        results = _in_order(wishes, grants, convert.from_grant, pb.LockResult)
        for wish, result in zip(request.wishes, results, strict=True):
            result.name = wish.name
        return pb.TryLockResponse(results=results)

    async def Unlock(self, request: pb.UnlockRequest, context: object) -> pb.UnlockResponse:
        """See the contract."""
        session_id = convert.session_id(request.session_id)
        locks = convert.each(convert.held_lock, request.locks, "locks")
        released = await self._store.unlock(session_id, _good(locks))
        results = _in_order(
            locks, released, lambda _, freed: pb.UnlockResult(released=freed), pb.UnlockResult
        )
        return pb.UnlockResponse(results=results)

    async def ListLocks(
        self, request: pb.ListLocksRequest, context: object
    ) -> pb.ListLocksResponse:
        """See the contract."""
        limit = pages.clamp(request.page_size, default=1000, maximum=1000)
        after = convert.after_name(request.page_token)
        page = await self._store.list_locks(after=after, limit=limit)
        return pb.ListLocksResponse(
            locks=[convert.from_lock(lock) for lock in page.items],
            next_page_token=convert.next_page(
                page.items[-1].name if page.items else "", more=page.more
            ),
        )

    async def GetStates(
        self, request: pb.GetStatesRequest, context: object
    ) -> pb.GetStatesResponse:
        """See the contract."""
        names = convert.each(convert.name, request.names, "names")
        states = await self._store.get_states(_good(names))
        results = _in_order(names, states, convert.from_state_or_none, pb.StateResult)
        return pb.GetStatesResponse(results=results)

    async def ListStates(
        self, request: pb.ListStatesRequest, context: object
    ) -> pb.ListStatesResponse:
        """See the contract."""
        limit = pages.clamp(request.page_size, default=100, maximum=1000)
        after = convert.after_name(request.page_token)
        page = await self._store.list_states(prefix=request.prefix, after=after, limit=limit)
        return pb.ListStatesResponse(
            states=[convert.from_state(state) for state in page.items],
            next_page_token=convert.next_page(
                page.items[-1].name if page.items else "", more=page.more
            ),
        )

    async def PutStates(
        self, request: pb.PutStatesRequest, context: object
    ) -> pb.PutStatesResponse:
        """See the contract."""
        session_id = convert.session_id(request.session_id)
        convert.refuse_repeated_names(request.writes)
        writes = convert.each(convert.write, request.writes, "writes")
        outcomes = await self._store.put_states(session_id, _good(writes))
        results = _in_order(writes, outcomes, convert.from_outcome, pb.WriteResult)
        return pb.PutStatesResponse(results=results)

    async def AppendEvents(
        self, request: pb.AppendEventsRequest, context: object
    ) -> pb.AppendEventsResponse:
        """See the contract."""
        now = self._clock.wall()
        events = [
            convert.event(event, f"events[{i}]", now=now)
            for i, event in enumerate(convert.batch(request.events, "events"))
        ]
        return pb.AppendEventsResponse(sequences=await self._store.append_events(events))

    async def ListEvents(
        self, request: pb.ListEventsRequest, context: object
    ) -> pb.ListEventsResponse:
        """See the contract."""
        query = EventQuery(
            filter=convert.event_filter(request.filter),
            ascending=request.ascending,
            after=convert.after_number(request.page_token),
            limit=pages.clamp(request.page_size, default=100, maximum=1000),
        )
        page = await self._store.read_events(query)
        return pb.ListEventsResponse(
            events=[convert.from_event(event) for event in page.events],
            next_page_token=convert.next_page(
                page.events[-1].sequence if page.events else 0, more=page.more
            ),
        )

    async def WatchEvents(
        self, request: pb.WatchEventsRequest, context: object
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """See the contract.  What a slow reader has not read yet stays in the store, not here."""
        wanted = convert.event_filter(request.filter)
        after = convert.resume_from(request)
        told = sequence = await self._beginning(after)
        yield pb.WatchEventsResponse(sequence=sequence)
        while True:
            page = await self._chunk(wanted, sequence)
            sequence = page.events[-1].sequence if page.more else page.newest
            if page.events or sequence - told >= _BOOKMARK:
                told = sequence
                yield pb.WatchEventsResponse(
                    events=[convert.from_event(event) for event in page.events], sequence=sequence
                )
            if not page.more and not await self._grows(sequence):
                yield pb.WatchEventsResponse(sequence=sequence)

    async def _grows(self, sequence: int) -> bool:
        """Wait until the journal may reach further; False when it did not for a while."""
        try:
            async with asyncio.timeout(_BEAT.total_seconds()):
                await self._store.grown_beyond(sequence)
        except TimeoutError:
            return False
        return True

    async def _beginning(self, after: int | None) -> int:
        """The sequence to read on from: the one given, or this moment's, or before the oldest."""
        journal = await self._store.read_events(EventQuery(limit=1))
        if after is None:
            return journal.newest
        if after == 0:
            return journal.forgotten
        # A later one than the newest is of another store, or of one that was set back.
        if not journal.forgotten <= after <= journal.newest:
            raise _too_old(after)
        return after

    async def _chunk(self, wanted: EventFilter, after: int) -> EventPage:
        query = EventQuery(filter=wanted, ascending=True, after=after, limit=_CHUNK)
        page = await self._store.read_events(query)
        if after < page.forgotten:
            raise _too_old(after)
        return page


def _good(items: Iterable[Item | BadRequest]) -> list[Item]:
    return [item for item in items if not isinstance(item, BadRequest)]


def _in_order(
    items: Sequence[Item | BadRequest],
    answers: Iterable[Answer],
    convert_answer: Callable[[Item, Answer], Result],
    failed: Callable[..., Result],
) -> list[Result]:
    """One result an item: its answer, or what was wrong with it."""
    waiting = iter(answers)
    return [
        failed(status=to_proto(item))
        if isinstance(item, BadRequest)
        else convert_answer(item, next(waiting))
        for item in items
    ]


def _too_old(sequence: int) -> ResumeTokenTooOld:
    return ResumeTokenTooOld(
        f"the events behind sequence {sequence} are not in the journal any more: list anew",
        sequence=str(sequence),
    )
