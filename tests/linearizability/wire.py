"""A runtime_service as a process of its own, asked over gRPC as if it were a store.

`grounds` starts it and lets it be killed and paused.  Nothing is sent twice: a call that is
repeated by itself may take effect once and answer for the second time.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import grpc
import yaml

from runtime_service.domain import (
    Acquired,
    FencingToken,
    Grant,
    Held,
    HeldLock,
    Lock,
    LockWish,
    NewSession,
    Page,
    Session,
    SessionId,
    StaleToken,
    State,
    StateWrite,
    VersionConflict,
    WriteOutcome,
    Written,
)
from tests.e2e.conftest import free_ports
from tests.e2e.daemon import VMSHEPHERD, Daemon
from vmshepherd.runtime.v1 import runtime_service_pb2 as pb
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from vmshepherd_kit import dial, stamps
from vmshepherd_kit.errors import NotFound, ShepherdError, StaleFencingToken, VersionMismatch
from vmshepherd_kit.status import from_proto

from .calls import UNTOLD

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["RuntimeService"]
_ONCE: Final = [(_SERVICE.full_name, method.name) for method in _SERVICE.methods]
_DEADLINE: Final = timedelta(seconds=4)
_START_SECONDS: Final = 60.0


@dataclass(slots=True)
class Service:
    """A process, how it is started, and the store that it serves."""

    name: str
    folder: Path
    store: RemoteStore
    daemon: Daemon

    @classmethod
    @asynccontextmanager
    async def running(
        cls, folder: Path, name: str, driver: str, options: Mapping[str, Any]
    ) -> AsyncIterator[Self]:
        """A service of this store, which answers; it is gone behind the block."""
        [port] = free_ports(1)
        address = f"127.0.0.1:{port}"
        own = {"listen": {"address": address}, "driver": driver, "options": dict(options)}
        config = {"suite_id": "test", "state_dir": "state", "runtime": own}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
        async with dial.channel(address, deadline=_DEADLINE, once=_ONCE) as channel:
            daemon = _started(folder, name)
            try:
                service = cls(name, folder, RemoteStore(channel), daemon)
                await service.until_it_answers()
                yield service
            finally:
                service.daemon.kill_with_all()

    async def until_it_answers(self) -> None:
        """Wait until a call is answered."""
        async with asyncio.timeout(_START_SECONDS):
            while not await self._answers():
                assert self.daemon.is_alive, self.daemon.said()[-4000:]
                await asyncio.sleep(0.05)

    async def killed(self) -> None:
        """It ends as by a power failure, and is started again."""
        self.daemon.kill()
        self.daemon = _started(self.folder, self.name)
        await self.until_it_answers()

    async def paused(self) -> None:
        """It stands still for a while."""
        os.kill(self.daemon.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(0.7)
        finally:
            os.kill(self.daemon.pid, signal.SIGCONT)
        await self.until_it_answers()

    async def _answers(self) -> bool:
        try:
            await self.store.list_locks(after="", limit=1)
        except ShepherdError:
            return False
        return True


def _started(folder: Path, name: str) -> Daemon:
    command = [VMSHEPHERD, "serve", "runtime", "-c", f"{name}.yaml"]
    return Daemon(command, log=folder / f"{name}.log", cwd=folder)


class RemoteStore:
    """The port, as far as `record` asks for it, over the wire."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._stub = RuntimeServiceStub(channel)

    async def open_session(self, new: NewSession) -> Session:
        request = pb.OpenSessionRequest(
            owner=new.owner,
            ttl=stamps.to_duration(new.ttl),
            lock_delay=stamps.to_duration(new.lock_delay),
        )
        return _session((await dial.ask(self._stub.OpenSession, request)).session)

    async def refresh_session(self, session_id: SessionId) -> Session:
        request = pb.RefreshSessionRequest(session_id=session_id)
        return _session((await dial.ask(self._stub.RefreshSession, request)).session)

    async def close_session(self, session_id: SessionId) -> bool:
        request = pb.CloseSessionRequest(session_id=session_id)
        return (await dial.ask(self._stub.CloseSession, request)).existed

    async def try_lock(self, session_id: SessionId, wishes: Sequence[LockWish]) -> list[Grant]:
        asked = [pb.LockWish(name=wish.name, floor=wish.floor) for wish in wishes]
        request = pb.TryLockRequest(session_id=session_id, wishes=asked)
        return [_grant(each) for each in (await dial.ask(self._stub.TryLock, request)).results]

    async def unlock(self, session_id: SessionId, locks: Sequence[HeldLock]) -> list[bool]:
        asked = [pb.HeldLock(name=k.name, fencing_token=k.fencing_token) for k in locks]
        request = pb.UnlockRequest(session_id=session_id, locks=asked)
        return [each.released for each in (await dial.ask(self._stub.Unlock, request)).results]

    async def list_locks(self, *, after: str, limit: int) -> Page[Lock]:
        request = pb.ListLocksRequest(page_size=limit)
        answer = await dial.ask(self._stub.ListLocks, request)
        return Page(tuple(map(_lock, answer.locks)), more=bool(answer.next_page_token))

    async def get_states(self, names: Sequence[str]) -> list[State | None]:
        request = pb.GetStatesRequest(names=names)
        return [_state(each) for each in (await dial.ask(self._stub.GetStates, request)).results]

    async def put_states(
        self, session_id: SessionId, writes: Sequence[StateWrite]
    ) -> list[WriteOutcome]:
        asked = [
            pb.StateWrite(
                name=write.name,
                value=write.value,
                fencing_token=write.fencing_token,
                expected_version=write.expected_version,
            )
            for write in writes
        ]
        request = pb.PutStatesRequest(session_id=session_id, writes=asked)
        return [_outcome(each) for each in (await dial.ask(self._stub.PutStates, request)).results]


def _session(told: pb.Session) -> Session:
    return Session(
        number=0,
        session_id=SessionId(told.session_id),
        owner=told.owner,
        ttl=stamps.from_duration(told.ttl),
        lock_delay=stamps.from_duration(told.lock_delay),
        remaining=stamps.from_duration(told.remaining),
        age=stamps.from_duration(told.age),
        labels=told.labels,
    )


def _grant(told: pb.LockResult) -> Grant:
    _raise_any(told)
    if told.WhichOneof("answer") == "acquired":
        return Acquired(FencingToken(told.acquired.fencing_token))
    return Held(told.held.owner, stamps.from_duration(told.held.remaining))


def _lock(told: pb.Lock) -> Lock:
    return Lock(
        name=told.name,
        fencing_token=FencingToken(told.fencing_token),
        owner=told.owner or None,
        age=stamps.from_duration(told.age),
    )


def _state(told: pb.StateResult) -> State | None:
    if isinstance(from_proto(told.status), NotFound):
        return None
    _raise_any(told)
    return State(
        name=told.state.name,
        value=told.state.value,
        version=told.state.version,
        fencing_token=FencingToken(told.state.fencing_token),
        written=datetime.fromtimestamp(0, UTC),
    )


def _outcome(told: pb.WriteResult) -> WriteOutcome:
    refusal = from_proto(told.status)
    if isinstance(refusal, StaleFencingToken):
        return StaleToken(UNTOLD)
    if isinstance(refusal, VersionMismatch):
        return VersionConflict(int(refusal.facts["version"]))
    _raise_any(told)
    return Written(told.version)


def _raise_any(told: pb.LockResult | pb.StateResult | pb.WriteResult) -> None:
    if error := from_proto(told.status):
        raise error
