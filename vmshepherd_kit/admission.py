"""How much is served at once: calls and streams counted apart, so that streams never starve calls.

`serve` installs the interceptor; on drain it ends the streams through it.  A call too many is
answered at once with RESOURCE_EXHAUSTED and when to come back; it is never queued and never
dropped.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc

from vmshepherd_kit import handlers
from vmshepherd_kit.errors import Throttled, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vmshepherd_kit.handlers import Context, Continuation, Handler


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one server takes on at once; a peer is one connection."""

    calls: int = 8000
    streams: int = 2000
    streams_per_peer: int = 50
    retry_after: timedelta = timedelta(seconds=1)


class Admission(grpc.aio.ServerInterceptor):
    """Counts what is being served, refuses what is too much, ends the streams when the server
    drains.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._calls = 0
        self._streams: set[asyncio.Task[object]] = set()
        self._streams_of: Counter[str] = Counter()
        self._draining = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wrap the handler of this call by what it is: a stream either way, or a single call."""
        handler = await continuation(details)
        if handler is None:
            return None
        streaming = handler.request_streaming or handler.response_streaming
        return handlers.guarded(handler, self._stream if streaming else self._call)

    def end_streams(self) -> None:
        """End all streams with UNAVAILABLE, now and from now on; single calls go on."""
        self._draining.set()
        for task in self._streams:
            task.cancel()

    async def settled(self) -> None:
        """Wait until nothing is being served, no call and no stream."""
        await self._settled.wait()
        if self._streams:
            await asyncio.wait(self._streams)

    @asynccontextmanager
    async def _call(self, _context: Context) -> AsyncIterator[None]:
        if self._calls >= self._limits.calls:
            raise self._throttled("calls")
        self._calls += 1
        self._settled.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._settled.set()

    @asynccontextmanager
    async def _stream(self, context: Context) -> AsyncIterator[None]:
        if self._draining.is_set():
            raise _stopping()
        peer = context.peer()
        if self._streams_of[peer] >= self._limits.streams_per_peer:
            raise self._throttled("streams of one client")
        if len(self._streams) >= self._limits.streams:
            raise self._throttled("streams")
        task = _this_task()
        self._streams.add(task)
        self._streams_of[peer] += 1
        try:
            yield
        except asyncio.CancelledError:
            if not self._draining.is_set():
                raise
            task.uncancel()
            raise _stopping() from None
        finally:
            self._streams.discard(task)
            self._streams_of -= Counter([peer])

    def _throttled(self, what: str) -> Throttled:
        sentence = f"too many {what} at once"
        return Throttled(sentence, reason="TOO_MANY_AT_ONCE", retry_after=self._limits.retry_after)


def _this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a call is served outside of any task")
    return task


def _stopping() -> Unavailable:
    return Unavailable("this server is stopping; another one, or the next one, answers")
