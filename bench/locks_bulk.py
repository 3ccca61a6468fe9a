"""Ten thousand locks taken, kept and written under: how long each takes, over gRPC.

Beside it on PostgreSQL: a bare `INSERT ... SELECT unnest` of the same rows into an equal table of
the same server, in the same run.  That is what no store upon it can be faster than.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
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
_TTL: Final = 4.0
_ONE_MESSAGE: Final = 4 * 1024 * 1024 - 64 * 1024
# What stands around one write in a message.
_FRAMING: Final = 8
_ROUNDS: Final = 3
_PATIENCE: Final = timedelta(minutes=2)


@dataclass(slots=True)
class Store:
    """What is measured; the bare server beneath it, where there is one."""

    services: Services
    server: postgres.Server | None = None


async def bulk(driver: str) -> dict[str, Any]:
    """The medians of some rounds of one driver, each with names of its own."""
    with _store(driver) as store:
        [address] = store.services.addresses
        async with dial.channel(address, deadline=_PATIENCE) as channel, AsyncExitStack() as stack:
            holder = await stack.enter_async_context(_holding(RuntimeServiceStub(channel)))
            rounds = []
            for number in range(_ROUNDS):
                found = await holder.round(number)
                if store.server:
                    found["bare_seconds"] = await _bare_seconds(store.server, number)
                rounds.append(found)
    return _figures(rounds) | {
        "locks": COUNT,
        "states": COUNT,
        "state_bytes": VALUE_BYTES,
        "refresh_seconds": round(statistics.median(holder.refreshes), 4),
        "refresh_bytes": holder.refresh.ByteSize(),
    }


def _figures(rounds: Sequence[dict[str, float]]) -> dict[str, Any]:
    found = {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}
    if "bare_seconds" in found:
        ratios = [each["states_seconds"] / each["bare_seconds"] for each in rounds]
        found["states_to_bare"] = round(statistics.median(ratios), 2)
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


class _Holder:
    """One session that takes locks and writes under them, kept alive by one small call a time."""

    def __init__(self, stub: RuntimeServiceStub, session_id: str) -> None:
        self.refresh = pb.RefreshSessionRequest(session_id=session_id)
        self.refreshes: list[float] = []
        self._stub = stub
        self._session_id = session_id

    async def keep(self) -> None:
        """Until it is cancelled."""
        while True:
            self.refreshes.append(await _timed(dial.ask(self._stub.RefreshSession, self.refresh)))
            await asyncio.sleep(_TTL / 4)

    async def round(self, number: int) -> dict[str, float]:
        """Take locks, hold them for longer than a session's life, write under them twice."""
        names = names_of(number)
        wishes = [pb.LockWish(name=name) for name in names]
        began = time.monotonic()
        request = pb.TryLockRequest(session_id=self._session_id, wishes=wishes)
        answer = await dial.ask(self._stub.TryLock, request)
        locked = time.monotonic() - began
        await asyncio.sleep(1.2 * _TTL)
        tokens = [result.acquired.fencing_token for result in answer.results]
        first, second = (self._calls(names, tokens, version) for version in (0, 1))
        return {
            "locks_seconds": locked,
            "states_calls": len(first),
            "states_seconds": await _timed(self._put(first)),
            "states_again_seconds": await _timed(self._put(second)),
        }

    async def _put(self, calls: Sequence[pb.PutStatesRequest]) -> None:
        """Every state; that none is refused proves that all locks were kept."""
        for request in calls:
            answer = await dial.ask(self._stub.PutStates, request)
            refusals = [from_proto(result.status) for result in answer.results]
            if refusal := next(filter(None, refusals), None):
                raise refusal

    def _calls(
        self, names: Sequence[str], tokens: Sequence[int], version: int
    ) -> list[pb.PutStatesRequest]:
        """As few as one message's size allows."""
        calls, room = [pb.PutStatesRequest(session_id=self._session_id)], _ONE_MESSAGE
        for name, token in zip(names, tokens, strict=True):
            write = pb.StateWrite(
                name=name, value=value_of(name), fencing_token=token, expected_version=version
            )
            room -= write.ByteSize() + _FRAMING
            if room < 0:
                calls.append(pb.PutStatesRequest(session_id=self._session_id))
                room = _ONE_MESSAGE - write.ByteSize() - _FRAMING
            calls[-1].writes.append(write)
        return calls


@asynccontextmanager
async def _holding(stub: RuntimeServiceStub) -> AsyncIterator[_Holder]:
    ttl = stamps.to_duration(timedelta(seconds=_TTL))
    opened = await dial.ask(stub.OpenSession, pb.OpenSessionRequest(owner="bulk", ttl=ttl))
    holder = _Holder(stub, opened.session.session_id)
    keeping = asyncio.create_task(holder.keep())
    try:
        yield holder
    finally:
        keeping.cancel()


def names_of(number: int) -> list[str]:
    """The names of one round."""
    return [f"preset/{number}/{name:05}" for name in range(COUNT)]


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


async def _bare_seconds(server: postgres.Server, number: int) -> float:
    """The same rows into an equal table, which is empty as that of the states is at first."""
    table = f"vmshepherd.bare_{number}"
    insert = (
        f"INSERT INTO {table} (name, value, version, token, written) SELECT * FROM "  # noqa: S608
        "unnest($1::text[], $2::bytea[], $3::bigint[], $4::bigint[], $5::timestamptz[])"
    )
    names = names_of(number)
    ones = [1] * COUNT
    written = [datetime.now(UTC)] * COUNT
    connection = await asyncpg.connect(**server.options())
    try:
        await connection.execute(f"CREATE TABLE {table} (LIKE vmshepherd.states INCLUDING ALL)")
        values = [value_of(name) for name in names]
        return await _timed(connection.execute(insert, names, values, ones, ones, written))
    finally:
        await connection.close()
