"""The seeded scheduler: many event loops in one thread, one virtual time, one random order.

Each simulated process has a `Host`, an asyncio loop of its own; the `Kernel` runs one ready handle
of a random host at a time and jumps to the next timer when nothing is ready. A host can be paused
(what is due waits), and killed (nothing of it ever runs again). Real I/O and threads are no part of
it: `run_in_executor` runs its job at once, in line.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any

Timer = tuple[float, float, int, "Host | None", Any]

# More turns at one moment than any honest program takes: it spins.
_SPINNING = 200_000


class Kernel:
    """Virtual time, and who runs next."""

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.steps = 0
        self.errors: list[str] = []
        # Tasks of killed processes: kept, so that no finally of theirs ever runs.
        self.graveyard: list[Any] = []
        self._random = random.Random(seed).random
        self._ready: list[Host] = []
        self._timers: list[Timer] = []
        self._number = 0
        self._numbered = 0

    def call_at(self, when: float, call: Callable[[], object]) -> None:
        """Call at that moment, in nobody's name: the network, the cloud, the faults."""
        self._push(when, None, call)

    def call_later(self, delay: float, call: Callable[[], object]) -> None:
        """Call after that time."""
        self._push(self.now + delay, None, call)

    def run_until(self, end: float) -> None:
        """Let time pass."""
        try:
            while True:
                self._exhaust()
                if not self._timers or self._timers[0][0] > end:
                    self.now = end
                    return
                self._advance()
        finally:
            events._set_running_loop(None)

    def number(self) -> int:
        """The next of all numbers."""
        self._numbered += 1
        return self._numbered

    def bury(self) -> None:
        """Let go of what the dead were doing, and of all that was to come."""
        for task in self.graveyard:
            task._log_destroy_pending = False
            with suppress(Exception, BaseExceptionGroup):
                task.get_coro().close()
        self.graveyard.clear()
        self._timers.clear()

    def wake(self, host: Host) -> None:
        """Have this host take turns."""
        self._ready.append(host)

    def schedule(self, when: float, host: Host, handle: Handle) -> None:
        """A timer of a host, at a moment of the kernel."""
        self._push(when, host, handle)

    def _push(self, when: float, host: Host | None, what: object) -> None:
        self._number += 1
        heapq.heappush(self._timers, (when, self._random(), self._number, host, what))

    def _exhaust(self) -> None:
        """Give turns to random hosts until nobody wants one."""
        ready, chance, running = self._ready, self._random, None
        before = self.steps
        while ready:
            place = int(chance() * len(ready)) if len(ready) > 1 else 0
            host = ready[place]
            if host.is_idle:
                host.is_waiting = False
                ready[place] = ready[-1]
                ready.pop()
                continue
            if host is not running:
                events._set_running_loop(host)  # type: ignore[arg-type]
                running = host
            self.steps += 1
            host.queue.popleft().run()
        if self.steps - before > _SPINNING:
            raise RuntimeError(f"something spins at {self.now:.3f} s")

    def _advance(self) -> None:
        when, _, _, host, what = heapq.heappop(self._timers)
        self.now = max(self.now, when)
        if host is None:
            events._set_running_loop(None)
            what()
        elif not what.is_cancelled:
            host.enqueue(what)


class Handle:
    """A call that is due, or will be; asyncio's own, only lighter."""

    __slots__ = ("_args", "_callback", "_context", "_host", "_when", "is_cancelled")

    def __init__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        host: Host,
        context: Context | None,
        when: float = 0.0,
    ) -> None:
        self._callback = callback
        self._args = args
        self._host = host
        # An empty one is false, and a context all the same.
        self._context = copy_context() if context is None else context
        self._when = when
        self.is_cancelled = False

    def run(self) -> None:
        """Make the call."""
        if self.is_cancelled:
            return
        try:
            self._context.run(self._callback, *self._args)
        except Exception as e:  # noqa: BLE001  as asyncio: a callback that fails stops no loop
            self._host.call_exception_handler({"message": f"{self._callback}", "exception": e})

    def cancel(self) -> None:
        """Never make it."""
        self.is_cancelled = True

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.is_cancelled

    def when(self) -> float:
        """The moment, by its host's clock."""
        return self._when


class SimTask(asyncio.Task[Any]):
    """A task with a number for its hash: a set of tasks has one order in every run."""

    __slots__ = ("number",)

    def __init__(self, coro: Coroutine[Any, Any, Any], number: int, **rest: Any) -> None:
        self.number = number
        super().__init__(coro, **rest)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimFuture(asyncio.Future[Any]):
    """A future with a number for its hash, for the same reason."""

    __slots__ = ("number",)

    def __init__(self, number: int, **rest: Any) -> None:
        self.number = number
        super().__init__(**rest)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other


class Host:
    """The event loop of one simulated process, on its own clock: what asyncio asks of a loop."""

    def __init__(
        self, kernel: Kernel, name: str, *, rate: float = 1.0, booted: float = 0.0
    ) -> None:
        """`booted` is when its machine was: processes of one machine share its boot clock."""
        self.kernel = kernel
        self.name = name
        self.rate = rate
        self.is_dead = False
        self.is_paused = False
        self.is_waiting = False
        self._booted = booted
        self.queue: deque[Handle] = deque()

    # What the kernel asks

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing to do, or must not."""
        return self.is_paused or self.is_dead or not self.queue

    def enqueue(self, handle: Handle) -> None:
        """Let it run soon."""
        if self.is_dead:
            return
        self.queue.append(handle)
        if not self.is_waiting and not self.is_paused:
            self.is_waiting = True
            self.kernel.wake(self)

    # Faults

    def pause(self) -> None:
        """Stand still, as by SIGSTOP: clocks run on, nothing else does."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on with all that became due meanwhile."""
        self.is_paused = False
        if self.queue and not self.is_waiting and not self.is_dead:
            self.is_waiting = True
            self.kernel.wake(self)

    def kill(self) -> None:
        """End at once, as by SIGKILL: no finally runs, no farewell gets out."""
        self.is_dead = True
        self.queue.clear()
        itself: Any = self
        self.kernel.graveyard.extend(asyncio.all_tasks(itself))

    # What asyncio asks

    def time(self) -> float:
        """Seconds since its machine was booted, by its own clock."""
        return (self.kernel.now - self._booted) * self.rate

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any:
        handle = Handle(callback, args, self, context)
        self.enqueue(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Any:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Any:
        handle = Handle(callback, args, self, context, when)
        if not self.is_dead:
            self.kernel.schedule(self._booted + when / self.rate, self, handle)
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return SimFuture(self.kernel.number(), loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        return SimTask(coro, self.kernel.number(), loop=self, name=name, context=context)

    def run_in_executor(
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as e:  # noqa: BLE001  as a thread would hand it over
            future.set_exception(e)
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """What asyncio finds wrong is a fault of ours, unless the process is dead already."""
        if not self.is_dead:
            error = context.get("exception")
            self.kernel.errors.append(f"{self.name}: {context.get('message')}: {error!r}")
