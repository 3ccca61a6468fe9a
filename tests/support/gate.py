"""What stands between a client and a server of a test: it counts, and lets happen what happens to
networks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from vmshepherd_kit import handlers
from vmshepherd_kit.errors import ShepherdError, Unavailable


class Gate(grpc.aio.ServerInterceptor):
    """Counts calls by method; holds them up, refuses them, or loses their answers."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.time_left: dict[str, float] = {}
        self.refusing: dict[str, ShepherdError] = {}
        self.losing: dict[str, ShepherdError] = {}
        self._held: dict[str, asyncio.Event] = {}
        self._open: dict[str, set[asyncio.Task[Any]]] = {}
        self._broken: set[asyncio.Task[Any]] = set()
        self._is_cut = False

    def hold(self, *methods: str) -> None:
        """These calls wait at the door until they are let in."""
        for method in methods:
            self._held[method] = asyncio.Event()

    def let_in(self, *methods: str) -> None:
        """Those that wait, and all after them."""
        for method in methods or list(self._held):
            self._held.pop(method).set()

    def break_off(self, method: str) -> None:
        """End the streams that are open as a broken connection does."""
        for task in self._open.get(method, ()):
            self._broken.add(task)
            task.cancel()

    def cut(self) -> None:
        """No call arrives any more, and no answer comes."""
        self._is_cut = True

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        method = details.method.rpartition("/")[2]
        handler = await continuation(details)
        return handler and handlers.guarded(handler, lambda context: self._guard(method, context))

    @asynccontextmanager
    async def _guard(self, method: str, context: Any) -> AsyncIterator[None]:
        self.calls[method] += 1
        left = context.time_remaining()
        if left is not None:
            self.time_left[method] = left
        if self._is_cut:
            await asyncio.Event().wait()
        if method in self._held:
            await self._held[method].wait()
        if method in self.refusing:
            raise self.refusing[method]
        async with self._breakable(method):
            yield
        if self._is_cut:
            await asyncio.Event().wait()
        if method in self.losing:
            raise self.losing[method]

    @asynccontextmanager
    async def _breakable(self, method: str) -> AsyncIterator[None]:
        task = asyncio.current_task()
        assert task is not None
        opened = self._open.setdefault(method, set())
        opened.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._broken:
                raise
            task.uncancel()
            raise Unavailable("the connection broke") from None
        finally:
            opened.discard(task)
            self._broken.discard(task)
