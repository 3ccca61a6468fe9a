from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from orchestrator.clients.runtime import Held, Runtime, Wish, Write
from orchestrator.journal import Journal
from orchestrator.model import PresetName
from orchestrator.narrate import Telling
from runtime_service.drivers.memory import MemoryOptions, MemoryRuntime
from runtime_service.servicer import RuntimeServicer
from tests.support.gate import Gate
from vmshepherd.runtime.v1 import runtime_service_pb2 as pb
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import add_RuntimeServiceServicer_to_server
from vmshepherd_kit import serve
from vmshepherd_kit.clock import SeededChance, SystemChance, SystemClock
from vmshepherd_kit.errors import SessionLost, StaleFencingToken, VersionMismatch
from vmshepherd_kit.testing import served

MINUTE = timedelta(minutes=1)


@asynccontextmanager
async def client() -> AsyncIterator[tuple[Runtime, Gate]]:
    clock, gate = SystemClock(), Gate()
    store = MemoryRuntime(MemoryOptions(), clock)
    mount = serve.Mount(
        add=add_RuntimeServiceServicer_to_server,
        servicer=RuntimeServicer(store, clock=clock, chance=SystemChance()),
        descriptor=pb.DESCRIPTOR.services_by_name["RuntimeService"],
    )
    async with served([mount], interceptors=[gate]) as channel:
        yield Runtime(channel, clock=clock), gate


async def session(runtime: Runtime, owner: str = "me") -> str:
    return await runtime.open_session(
        owner, ttl=MINUTE, lock_delay=MINUTE, labels={}, deadline=MINUTE
    )


async def locked(runtime: Runtime, session_id: str, names: Sequence[str]) -> list[int]:
    found = await asyncio.gather(*(runtime.try_lock(Wish(session_id, n, 0)) for n in names))
    assert all(isinstance(each, int) for each in found)
    return [each for each in found if isinstance(each, int)]


async def test_whose_a_lock_is_is_an_answer() -> None:
    async with client() as (runtime, gate):
        mine, yours = await session(runtime), await session(runtime, "you")
        await locked(runtime, mine, ["web", "other"])
        assert gate.calls["TryLock"] == 1
        held = await runtime.try_lock(Wish(yours, "web", 0))
        assert isinstance(held, Held)
        assert held.owner == "me"
        assert MINUTE < held.remaining <= 2 * MINUTE
        await runtime.close_session(mine, deadline=MINUTE)
        assert isinstance(await runtime.try_lock(Wish(yours, "web", 0)), int)
        with pytest.raises(SessionLost):
            await runtime.refresh_session(mine, labels={}, deadline=MINUTE)


async def test_sessions_that_meet_in_a_moment_are_not_mixed() -> None:
    async with client() as (runtime, _):
        mine, yours = await session(runtime), await session(runtime, "you")
        asking = [Wish(mine, "a", 0), Wish(yours, "b", 0), Wish("nobody's", "c", 0)]
        found = await asyncio.gather(*map(runtime.try_lock, asking), return_exceptions=True)
        assert isinstance(found[2], SessionLost)
        owners = {lock.name: lock.owner for lock in await runtime.locks()}
        assert owners == {"a": "me", "b": "you"}


async def test_each_write_has_its_own_answer() -> None:
    async with client() as (runtime, gate):
        mine = await session(runtime)
        tokens = await locked(runtime, mine, ["a", "b", "c"])
        writes = [
            Write(mine, "a", b"1", tokens[0], 0),
            Write(mine, "b", b"2", tokens[1] + 1, 0),
            Write(mine, "c", b"3", tokens[2], 4),
        ]
        found = await asyncio.gather(*map(runtime.put_state, writes), return_exceptions=True)
        assert found[0] == 1
        assert isinstance(found[1], StaleFencingToken)
        assert isinstance(found[2], VersionMismatch)
        assert gate.calls["PutStates"] == 1
        states = await asyncio.gather(runtime.get_state("a"), runtime.get_state("b"))
        assert [state and state.value for state in states] == [b"1", None]
        assert gate.calls["GetStates"] == 1
        assert [state.name for state in await runtime.states("a")] == ["a"]


async def test_large_records_of_many_presets_are_written_and_read() -> None:
    async with client() as (runtime, gate):
        mine, names = await session(runtime), [f"preset-{number}" for number in range(30)]
        tokens = await locked(runtime, mine, names)
        # Together far more than a server takes, or answers, in one message.
        value = bytes(900_000)
        writing = [
            runtime.put_state(Write(mine, name, value, token, 0))
            for name, token in zip(names, tokens, strict=True)
        ]
        assert await asyncio.gather(*writing) == [1] * 30
        read = await asyncio.gather(*map(runtime.get_state, names))
        assert all(state is not None and len(state.value) == len(value) for state in read)
        assert gate.calls["GetStates"] > 1


async def test_many_and_large_events_are_stored_whole() -> None:
    async with client() as (runtime, gate):
        journal = Journal(runtime, actor="me", clock=SystemClock(), chance=SeededChance(1))
        many = [Telling(kind="VM_SEEN", message="is there") for _ in range(40)]
        telling = [journal.record(PresetName(f"p{number}"), many) for number in range(300)]
        huge = Telling(kind="VM_STATUS", message="ä" * 90_000, evidence={"fault": "x" * 90_000})
        await asyncio.gather(*telling, journal.record(PresetName("huge"), [huge]))
        assert gate.calls["AppendEvents"] > 1
        request = pb.ListEventsRequest(page_size=1)
        request.filter.preset = "huge"
        [event] = (await runtime.list_events(request)).events
        assert event.message.endswith("…")
        request.filter.preset = "p299"
        request.page_size = 1000
        assert len((await runtime.list_events(request)).events) == 40
