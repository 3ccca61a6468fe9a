"""The driver `zookeeper`: the port, each method one step or several upon the ensemble."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import ClassVar, Final, Self, TypeVar

from runtime_service.bell import Bell
from runtime_service.domain import (
    Event,
    EventPage,
    EventQuery,
    Grant,
    HeldLock,
    Lock,
    LockWish,
    NewSession,
    Page,
    Session,
    SessionId,
    State,
    StateWrite,
    WriteOutcome,
    first_fitting,
    refuse_too_large,
)
from runtime_service.port import NOTHING_NEW, Trait
from vmshepherd_kit import log
from vmshepherd_kit.clock import Chance, Clock, SystemChance
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import Refused, ShepherdError, Unavailable
from vmshepherd_kit.settings import Settings

from . import failures
from .connection import Connection
from .journal import Journal
from .layout import Layout
from .locks import Locks
from .operations import packets
from .options import ZookeeperOptions
from .paths import Paths, quoted
from .registry import Registry
from .states import Ground, States

T = TypeVar("T")

_LOOK: Final = timedelta(milliseconds=250)
# Values are read so many at once: each may have a mebibyte.
_VALUES: Final = 32
# A name stands in three operations of a transaction, with some words around it.
_NAMED: Final = 3
_WORDS_BYTES: Final = 150

_log = log.get("runtime")


class ZookeeperRuntime:
    """A store in a ZooKeeper ensemble, used by any number of processes at a time."""

    Options: ClassVar[type[Settings]] = ZookeeperOptions
    traits = frozenset({Trait.DURABLE})

    def __init__(
        self, connection: Connection, options: ZookeeperOptions, clock: Clock, chance: Chance
    ) -> None:
        paths = Paths(options.working_path)
        self._connection = connection
        self._clock = clock
        self._chance = chance
        self._layout = Layout(connection, paths)
        self._registry = Registry(connection, paths, clock)
        self._locks = Locks(connection, paths, self._registry, clock)
        self._states = States(
            Ground(
                connection=connection,
                paths=paths,
                registry=self._registry,
                locks=self._locks,
                clock=clock,
            )
        )
        self._journal = Journal(connection, paths, max_events=options.max_events)
        self._bell = Bell(0)
        self._is_reached = True

    @classmethod
    @asynccontextmanager
    async def open(
        cls, options: ZookeeperOptions, *, suite: Suite, clock: Clock
    ) -> AsyncIterator[Self]:
        """The store beneath its working path, which is made if it is not there.

        Refused when ZooKeeper does not let us.  When it cannot be reached, the store opens all the
        same, and works as soon as it can.
        """
        async with Connection.opened(options, clock, base_dir=suite.base_dir) as connection:
            store = cls(connection, options, clock, SystemChance())
            await store._begin()
            looking = asyncio.create_task(store._look_again_and_again())
            try:
                yield store
            finally:
                looking.cancel()
                await asyncio.gather(looking, return_exceptions=True)

    # Sessions and locks

    async def open_session(self, new: NewSession) -> Session:
        """See the port."""
        return await self._settle(lambda: self._registry.open(new))

    async def refresh_session(
        self, session_id: SessionId, labels: Mapping[str, str] = NOTHING_NEW
    ) -> Session:
        """See the port."""
        return await self._settle(lambda: self._registry.refresh(session_id, labels))

    async def close_session(self, session_id: SessionId) -> bool:
        """See the port."""
        return await self._settle(self._registry.closing(session_id))

    async def list_sessions(self, *, after: int, limit: int) -> Page[Session]:
        """See the port."""
        return await self._settle(lambda: self._registry.list(after=after, limit=limit))

    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]:
        """See the port."""
        stamp = self._chance.uuid()
        grants: list[Grant] = []
        for some in list(packets(wishes, lambda wish: _room_of(wish.name))) or [[]]:
            grants += await self._settle(
                partial(self._locks.grant, session_id, some, stamp=stamp), items=len(some)
            )
        return grants

    async def unlock(self, session_id: SessionId, locks: Sequence[HeldLock]) -> list[bool]:
        """See the port."""
        stamp = self._chance.uuid()
        released: list[bool] = []
        for some in packets(locks, lambda lock: _room_of(lock.name)):
            step = partial(self._locks.give_back, session_id, some, stamp=stamp)
            released += await self._settle(step, items=len(some))
        return released

    async def list_locks(self, *, after: str, limit: int) -> Page[Lock]:
        """See the port."""
        return await self._settle(lambda: self._locks.list(after=after, limit=limit))

    # States

    async def get_states(self, names: Sequence[str]) -> list[State | None]:
        """See the port."""
        states: dict[str, State] = {}
        for some in packets(dict.fromkeys(names), len, most=_VALUES):
            states |= await self._settle(partial(self._states.read, some))
            refuse_too_large(_size(states.values()))
        answer = [states.get(name) for name in names]
        # A name may stand there many times.
        refuse_too_large(_size(state for state in answer if state))
        return answer

    async def list_states(self, *, prefix: str, after: str, limit: int) -> Page[State]:
        """See the port."""
        names = await self._settle(lambda: self._states.names(prefix=prefix, after=after))
        found: list[State] = []
        for some in packets(names, len, most=_VALUES):
            found += (await self._settle(partial(self._states.read, some))).values()
            page = first_fitting(found, limit)
            if page.more:
                return page
        return first_fitting(found, limit)

    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]:
        """See the port."""
        stamp = self._chance.uuid()
        outcomes: list[WriteOutcome] = []
        for some in list(packets(writes, _room_of_write)) or [[]]:
            step = self._states.writing(session_id, some, stamp=stamp, is_first=not outcomes)
            outcomes += await self._settle(step, items=len(some))
        return outcomes

    # Journal

    async def append_events(self, events: Sequence[Event]) -> list[int]:
        """See the port."""
        stamp = self._chance.uuid()
        sequences = await self._settle(
            lambda: self._journal.append(events, stamp=stamp), items=len(events)
        )
        self._bell.ring(max(sequences, default=0))
        return sequences

    async def read_events(self, query: EventQuery) -> EventPage:
        """See the port."""
        return await self._settle(lambda: self._journal.page(query))

    async def grown_beyond(self, sequence: int) -> None:
        """See the port."""
        await self._bell.grown_beyond(sequence)

    # What it is made of

    async def _settle(self, step: Callable[[], Awaitable[T]], *, items: int = 1) -> T:
        try:
            return await self._settle_at_start(step, items=items)
        except Refused as e:
            raise failures.at_run_time(e) from e

    async def _settle_at_start(self, step: Callable[[], Awaitable[T]], *, items: int = 1) -> T:
        async def with_folders() -> T:
            await self._layout.ensure()
            return await step()

        try:
            return await self._connection.settle(with_folders, items=items)
        except Unavailable:
            self._layout.doubt()
            raise

    async def _begin(self) -> None:
        """Refused when that is what ZooKeeper says; silence is no reason not to start."""
        try:
            await self._settle_at_start(self._registry.look)
            self._bell.ring(await self._settle_at_start(self._journal.look))
        except Unavailable as e:
            self._tell(e)

    async def _look_again_and_again(self) -> None:
        """What makes a session end and a reader wake although nobody calls."""
        while True:
            await self._clock.sleep(_LOOK)
            with suppress(ShepherdError):
                await self._look()

    async def _look(self) -> None:
        try:
            await self._settle(self._registry.look)
            self._bell.ring(await self._settle(self._journal.look))
        except ShepherdError as e:
            self._tell(e)
            raise
        self._tell(None)

    def _tell(self, trouble: ShepherdError | None) -> None:
        """Say it once when the store goes out of reach, and once when it is back."""
        if trouble and self._is_reached:
            _log.warning("store out of reach", reason=trouble.reason, why=trouble.message)
        elif not trouble and not self._is_reached:
            _log.info("store in reach again")
        self._is_reached = trouble is None


def _room_of(name: str) -> int:
    return _NAMED * (len(quoted(name)) + _WORDS_BYTES)


def _room_of_write(write: StateWrite) -> int:
    return len(write.value) + _room_of(write.name)


def _size(states: Iterable[State]) -> int:
    return sum(state.size for state in states)
