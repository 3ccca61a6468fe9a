"""One channel to several processes of a service, one of which gives no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from tests.wire.test_kit import LOOPBACK, SHORT, echo, for_ever, once
from vmshepherd_kit import dial, errors, serve

CALLS = 200
LONG = timedelta(seconds=60)
SECOND = timedelta(seconds=1)


async def _hangs(_request: StringValue, _context: Any) -> StringValue:
    return await for_ever()


async def _names_itself(_request: StringValue, _context: Any) -> StringValue:
    return StringValue(value="the other one")


@asynccontextmanager
async def one_hangs() -> AsyncIterator[grpc.aio.Channel]:
    async with (
        serve.running([echo(_hangs)], LOOPBACK) as first,
        serve.running([echo(_names_itself)], LOOPBACK) as second,
        # Not shorter than it takes to see who hangs: four attempts are all there are.
        dial.channel(f"ipv4:{first.address},{second.address}", passed_over=SECOND) as channel,
    ):
        yield channel


async def test_one_of_several_that_hangs_is_passed_over_within_the_call() -> None:
    async with one_hangs() as channel:
        # So many that they would use up all repeats, if the one that hangs were asked each time.
        for _ in range(CALLS):
            answer = await dial.ask(once(channel), StringValue(), deadline=LONG)
            assert answer.value == "the other one"


async def test_many_calls_at_once_are_all_passed_on() -> None:
    async with one_hangs() as channel:
        calls = [dial.ask(once(channel), StringValue(), deadline=LONG) for _ in range(CALLS * 2)]
        assert {answer.value for answer in await asyncio.gather(*calls)} == {"the other one"}


async def test_when_all_of_them_hang_time_runs_out_and_nothing_else_is_said() -> None:
    async with (
        serve.running([echo(_hangs)], LOOPBACK) as first,
        serve.running([echo(_hangs)], LOOPBACK) as second,
        dial.channel(f"ipv4:{first.address},{second.address}", passed_over=SHORT) as channel,
    ):
        for _ in range(3):
            with pytest.raises(errors.OutcomeUnknown):
                await dial.ask(once(channel), StringValue(), deadline=SHORT * 10)


async def test_the_only_one_there_is_may_take_its_time() -> None:
    asked = 0

    async def slow(request: StringValue, _context: Any) -> StringValue:
        nonlocal asked
        asked += 1
        return await for_ever()

    async with (
        serve.running([echo(slow)], LOOPBACK) as server,
        dial.channel(server.address, passed_over=SHORT) as channel,
    ):
        with pytest.raises(errors.OutcomeUnknown):
            await dial.ask(once(channel), StringValue(), deadline=SHORT * 15)
        assert asked == 1
