"""A stream that is ended while a message is on its way: the message first, then the status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from vmshepherd_kit import handlers


class SlowWire:
    """A context whose writes take until they are let through."""

    def __init__(self) -> None:
        self.did: list[str] = []
        self.begun, self.through = asyncio.Event(), asyncio.Event()

    async def write(self, _message: object) -> None:
        self.begun.set()
        await self.through.wait()
        self.did.append("message sent")


@asynccontextmanager
async def telling(context: Any) -> AsyncIterator[None]:
    try:
        yield
    finally:
        context.did.append("status sent")


async def one(_request: object, _context: object) -> AsyncIterator[str]:
    yield "message"


async def test_a_status_never_overtakes_a_message_that_is_on_its_way() -> None:
    handler = handlers.guarded(grpc.unary_stream_rpc_method_handler(one), telling)
    assert handler.unary_stream is not None
    wire: Any = SlowWire()
    call: Any = handler.unary_stream("request", wire)
    serving = asyncio.ensure_future(call)
    await wire.begun.wait()
    serving.cancel()
    await asyncio.sleep(0)
    wire.through.set()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert wire.did == ["message sent", "status sent"]
