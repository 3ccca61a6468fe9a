"""Steps upon ZooKeeper: each is repeated until it is through, within a limit of time.

A step reads, decides, and commits one transaction upon the versions that it read.  So it may be
repeated whenever somebody was faster or a connection was lost: what is read then shows whether the
transaction was done.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from kazoo.client import KazooClient
from kazoo.exceptions import (
    AuthFailedError,
    ConnectionLoss,
    NoNodeError,
    RolledBackError,
    RuntimeInconsistency,
    UnimplementedError,
    ZookeeperError,
)

from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import Unavailable

from . import failures
from .client import SENT_AT_ONCE, Client, Send
from .failures import CONFLICTS, LOST, Conflict
from .multi_read import MultiRead
from .operations import Check, Node, Operation, packets
from .options import ZookeeperOptions
from .paths import Paths

T = TypeVar("T")

_BREATH: Final = timedelta(milliseconds=20)
_BETWEEN_CLIENTS: Final = timedelta(seconds=1)
_GOODBYE_SECONDS: Final = 3
# What is sent at once begins with a barrier, and ends with a look at the store.
_AT_ONCE: Final = SENT_AT_ONCE - 2
# What a transaction answers for the operations that another one's failure undid.
_BYSTANDERS: Final = (RolledBackError, RuntimeInconsistency)

# How many items of a batch are worth the patience for one.
_ITEMS_IN_TIME: Final = 100
_SILENCE: Final[ContextVar[asyncio.Timeout | None]] = ContextVar("silence", default=None)


class Connection:
    """ZooKeeper, by whichever client is sound."""

    def __init__(self, options: ZookeeperOptions, clock: Clock, *, base_dir: Path) -> None:
        self._options = options
        self._store = Paths(options.working_path).store
        self._clock = clock
        self._base_dir = base_dir
        self._where = ",".join(options.servers)
        self._kazoo = _LastWords()
        self._client = self._new_client()
        self._renewal = asyncio.Lock()
        self._renewed = clock.elapsed()
        self._refusals = 0
        self._reads_many = True
        self._conflicted = timedelta.min

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, options: ZookeeperOptions, clock: Clock, *, base_dir: Path
    ) -> AsyncIterator[Self]:
        """Connected as soon as it can be, within the block.  Refused when a secret is missing."""
        connection = cls(options, clock, base_dir=base_dir)
        connection._client.start()
        try:
            yield connection
        finally:
            goodbye = connection._client.end()
            await asyncio.to_thread(goodbye.join, _GOODBYE_SECONDS)

    async def settle(self, step: Callable[[], Awaitable[T]], *, items: int = 1) -> T:
        """What the step answers, once it is through.

        Unavailable when ZooKeeper does not answer in time, or when the step is not through in a
        time that grows with the items that it is about; Refused when ZooKeeper does not let us.
        """
        patience = self._options.timeout.total_seconds()
        try:
            async with (
                asyncio.timeout(patience * (1 + items / _ITEMS_IN_TIME)),
                asyncio.timeout(patience) as silence,
            ):
                _SILENCE.set(silence)
                return await self._repeated(step)
        except TimeoutError as e:
            raise await self._not_in_time() from e

    async def read(self, paths: Sequence[str], *, lax: bool = False) -> list[Node | None]:
        """The nodes as they are now, in order; None for those that are not there.

        A lax read may be late, by as much as a node that was left behind does not know it yet.
        """
        begin = _sync(self._store) if lax else _barrier(self._store)
        return [n for packet in packets(paths, len) for n in await self._read(packet, begin)]

    async def read_bare(self, path: str) -> Node | None:
        """A node, when there may be no store yet."""
        _, answer = await self._ask(path, _sync(path), _get(path))
        return self._node(answer, path)

    async def versions(self, paths: Sequence[str]) -> list[int | None]:
        """The versions of the nodes as they are now, in order, without their data."""
        begin = _barrier(self._store)
        return [stat and stat.version for stat in await self._each(paths, _exists, begin)]

    async def children(self, path: str, *, lax: bool = False) -> list[str]:
        """The names of a node's children as they are now; none when it is not there."""
        begin = _sync(self._store) if lax else _barrier(self._store)
        [names] = await self._seen(path, begin, _children(path))
        return [] if isinstance(names, NoNodeError) else list(names)

    async def commit(self, *operations: Operation) -> list[Any]:
        """Do all of them or, by Conflict, none; what each answers, in order."""
        [answers] = await self._ask(operations[0].path, _commit(operations))
        for operation, answer in zip(operations, answers, strict=True):
            if isinstance(answer, CONFLICTS):
                raise Conflict(operation.path)
            if isinstance(answer, Exception) and not isinstance(answer, _BYSTANDERS):
                raise failures.understood(answer, self._where, operation.path)
        return list(answers)

    # What it is made of

    async def _repeated(self, step: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await step()
            except Conflict:
                self._conflicted = self._clock.elapsed()
            except LOST:
                await self._clock.sleep(_BREATH)
            except AuthFailedError as e:
                await self._refused(e)

    async def _read(self, paths: Sequence[str], begin: Send) -> list[Node | None]:
        if self._reads_many:
            try:
                [nodes] = await self._seen(paths[0], begin, _multi_read(paths))
                return [self._node(node, path) for node, path in zip(nodes, paths, strict=True)]
            except UnimplementedError:
                # Before ZooKeeper 3.6.
                self._reads_many = False
        nodes = await self._each(paths, _get, begin)
        return [self._node(node, path) for node, path in zip(nodes, paths, strict=True)]

    async def _each(
        self, paths: Sequence[str], request: Callable[[str], Send], begin: Send
    ) -> list[Any]:
        """The answers for each of the nodes, asked for one by one."""
        groups = [paths[i : i + _AT_ONCE] for i in range(0, len(paths), _AT_ONCE)]
        answers = await asyncio.gather(
            *(self._seen(group[0], begin, *map(request, group)) for group in groups)
        )
        return [answer for group in answers for answer in group]

    async def _seen(self, path: str, begin: Send, *reads: Send) -> list[Any]:
        """The answers to some reads, from a node that has all that was committed before.

        A node that loses its leader empties its memory, and may answer from that what it was asked
        before: then the store is not there either, which is looked at last.
        """
        begun, *answers, store = await self._ask(path, begin, *reads, _exists(self._store))
        if isinstance(begun, list) and isinstance(begun[0], NoNodeError):
            raise Conflict(self._store)
        if store is None:
            raise ConnectionLoss
        return answers

    async def _ask(self, path: str, *sends: Send) -> list[Any]:
        """The answers in order, NoNodeError among them; raises any other error."""
        answers = await (await self._sound_client()).ask(*sends)
        for answer in answers:
            if isinstance(answer, (*LOST, AuthFailedError, UnimplementedError)):
                raise answer
            if isinstance(answer, Exception) and not isinstance(answer, ZookeeperError):
                # kazoo lost count of the answers, and has ended.
                raise ConnectionLoss from answer
            self._expect_node(answer, path)
        self._refusals = 0
        self._kazoo.last_words = ""
        self._hear()
        return answers

    def _hear(self) -> None:
        """An answer came: be silent for as long again, before the step is given up."""
        if (silence := _SILENCE.get()) is not None:
            patience = self._options.timeout.total_seconds()
            # The step may have been given up, and this be what it left behind.
            with suppress(RuntimeError):
                silence.reschedule(asyncio.get_running_loop().time() + patience)

    def _node(self, answer: Any, path: str) -> Node | None:
        self._expect_node(answer, path)
        if isinstance(answer, NoNodeError):
            return None
        data, stat = answer
        return Node(data, stat.version, stat.czxid)

    def _expect_node(self, answer: Any, path: str) -> None:
        if isinstance(answer, ZookeeperError) and not isinstance(answer, NoNodeError):
            raise failures.understood(answer, self._where, path)

    async def _not_in_time(self) -> Unavailable:
        recently = self._clock.elapsed() - self._options.timeout / 2
        if self._client.is_connected and self._conflicted >= recently:
            return failures.contended(self._where)
        last_words = self._kazoo.last_words
        if self._client.has_been_silent(self._options.timeout):
            await self._renew(self._client)
        return failures.unreachable(self._where, last_words)

    async def _refused(self, error: AuthFailedError) -> None:
        # A node that dies while it is told who we are looks the same: only the second time counts.
        self._refusals += 1
        await self._renew(self._client)
        if self._refusals > 1:
            raise failures.refused(self._where) from error

    async def _sound_client(self) -> Client:
        if self._client.is_over and not self._client.is_refused:
            await self._renew(self._client)
        return self._client

    async def _renew(self, doubtful: Client) -> None:
        """Have another client in place of that one, but not many a second."""
        async with self._renewal:
            age = self._clock.elapsed() - self._renewed
            if self._client is not doubtful or age < _BETWEEN_CLIENTS:
                return
            self._renewed = self._clock.elapsed()
            self._client = self._new_client()
            self._client.start()
            doubtful.end()

    def _new_client(self) -> Client:
        # One of ours alone: in the tree of loggers anybody could listen, or set the level to DEBUG.
        logger = logging.Logger("kazoo", logging.WARNING)  # noqa: LOG001
        logger.addHandler(self._kazoo)
        return Client(self._options.client(self._base_dir, logger), self._clock)


class _LastWords(logging.Handler):
    """What kazoo complained about last, of any thread; its log goes nowhere else, for at DEBUG it
    tells secrets.
    """

    last_words = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.last_words = record.getMessage()


def _sync(path: str) -> Send:
    """What makes the node that we are connected to as new as the leader."""
    return lambda zookeeper: zookeeper.sync_async(path)


def _barrier(store: str) -> Send:
    """What makes it as new as most of the nodes are: a transaction that changes nothing.

    Other than `sync`, it is not answered by a leader that has lost its followers.
    """
    return _commit([Check(store)])


def _get(path: str) -> Send:
    return lambda zookeeper: zookeeper.get_async(path)


def _exists(path: str) -> Send:
    return lambda zookeeper: zookeeper.exists_async(path)


def _children(path: str) -> Send:
    return lambda zookeeper: zookeeper.get_children_async(path)


def _multi_read(paths: Sequence[str]) -> Send:
    def send(zookeeper: KazooClient) -> Any:
        answer = zookeeper.handler.async_result()
        zookeeper._call(MultiRead(paths), answer)  # noqa: SLF001  (as kazoo's own requests do)
        return answer

    return send


def _commit(operations: Sequence[Operation]) -> Send:
    def send(zookeeper: KazooClient) -> Any:
        transaction = zookeeper.transaction()
        for operation in operations:
            operation.put_into(transaction)
        return transaction.commit_async()

    return send
