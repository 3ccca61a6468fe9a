"""The states in ZooKeeper: a node each, whose version is the state's; never deleted.

A state that was written has version 1 or more: its node is made empty, then set.  The value of a
large one is in parts, children that are there before the node names them by its stamp.  Whatever
else lies there is left of a write that never came so far, and goes with the next one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from runtime_service import rules
from runtime_service.domain import (
    SessionId,
    StaleToken,
    State,
    StateWrite,
    WriteOutcome,
    Written,
)
from runtime_service.rules import NEVER_LOCKED
from vmshepherd_kit.clock import Clock
from vmshepherd_kit.errors import SessionLost

from . import records
from .connection import Connection
from .failures import LOST, Conflict
from .locks import Locks, Stored
from .operations import PACKET_BYTES, Check, Create, Delete, Node, Operation, Set
from .paths import Paths, unquoted
from .registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """What states are built upon."""

    connection: Connection
    paths: Paths
    registry: Registry
    locks: Locks
    clock: Clock


class States:
    """All states."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._connection = ground.connection
        self._paths = ground.paths

    async def names(self, *, prefix: str, after: str) -> list[str]:
        """The names with the prefix behind that one, in order."""
        everything = map(unquoted, await self._connection.children(self._paths.states))
        return sorted(name for name in everything if name.startswith(prefix) and name > after)

    async def read(self, names: Sequence[str]) -> dict[str, State]:
        """The states of these names, as far as they were ever written."""
        nodes = await self._connection.read([self._paths.state(name) for name in names])
        return {
            name: await self._whole(name, node)
            for name, node in zip(names, nodes, strict=True)
            if node and node.version > 0
        }

    def writing(
        self, session_id: SessionId, writes: Sequence[StateWrite], *, stamp: str, is_first: bool
    ) -> Callable[[], Awaitable[list[WriteOutcome]]]:
        """The step that writes them; `is_first` when nothing of their call is written yet."""
        return _Writing(
            session_id, writes, ground=self._ground, stamp=stamp, is_first=is_first
        ).step

    async def _whole(self, name: str, node: Node) -> State:
        stored = records.to_state(node.data)
        if not stored.parts:
            return stored.named(name, version=node.version, value=stored.value)
        path = self._paths.state(name)
        parts = await self._connection.read(_part_paths(path, stored.stamp, stored.parts))
        # Swept since the node was read: read that again.
        if not all(parts):
            raise Conflict(path)
        value = b"".join(part.data for part in parts if part)
        return stored.named(name, version=node.version, value=value)


class _Writing:
    """One packet of writes of a session, which may have to be tried several times.

    The first try believes the versions that the writer expects; after a failure it is looked which
    are true, and which of the writes were done after all: these bear our stamp.
    """

    def __init__(
        self,
        session_id: SessionId,
        writes: Sequence[StateWrite],
        *,
        ground: Ground,
        stamp: str,
        is_first: bool,
    ) -> None:
        self._session_id = session_id
        self._writes = writes
        self._connection = ground.connection
        self._paths = ground.paths
        self._registry = ground.registry
        self._locks = ground.locks
        self._clock = ground.clock
        self._stamp = stamp
        self._may_be_lost = is_first
        self._versions: dict[str, int | None] | None = None
        self._done: dict[str, WriteOutcome] = {}

    async def step(self) -> list[WriteOutcome]:
        """What becomes of each.  SessionLost only if nothing of the call was written."""
        if self._versions is not None:
            await self._look()
        names = [write.name for write in self._writes]
        stored = await self._locks.stored(names, lax=True)
        outcomes = await self._judged(stored)
        # What is written has what was read as a condition; what is refused has not.
        if not all(isinstance(outcome, Written) for outcome in outcomes.values()):
            stored = await self._locks.stored(names)
            outcomes = await self._judged(stored)
        good = [w for w in self._writes if isinstance(outcomes[w.name], Written)]
        good = [write for write in good if write.name not in self._done]
        if good:
            await self._write(good, stored)
        return [outcomes[write.name] for write in self._writes]

    async def _look(self) -> None:
        """Which versions the states have, and which of them were written by a former try."""
        paths = [self._paths.state(write.name) for write in self._writes]
        versions = await self._connection.versions(paths)
        self._versions = {w.name: v for w, v in zip(self._writes, versions, strict=True)}
        for write in self._writes:
            if self._versions[write.name] == write.expected_version + 1 and await self._is_ours(
                write
            ):
                self._done[write.name] = Written(write.expected_version + 1)

    async def _is_ours(self, write: StateWrite) -> bool:
        [node] = await self._connection.read([self._paths.state(write.name)])
        return (
            node is not None
            and node.version == write.expected_version + 1
            and records.to_state(node.data).stamp == self._stamp
        )

    async def _judged(self, stored: Stored) -> dict[str, WriteOutcome]:
        found = await self._registry.sure(self._session_id)
        try:
            session = found.live(self._session_id).record
        except SessionLost:
            if self._may_be_lost:
                raise
            tokens = {w.name: stored.locks.get(w.name, NEVER_LOCKED).token for w in self._writes}
            return {name: StaleToken(token) for name, token in tokens.items()} | self._done
        outcomes = rules.judge_writes(
            self._writes, session, locks=stored.locks, versions=self._believed()
        )
        judged = {write.name: o for write, o in zip(self._writes, outcomes, strict=True)}
        return judged | self._done

    def _believed(self) -> dict[str, int]:
        if self._versions is None:
            return {write.name: write.expected_version for write in self._writes}
        return {name: version or 0 for name, version in self._versions.items()}

    async def _write(self, good: Sequence[StateWrite], stored: Stored) -> None:
        self._may_be_lost = False
        is_there = self._versions or {w.name: w.expected_version or None for w in self._writes}
        self._versions = is_there
        for write in good:
            if _parts_of(write.value):
                await self._stage(write)
        operations = [
            operation
            for write in good
            for operation in self._operations(write, stored, is_there[write.name])
        ]
        lives = self._registry.lives(self._session_id)
        answers = await self._connection.commit(lives, *operations)
        for write, children in _children_of(good, operations, answers[1:]):
            if children > _parts_of(write.value):
                await self._sweep(write)

    def _operations(
        self, write: StateWrite, stored: Stored, version: int | None
    ) -> Iterator[Operation]:
        path, parts = self._paths.state(write.name), _parts_of(write.value)
        yield self._locks.unchanged(write.name, stored)
        if version is None and not parts:
            yield Create(path)
        yield from (Check(part) for part in _part_paths(path, self._stamp, parts))
        data = records.from_state(write, stamp=self._stamp, parts=parts, at=self._clock.wall())
        yield Set(path, data, write.expected_version)

    async def _stage(self, write: StateWrite) -> None:
        """Write the parts of a large value, as far as they are not there from a former try."""
        path = self._paths.state(write.name)
        lives = self._registry.lives(self._session_id)
        with suppress(Conflict):
            await self._connection.commit(lives, Create(path))
        there = set(await self._connection.children(path))
        values = _cut(write.value)
        for part, value in zip(_part_paths(path, self._stamp, len(values)), values, strict=True):
            if part.rpartition("/")[2] not in there:
                await self._connection.commit(lives, Create(part, value))

    async def _sweep(self, write: StateWrite) -> None:
        """Delete parts of other writes; should this fail, whoever writes next does it."""
        path = self._paths.state(write.name)
        with suppress(Conflict, *LOST):
            there = await self._connection.children(path)
            others = [Delete(f"{path}/{n}") for n in there if not n.startswith(self._stamp)]
            await self._connection.commit(Check(path, write.expected_version + 1), *others)


def _parts_of(value: bytes) -> int:
    return len(_cut(value)) if len(value) > PACKET_BYTES else 0


def _cut(value: bytes) -> list[bytes]:
    return [value[i : i + PACKET_BYTES] for i in range(0, len(value), PACKET_BYTES)]


def _part_paths(path: str, stamp: str, parts: int) -> list[str]:
    return [f"{path}/{stamp}-{number}" for number in range(parts)]


def _children_of(
    writes: Sequence[StateWrite], operations: Sequence[Operation], answers: Sequence[Any]
) -> Iterator[tuple[StateWrite, int]]:
    """The number of children that each state has, as its write was answered."""
    stats = [a for o, a in zip(operations, answers, strict=True) if isinstance(o, Set)]
    yield from ((w, stat.numChildren) for w, stat in zip(writes, stats, strict=True))
