"""How much is served at once: calls and streams counted apart, so that streams never starve calls.

`serve` installs the interceptor, and closes it to drain.  A call too many is answered at once with
RESOURCE_EXHAUSTED and when to come back; it is never queued and never dropped.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import grpc

from vmshepherd_kit import handlers
from vmshepherd_kit.errors import Throttled, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vmshepherd_kit.handlers import Context, Continuation, Handler


_HEALTH: Final = "/grpc.health.v1.Health/"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one server takes on at once; a peer is one connection."""

    calls: int = 8000
    streams: int = 2000
    streams_per_peer: int = 50
    retry_after: timedelta = timedelta(seconds=1)


class Admission(grpc.aio.ServerInterceptor):
    """Counts what is being served, and refuses what is too much, or everything once closed."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._calls = 0
        self._streams: set[asyncio.Task[object]] = set()
        self._streams_of: Counter[str] = Counter()
        self._closed = asyncio.Event()
        self._no_calls = asyncio.Event()
        self._no_calls.set()

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wrap the handler of this call by what it is: a stream either way, or a single call."""
        handler = await continuation(details)
        if handler is None:
            return None
        if handler.request_streaming or handler.response_streaming:
            return handlers.guarded(handler, self._stream)
        if details.method.startswith(_HEALTH):
            return handler  # asked and answered to the end, also when all else is too much
        return handlers.guarded(handler, self._call)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being served."""
        return not self._calls and not self._streams

    def close(self) -> None:
        """End all streams with UNAVAILABLE and take on nothing more; calls already begun go on."""
        self._closed.set()
        for task in self._streams:
            task.cancel()

    async def settled(self) -> None:
        """Wait until nothing is being served, no call and no stream."""
        await self._no_calls.wait()
        if self._streams:
            await asyncio.wait(self._streams)

    @asynccontextmanager
    async def _call(self, _context: Context) -> AsyncIterator[None]:
        if self._closed.is_set():
            raise _stopping()
        if self._calls >= self._limits.calls:
            raise self._throttled("calls")
        self._calls += 1
        self._no_calls.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._no_calls.set()

    @asynccontextmanager
    async def _stream(self, context: Context) -> AsyncIterator[None]:
        if self._closed.is_set():
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
            if not self._closed.is_set():
                raise
            task.uncancel()
            raise _stopping() from None
        finally:
            self._streams.discard(task)
            self._streams_of[peer] -= 1
            if not self._streams_of[peer]:
                del self._streams_of[peer]

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
