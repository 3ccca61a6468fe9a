"""The runtime service: sessions, locks, states and events, many presets a call.

`Held` tells whose lock it is when it is not ours: that is an answer. Called by `authority`,
`archive`, `journal` and the servicer.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import grpc

from vmshepherd.runtime.v1 import event_pb2
from vmshepherd.runtime.v1 import runtime_service_pb2 as pb
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from vmshepherd_kit import dial, stamps, status
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import BadRequest, Internal, NotFound, ShepherdError

from .batch import Batch

STATES_PER_CALL = 200
SMALL_STATES_PER_CALL = 2000
PAGE_SIZE = 1000
# An event weighs this at least: a call takes 10,000 of them, however small.
LEAST_EVENT_BYTES = 512


@dataclass(frozen=True, slots=True)
class Held:
    """The lock is another's; it can be free after `remaining` at the latest."""

    owner: str
    remaining: timedelta


@dataclass(frozen=True, slots=True)
class Wish:
    """A lock that is wanted by a session, with a token above `floor`."""

    session_id: str
    name: str
    floor: int


@dataclass(frozen=True, slots=True)
class Write:
    """A state to be written under a lock of a session."""

    session_id: str
    name: str
    value: bytes
    fencing_token: int
    expected_version: int


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that a session holds under a token."""

    session_id: str
    name: str
    fencing_token: int


Asked = TypeVar("Asked", Wish, Write, Lock)
Answered = TypeVar("Answered")


class Runtime:
    """A client of one runtime service."""

    def __init__(self, channel: grpc.aio.Channel, *, clock: Clock) -> None:
        self._stub = RuntimeServiceStub(channel)
        self._locks: Batch[Wish, int | Held] = Batch(self._try_locks, clock=clock)
        self._unlocks: Batch[Lock, bool] = Batch(self._unlock, clock=clock)
        self._reads = Batch(self._get_states, clock=clock, limit=STATES_PER_CALL)
        self._small_reads = Batch(self._get_states, clock=clock, limit=SMALL_STATES_PER_CALL)
        self._writes = Batch(
            self._put_states, clock=clock, limit=STATES_PER_CALL, weigh=lambda w: len(w.value)
        )
        self._events = Batch(self._append_events, clock=clock, weigh=_weight)

    async def open_session(
        self,
        owner: str,
        *,
        ttl: timedelta,
        lock_delay: timedelta,
        labels: Mapping[str, str],
        deadline: timedelta,
    ) -> str:
        """A new session's id."""
        request = pb.OpenSessionRequest(
            owner=owner,
            ttl=stamps.to_duration(ttl),
            lock_delay=stamps.to_duration(lock_delay),
            labels=labels,
        )
        answer = await dial.ask(self._stub.OpenSession, request, deadline=deadline)
        return answer.session.session_id

    async def refresh_session(
        self, session_id: str, *, labels: Mapping[str, str], deadline: timedelta
    ) -> None:
        """Let a session live for another ttl, with these labels.  SessionLost when it is gone."""
        request = pb.RefreshSessionRequest(session_id=session_id, labels=labels)
        await dial.ask(self._stub.RefreshSession, request, deadline=deadline)

    async def close_session(self, session_id: str, *, deadline: timedelta) -> None:
        """End a session; its locks are free at once."""
        request = pb.CloseSessionRequest(session_id=session_id)
        await dial.ask(self._stub.CloseSession, request, deadline=deadline)

    async def try_lock(self, wish: Wish) -> int | Held:
        """The fencing token, or whose the lock is."""
        return await self._locks.ask(wish)

    async def unlock(self, lock: Lock) -> bool:
        """Free a lock; False when the session does not hold it under that token."""
        return await self._unlocks.ask(lock)

    async def get_state(self, name: str) -> pb.State | None:
        """A state, or None when it was never written."""
        return await self._reads.ask(name)

    async def get_small_state(self, name: str) -> pb.State | None:
        """The same of a state that is known to be small or absent: more of them fit a call."""
        return await self._small_reads.ask(name)

    async def put_state(self, write: Write) -> int:
        """The version written.  VersionMismatch, StaleFencingToken, SessionLost."""
        return await self._writes.ask(write)

    async def append(self, events: Sequence[event_pb2.Event]) -> None:
        """Add events to the journal, in order."""
        if events:
            await self._events.ask(tuple(events))

    async def states(self, prefix: str) -> list[pb.State]:
        """Every state under a prefix, in order of names."""
        found, token = list[pb.State](), ""
        while True:
            request = pb.ListStatesRequest(prefix=prefix, page_size=100, page_token=token)
            page = await dial.ask(self._stub.ListStates, request)
            found.extend(page.states)
            token = page.next_page_token
            if not token:
                return found

    async def sessions(self) -> list[pb.Session]:
        """Every live session, in the order they were opened."""
        found, token = list[pb.Session](), ""
        while True:
            request = pb.ListSessionsRequest(page_size=PAGE_SIZE, page_token=token)
            page = await dial.ask(self._stub.ListSessions, request)
            found.extend(page.sessions)
            token = page.next_page_token
            if not token:
                return found

    async def locks(self) -> list[pb.Lock]:
        """Every name that was ever locked."""
        found, token = list[pb.Lock](), ""
        while True:
            request = pb.ListLocksRequest(page_size=PAGE_SIZE, page_token=token)
            page = await dial.ask(self._stub.ListLocks, request)
            found.extend(page.locks)
            token = page.next_page_token
            if not token:
                return found

    async def list_events(self, request: pb.ListEventsRequest) -> pb.ListEventsResponse:
        """A page of the journal."""
        return await dial.ask(self._stub.ListEvents, request)

    def watch_events(
        self, request: pb.WatchEventsRequest
    ) -> AsyncGenerator[pb.WatchEventsResponse, None]:
        """The journal as it grows."""
        return dial.listen(self._stub.WatchEvents, request)

    async def _try_locks(self, wishes: Sequence[Wish]) -> Sequence[int | Held | ShepherdError]:
        return await _by_session(wishes, self._try_locks_of)

    async def _try_locks_of(self, wishes: Sequence[Wish]) -> Sequence[int | Held | ShepherdError]:
        request = pb.TryLockRequest(
            session_id=wishes[0].session_id,
            wishes=[pb.LockWish(name=wish.name, floor=wish.floor) for wish in wishes],
        )
        answer = await dial.ask(self._stub.TryLock, request)
        return [_lock_result(result) for result in answer.results]

    async def _unlock(self, locks: Sequence[Lock]) -> Sequence[bool | ShepherdError]:
        return await _by_session(locks, self._unlock_of)

    async def _unlock_of(self, locks: Sequence[Lock]) -> Sequence[bool | ShepherdError]:
        held = [pb.HeldLock(name=lock.name, fencing_token=lock.fencing_token) for lock in locks]
        request = pb.UnlockRequest(session_id=locks[0].session_id, locks=held)
        answer = await dial.ask(self._stub.Unlock, request)
        return [status.from_proto(result.status) or result.released for result in answer.results]

    async def _get_states(self, names: Sequence[str]) -> Sequence[pb.State | ShepherdError | None]:
        try:
            answer = await dial.ask(self._stub.GetStates, pb.GetStatesRequest(names=names))
        except BadRequest as e:
            if e.reason != "ANSWER_TOO_LARGE" or len(names) == 1:
                raise
            half = len(names) // 2
            return [*await self._get_states(names[:half]), *await self._get_states(names[half:])]
        return [_state_result(result) for result in answer.results]

    async def _put_states(self, writes: Sequence[Write]) -> Sequence[int | ShepherdError]:
        return await _by_session(writes, self._put_states_of)

    async def _put_states_of(self, writes: Sequence[Write]) -> Sequence[int | ShepherdError]:
        request = pb.PutStatesRequest(
            session_id=writes[0].session_id,
            writes=[
                pb.StateWrite(
                    name=write.name,
                    value=write.value,
                    fencing_token=write.fencing_token,
                    expected_version=write.expected_version,
                )
                for write in writes
            ],
        )
        answer = await dial.ask(self._stub.PutStates, request)
        return [status.from_proto(result.status) or result.version for result in answer.results]

    async def _append_events(self, groups: Sequence[tuple[event_pb2.Event, ...]]) -> Sequence[None]:
        request = pb.AppendEventsRequest(events=[event for group in groups for event in group])
        await dial.ask(self._stub.AppendEvents, request)
        return [None] * len(groups)


async def _by_session(
    items: Sequence[Asked],
    ask: Callable[[Sequence[Asked]], Awaitable[Sequence[Answered | ShepherdError]]],
) -> Sequence[Answered | ShepherdError]:
    """Answers in the order of items, one call a session: after a loss, two may meet in a moment."""
    places: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(item.session_id, []).append(place)
    answers: dict[int, Answered | ShepherdError] = {}
    for group in places.values():
        found: Sequence[Answered | ShepherdError]
        try:
            found = await ask([items[place] for place in group])
        except ShepherdError as e:
            found = [e] * len(group)
        answers.update(zip(group, found, strict=False))
    return [answers[place] for place in sorted(answers)]


def _weight(events: Sequence[event_pb2.Event]) -> int:
    return sum(max(event.ByteSize(), LEAST_EVENT_BYTES) for event in events)


def _lock_result(result: pb.LockResult) -> int | Held | ShepherdError:
    error = status.from_proto(result.status)
    if error is not None:
        return error
    if result.HasField("acquired"):
        return result.acquired.fencing_token
    if result.HasField("held"):
        return Held(result.held.owner, stamps.from_duration(result.held.remaining))
    return Internal(f"the runtime service said neither whose the lock {result.name} is")


def _state_result(result: pb.StateResult) -> pb.State | ShepherdError | None:
    error = status.from_proto(result.status)
    if isinstance(error, NotFound):
        return None
    return error or result.state
