"""How many calls go out at a time, and what those learn that had no turn."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from iaas_service.drivers.openstack import failures
from iaas_service.drivers.openstack import wire as wire_module
from iaas_service.drivers.openstack.failures import Call
from iaas_service.drivers.openstack.wire import NoTurnError, Wire
from tests.unit.iaas_service.openstack.bare import listening
from vmshepherd_kit.errors import Throttled

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


class Cloud:
    """Answers orders when it is told to, readings at once, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.orders = 0
        self.most_orders = 0
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.is_left = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                self.asked += 1
                if request.startswith(b"POST"):
                    await self.hang()
                writer.write(ANSWER)
        except asyncio.IncompleteReadError:
            self.is_left.set()

    async def hang(self) -> None:
        self.orders += 1
        self.most_orders = max(self.most_orders, self.orders)
        self.is_asked.set()
        await self.may_answer.wait()
        self.orders -= 1


@pytest.fixture
async def cloud() -> AsyncIterator[Cloud]:
    cloud = Cloud()
    async with listening(cloud.serve) as port:
        cloud.url = f"http://127.0.0.1:{port}/servers"
        yield cloud


async def order(wire: Wire, cloud: Cloud) -> failures.Answer:
    return await wire.send("POST", cloud.url, headers={}, params={}, is_order=True)


async def test_a_listing_is_answered_while_every_order_hangs(cloud: Cloud) -> None:
    wire = Wire(
        connections=1,
        timeout=timedelta(seconds=60),
        context=ssl.create_default_context(),
        patience=timedelta(seconds=30),
    )
    async with wire:
        orders = [asyncio.create_task(order(wire, cloud)) for _ in range(3)]
        await cloud.is_asked.wait()
        listing = await wire.send("GET", cloud.url, headers={}, params={})
        assert listing.status == 200
        assert not any(each.done() for each in orders)
        cloud.may_answer.set()
        assert [answer.status for answer in await asyncio.gather(*orders)] == [200] * 3
    assert cloud.most_orders == 1


async def test_a_call_that_gets_no_turn_is_surely_not_sent(cloud: Cloud) -> None:
    wire = Wire(
        connections=1,
        timeout=timedelta(seconds=60),
        context=ssl.create_default_context(),
        patience=timedelta(milliseconds=50),
    )
    async with wire:
        first = asyncio.create_task(order(wire, cloud))
        await cloud.is_asked.wait()
        with pytest.raises(NoTurnError, match="1 calls were under way"):
            await order(wire, cloud)
        cloud.may_answer.set()
        assert (await first).status == 200
        assert (await wire.send("GET", cloud.url, headers={}, params={})).status == 200
    assert cloud.asked == 2


async def test_a_silent_connection_is_left_before_the_cloud_drops_it_beneath_a_create(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wire_module._KEPT_SECONDS < 5, "Apache's own patience, the shortest that is known"
    monkeypatch.setattr(wire_module, "_KEPT_SECONDS", 0.05)
    wire = Wire(connections=1, timeout=timedelta(seconds=60), context=ssl.create_default_context())
    async with wire:
        await wire.send("GET", cloud.url, headers={}, params={})
        await asyncio.wait_for(cloud.is_left.wait(), 60)


def test_what_had_no_turn_was_not_done_and_is_tried_again() -> None:
    call = Call(whom="Nova of osk", what="POST /servers", changes=True)
    error = failures.crowded(call, "16 calls were under way all the time")
    assert isinstance(error, Throttled)
    assert error.reason == "HELD_BACK"
    assert error.retry_after
    assert "nothing was done" in error.message
