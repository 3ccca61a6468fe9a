"""The bridge from kazoo's threads to the event loop: one kazoo client, asked and forgotten.

`connection` has one at a time and takes a new one when this is in doubt.  Of kazoo only `*_async`
calls are used; its threads do nothing here but hand their news to the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from kazoo.client import KazooClient
from kazoo.exceptions import AuthFailedError, ConnectionClosedError, ConnectionLoss
from kazoo.protocol.states import KeeperState

from vmshepherd_kit.clock import Clock

Send = Callable[[KazooClient], Any]
"""Begins one request: a call of kazoo that answers with its `AsyncResult` at once."""

# kazoo wakes its thread by a byte a request through a socket that holds 278 of them, and blocks
# the caller when it is full: never have so many requests on the way.
_ASKED_AT_ONCE: Final = 40
SENT_AT_ONCE: Final = 6
"""Requests in one `ask`, at most."""

_YOUTH: Final = timedelta(seconds=1)


class Client:
    """A kazoo client within one event loop."""

    def __init__(self, zookeeper: KazooClient, clock: Clock) -> None:
        self._zookeeper = zookeeper
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(_ASKED_AT_ONCE)
        self._changed = asyncio.Event()
        self._waiting: set[asyncio.Future[Any]] = set()
        self._begun = self._last_sign = clock.elapsed()

    def start(self) -> None:
        """Begin to connect; kazoo goes on trying by itself, in threads of its own."""
        self._zookeeper.add_listener(self._heard)
        self._zookeeper.start_async()

    def end(self) -> threading.Thread:
        """Ask for nothing any more; the thread that says goodbye to ZooKeeper, which may take
        seconds.
        """
        self._zookeeper.remove_listener(self._heard)
        for answer in list(self._waiting):
            _settle(answer, ConnectionLoss())
        goodbye = threading.Thread(target=self._say_goodbye, daemon=True)
        goodbye.start()
        return goodbye

    @property
    def is_connected(self) -> bool:
        """Whether requests reach ZooKeeper, as far as is known."""
        return bool(self._zookeeper.connected)

    @property
    def is_refused(self) -> bool:
        """Whether ZooKeeper did not accept who we are, or broke off while we said it."""
        return bool(self._zookeeper.client_state == KeeperState.AUTH_FAILED)

    @property
    def is_over(self) -> bool:
        """Whether kazoo has given up: this client will never be connected again."""
        # Right after the start it says so, too.
        is_young = self._clock.elapsed() - self._begun < _YOUTH
        is_closed = self._zookeeper.client_state == KeeperState.CLOSED
        return self.is_refused or (is_closed and not is_young)

    def has_been_silent(self, duration: timedelta) -> bool:
        """Whether nothing was heard of ZooKeeper for so long."""
        return self._clock.elapsed() - self._last_sign >= duration

    async def ask(self, *sends: Send) -> list[Any]:
        """The answers to some requests, which ZooKeeper is sent in this order over one connection;
        one that failed is answered by kazoo's error.
        """
        await self._room.acquire()
        try:
            await self._until_connected()
        except BaseException:
            self._room.release()
            raise
        answers = [self._sent(send) for send in sends]
        # There is room again when kazoo has done with them, even if nobody waits any more.
        all_of_them = asyncio.gather(*answers, return_exceptions=True)
        all_of_them.add_done_callback(lambda _: self._room.release())
        await asyncio.wait(answers)
        return [answer.exception() or answer.result() for answer in answers]

    def _sent(self, send: Send) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.add(answer)
        answer.add_done_callback(self._waiting.discard)
        send(self._zookeeper).rawlink(lambda result: self._tell(self._answered, answer, result))
        return answer

    def _answered(self, answer: asyncio.Future[Any], result: Any) -> None:
        # Also an error is a sign of life, but for that of a connection that was lost.
        if not isinstance(result.exception, ConnectionLoss):
            self._last_sign = self._clock.elapsed()
        _settle(answer, result.exception or result.value)

    async def _until_connected(self) -> None:
        while not self.is_connected:
            if self.is_over:
                raise AuthFailedError if self.is_refused else ConnectionClosedError
            await self._changed.wait()

    def _heard(self, _state: object) -> None:
        self._tell(self._wake)

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell(self, what: Callable[..., None], *facts: object) -> None:
        """From whatever thread: let the loop do it; a loop that has ended needs nothing."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, *facts)

    def _say_goodbye(self) -> None:
        # kazoo fails here in many ways when it was not connected, and there is nobody to tell.
        with suppress(Exception):
            self._zookeeper.stop()
        with suppress(Exception):
            self._zookeeper.close()


def _settle(answer: asyncio.Future[Any], outcome: Any) -> None:
    if answer.done():
        return
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)
