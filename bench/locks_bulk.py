"""Ten thousand locks taken, kept and written under: how long each takes, over gRPC.

Beside it on PostgreSQL: a bare `INSERT ... SELECT unnest` of the same rows into an equal table of
the same server, in the same run.  That is what no store upon it can be faster than.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import asyncpg

from bench.locks_services import Services
from tests.support import postgres, zookeeper
from vmshepherd.runtime.v1 import runtime_service_pb2 as pb
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import RuntimeServiceStub
from vmshepherd_kit import dial, stamps
from vmshepherd_kit.status import from_proto

COUNT: Final = 10_000
VALUE_BYTES: Final = 1000
LOCKS_SECONDS: Final = 2.0
STATES_SECONDS: Final = 3.0
RATIO: Final = 3.0
_NAMES: Final = [f"preset/{number:05}" for number in range(COUNT)]
_TTL: Final = 4.0
_ONE_MESSAGE: Final = 4 * 1024 * 1024 - 64 * 1024
_BARE_RUNS: Final = 3
_PATIENCE: Final = timedelta(minutes=2)


@dataclass(slots=True)
class Store:
    """What is measured; the bare server beneath it, where there is one."""

    services: Services
    server: postgres.Server | None = None


async def bulk(driver: str) -> dict[str, Any]:
    """All figures of one driver."""
    with _store(driver) as store:
        [address] = store.services.addresses
        async with dial.channel(address, deadline=_PATIENCE) as channel:
            found = await _Measurement(RuntimeServiceStub(channel)).all()
        if store.server:
            bare = await _bare_seconds(store.server)
            found |= {
                "bare_seconds": round(bare, 3),
                "states_to_bare": round(found["states_seconds"] / bare, 2),
            }
        return found


def complaints(driver: str, found: dict[str, Any]) -> list[str]:
    """What is slower than it should be."""
    wrong = []
    if found["locks_seconds"] > LOCKS_SECONDS:
        wrong.append(f"{COUNT} locks took more than {LOCKS_SECONDS} s")
    if driver == "postgres" and found["states_seconds"] > STATES_SECONDS:
        wrong.append(f"{COUNT} states took more than {STATES_SECONDS} s")
    if found.get("states_to_bare", 0) > RATIO:
        wrong.append(f"states took more than {RATIO} times as long as a bare INSERT")
    return wrong


class _Measurement:
    """One session, its locks and its states."""

    def __init__(self, stub: RuntimeServiceStub) -> None:
        self._stub = stub
        self._session_id = ""
        self._tokens: list[int] = []
        self._refresh = pb.RefreshSessionRequest()
        self._refreshes: list[float] = []

    async def all(self) -> dict[str, Any]:
        """One after the other."""
        ttl = stamps.to_duration(timedelta(seconds=_TTL))
        opened = await dial.ask(
            self._stub.OpenSession, pb.OpenSessionRequest(owner="bulk", ttl=ttl)
        )
        self._session_id = opened.session.session_id
        self._refresh.session_id = self._session_id
        locks = await _timed(self._take_locks())
        keeping = asyncio.create_task(self._keep())
        await asyncio.sleep(1.5 * _TTL)
        states = await _timed(self._put(version=0))
        again = await _timed(self._put(version=1))
        keeping.cancel()
        return {
            "locks": COUNT,
            "locks_seconds": round(locks, 3),
            "refresh_seconds": round(statistics.median(self._refreshes), 4),
            "refresh_bytes": self._refresh.ByteSize(),
            "states": COUNT,
            "state_bytes": VALUE_BYTES,
            "states_calls": len(self._calls(0)),
            "states_seconds": round(states, 3),
            "states_again_seconds": round(again, 3),
        }

    async def _take_locks(self) -> None:
        request = pb.TryLockRequest(
            session_id=self._session_id, wishes=[pb.LockWish(name=name) for name in _NAMES]
        )
        answer = await dial.ask(self._stub.TryLock, request)
        self._tokens = [result.acquired.fencing_token for result in answer.results]

    async def _keep(self) -> None:
        """By one small call each time."""
        while True:
            self._refreshes.append(await _timed(dial.ask(self._stub.RefreshSession, self._refresh)))
            await asyncio.sleep(_TTL / 4)

    async def _put(self, *, version: int) -> None:
        """Every state; that none is refused proves that all locks were kept."""
        for request in self._calls(version):
            answer = await dial.ask(self._stub.PutStates, request)
            refusals = [from_proto(result.status) for result in answer.results]
            if refusal := next(filter(None, refusals), None):
                raise refusal

    def _calls(self, version: int) -> list[pb.PutStatesRequest]:
        """As few as one message's size allows."""
        calls, room = [pb.PutStatesRequest(session_id=self._session_id)], _ONE_MESSAGE
        for name, token in zip(_NAMES, self._tokens, strict=True):
            write = pb.StateWrite(
                name=name, value=value_of(name), fencing_token=token, expected_version=version
            )
            room -= write.ByteSize() + 8
            if room < 0:
                calls.append(pb.PutStatesRequest(session_id=self._session_id))
                room = _ONE_MESSAGE - write.ByteSize() - 8
            calls[-1].writes.append(write)
        return calls


def value_of(name: str) -> bytes:
    """What is stored under a name."""
    return f"{name} ".encode().ljust(VALUE_BYTES, b".")


async def _timed(work: Any) -> float:
    began = time.monotonic()
    await work
    return time.monotonic() - began


@contextmanager
def _store(driver: str) -> Iterator[Store]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="vmshepherd-bulk-")))
        server, options = None, dict[str, Any]()
        if driver == "postgres":
            server = stack.enter_context(postgres.running())
            options = server.options()
        elif driver == "zookeeper":
            ensemble = zookeeper.Ensemble(folder / "nodes", nodes=3)
            options = {"servers": stack.enter_context(ensemble).servers}
        yield Store(stack.enter_context(Services(folder, driver, options)), server)


async def _bare_seconds(server: postgres.Server) -> float:
    """The median of some runs, each into a table of its own."""
    async with _connected(server) as connection:
        return statistics.median([await _bare(connection, n) for n in range(_BARE_RUNS)])


async def _bare(connection: asyncpg.Connection[asyncpg.Record], number: int) -> float:
    table = f"vmshepherd.bare_{number}"
    await connection.execute(f"CREATE TABLE {table} (LIKE vmshepherd.states INCLUDING ALL)")
    insert = (
        f"INSERT INTO {table} (name, value, version, token, written) SELECT * FROM "  # noqa: S608
        "unnest($1::text[], $2::bytea[], $3::bigint[], $4::bigint[], $5::timestamptz[])"
    )
    columns: Sequence[Any] = [
        _NAMES,
        [value_of(name) for name in _NAMES],
        [1] * COUNT,
        [1] * COUNT,
        [datetime.now(UTC)] * COUNT,
    ]
    return await _timed(connection.execute(insert, *columns))


@asynccontextmanager
async def _connected(
    server: postgres.Server,
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    options = server.options()
    connection = await asyncpg.connect(**options)
    try:
        yield connection
    finally:
        await connection.close()
