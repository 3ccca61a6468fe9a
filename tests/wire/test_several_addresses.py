"""One target with several addresses, as the orchestrator has them of several runtime services: all
of them are asked, and those that are away are passed over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

import pytest

from tests.support.suite import until
from vmshepherd.runtime.v1 import runtime_service_pb2 as pb
from vmshepherd.runtime.v1.runtime_service_pb2_grpc import (
    RuntimeServiceServicer,
    RuntimeServiceStub,
    add_RuntimeServiceServicer_to_server,
)
from vmshepherd_kit import dial, serve
from vmshepherd_kit.errors import Unavailable

SECOND = timedelta(seconds=1)
DESCRIPTOR = pb.DESCRIPTOR.services_by_name["RuntimeService"]


class Named(RuntimeServiceServicer):
    """Answers with its name, or that its store is away."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_away = False
        self.asked = 0

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Any
    ) -> pb.ListSessionsResponse:
        self.asked += 1
        if self.is_away:
            raise Unavailable("the store is away")
        return pb.ListSessionsResponse(sessions=[pb.Session(owner=self.name)])


class Pair:
    """Two servers, each of which may be stopped, and a client that knows both addresses."""

    def __init__(self) -> None:
        # One method is enough of a fake.
        self.servicers = [Named("first"), Named("second")]  # type: ignore[abstract]
        self.stub: RuntimeServiceStub
        self._stacks = [AsyncExitStack(), AsyncExitStack()]
        self._addresses = ["127.0.0.1:0", "127.0.0.1:0"]

    async def start(self, number: int) -> None:
        """Listen, where it listened before."""
        mount = serve.Mount(
            add=add_RuntimeServiceServicer_to_server,
            servicer=self.servicers[number],
            descriptor=DESCRIPTOR,
        )
        listen = serve.Listen(address=self._addresses[number])
        running = serve.running([mount], listen)
        server = await self._stacks[number].enter_async_context(running)
        self._addresses[number] = server.address

    async def stop(self, number: int) -> None:
        """End, whatever runs."""
        await self._stacks[number].aclose()

    @property
    def target(self) -> str:
        """What a configuration says."""
        return f"ipv4:{','.join(self._addresses)}"

    async def heard(self) -> set[str]:
        """Who answered some calls in a row; none of them fails."""
        request = pb.ListSessionsRequest()
        answers = [await dial.ask(self.stub.ListSessions, request) for _ in range(6)]
        return {session.owner for answer in answers for session in answer.sessions}

    async def is_heard(self, *names: str) -> None:
        """Wait until just these answer."""

        async def is_so() -> bool:
            return await self.heard() == set(names)

        await until(is_so)


@asynccontextmanager
async def running() -> AsyncIterator[Pair]:
    pair = Pair()
    await pair.start(0)
    await pair.start(1)
    try:
        async with dial.channel(pair.target, passed_over=SECOND) as channel:
            pair.stub = RuntimeServiceStub(channel)
            yield pair
    finally:
        await pair.stop(0)
        await pair.stop(1)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with running() as found:
        yield found


async def test_all_addresses_of_a_target_are_asked(pair: Pair) -> None:
    await pair.is_heard("first", "second")


async def test_no_call_fails_while_one_of_two_is_gone_and_it_is_asked_again_when_it_is_back(
    pair: Pair,
) -> None:
    await pair.is_heard("first", "second")
    await pair.stop(0)
    assert await pair.heard() <= {"first", "second"}
    await pair.is_heard("second")
    await pair.start(0)
    await pair.is_heard("first", "second")


async def test_one_whose_store_is_away_is_passed_over(pair: Pair) -> None:
    await pair.is_heard("first", "second")
    pair.servicers[0].is_away = True
    assert await pair.heard() == {"second"}


async def test_one_that_is_well_again_is_soon_asked_when_the_other_one_goes(pair: Pair) -> None:
    await pair.is_heard("first", "second")
    first = pair.servicers[0]
    first.is_away = True

    async def is_left_alone() -> bool:
        asked = first.asked
        return await pair.heard() == {"second"} and first.asked == asked

    await until(is_left_alone)
    first.is_away = False
    await pair.stop(1)

    async def is_asked() -> bool:
        with suppress(Unavailable):
            return await pair.heard() == {"first"}
        return False

    # It was left alone for two seconds, or for four if that was the second time: a session outlives
    # this by far, and those of the tests do, too.
    await until(is_asked, seconds=5)


async def test_when_both_are_gone_it_is_said_so(pair: Pair) -> None:
    await pair.stop(0)
    await pair.stop(1)
    with pytest.raises(Unavailable):
        await pair.heard()
