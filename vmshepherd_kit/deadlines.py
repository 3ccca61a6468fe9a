"""The deadline of the call being served, carried on to the calls that it makes.

gRPC for Python does not propagate deadlines by itself: without this, a service goes on asking
others on behalf of a client that gave up long ago.  `serve` installs the interceptor, `dial` asks
`remaining`; nobody else needs this file.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc

from vmshepherd_kit import handlers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from vmshepherd_kit.handlers import Context, Continuation, Handler


class _Served:
    """One call being served; a task that outlives it inherits it, and then finds it over."""

    def __init__(self, context: Context) -> None:
        self._context: Context | None = context

    def end(self) -> None:
        self._context = None

    def remaining(self) -> float | None:
        return self._context.time_remaining() if self._context else None


_served: ContextVar[_Served | None] = ContextVar("served", default=None)


def remaining() -> timedelta | None:
    """How long the caller of the call being served still waits; None when nobody does, or without
    end.
    """
    served = _served.get()
    seconds = served.remaining() if served else None
    return None if seconds is None else timedelta(seconds=max(0.0, seconds))


class DeadlineInterceptor(grpc.aio.ServerInterceptor):
    """Remembers, for the time of each call, how long its caller waits."""

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Handler | None:
        """Wrap the handler of this call."""
        handler = await continuation(details)
        return handler and handlers.guarded(handler, _remembered)


@asynccontextmanager
async def _remembered(context: Context) -> AsyncIterator[None]:
    served = _Served(context)
    token = _served.set(served)
    try:
        yield
    finally:
        served.end()
        _served.reset(token)
