"""Which preset is looked at when.

Each preset has at most one cycle at a time; presets run side by side. Times fall on a common grid,
so that presets due together share their listing and their probes. A wake-up looks at once, or
right after the cycle that is running.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable
from contextvars import Context
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from vmshepherd_kit.clock import Clock

from .model import PresetName

GRID = timedelta(milliseconds=250)
# Between two cycles of one preset, however often it is woken.
REST = timedelta(milliseconds=100)
# What a running cycle is given to end at a stop, so that no answer of a cloud is lost.
GRACE = timedelta(seconds=5)

Run = Callable[[PresetName], Coroutine[Any, Any, timedelta | None]]


@dataclass(slots=True)
class _Turn:
    due: timedelta
    task: asyncio.Task[timedelta | None] | None = None
    is_woken: bool = False
    waiting: list[asyncio.Future[None]] = field(default_factory=list)


class Schedule:
    """Runs a cycle of every preset when it is due."""

    def __init__(self, run: Run, *, clock: Clock) -> None:
        self._run = run
        self._clock = clock
        self._turns: dict[PresetName, _Turn] = {}
        self._changed = asyncio.Event()
        self._looks, self._late = 0, timedelta(0)

    def wake(self, names: Iterable[PresetName]) -> None:
        """Look at these presets now."""
        now = self._clock.elapsed()
        # In the same order in every run, sets included: simulations must replay.
        for name in sorted(names):
            turn = self._turns.setdefault(name, _Turn(now))
            turn.due = min(turn.due, now)
            turn.is_woken = True
        self._changed.set()

    def include(self, names: Iterable[PresetName]) -> None:
        """Look at these presets too, from now on; no sooner at those that are known."""
        self.wake([name for name in names if name not in self._turns])

    def wake_all(self) -> None:
        """Look at every preset now."""
        self.wake(list(self._turns))

    def names(self) -> list[PresetName]:
        """Every preset that is looked at, in order of names."""
        return sorted(self._turns)

    def lateness(self) -> timedelta:
        """How late looks began on average, since this was asked before."""
        looks, late = self._looks, self._late
        self._looks, self._late = 0, timedelta(0)
        return late / looks if looks else timedelta(0)

    async def next_cycle(self, name: PresetName) -> None:
        """Return after a whole cycle of this preset that began after this call."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.setdefault(name, _Turn(self._clock.elapsed())).waiting.append(future)
        self.wake([name])
        await future

    async def serve(self) -> None:
        """Run cycles for ever; at the end those that are running may end."""
        try:
            while True:
                self._changed.clear()
                self._start_due()
                await self._until_due()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Let running cycles end, for a while; cancel those that do not."""
        tasks = [turn.task for turn in self._turns.values() if turn.task]
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE.total_seconds())
        self.cancel_running()
        await asyncio.gather(*tasks, return_exceptions=True)

    def cancel_running(self) -> None:
        """Cancel the cycles that are running: they have lost their locks."""
        for turn in self._turns.values():
            if turn.task:
                turn.task.cancel()

    def _start_due(self) -> None:
        now = self._clock.elapsed()
        for name, turn in self._turns.items():
            if turn.task is None and turn.due <= now:
                self._looks, self._late = self._looks + 1, self._late + now - turn.due
                turn.is_woken = False
                waiting, turn.waiting = turn.waiting, []
                # A context of its own: whoever woke it has a deadline that is not the cycle's.
                turn.task = asyncio.get_running_loop().create_task(
                    self._run(name), context=Context()
                )
                # Not within the task: one that is cancelled before it begins runs none of its code.
                turn.task.add_done_callback(partial(self._ended, name, turn, waiting))

    def _ended(
        self,
        name: PresetName,
        turn: _Turn,
        waiting: list[asyncio.Future[None]],
        task: asyncio.Task[timedelta | None],
    ) -> None:
        look: timedelta | None = GRID
        try:
            look = task.result()
        except asyncio.CancelledError:
            # Half a cycle answers nobody: they wait for the next one.
            turn.waiting, waiting = [*waiting, *turn.waiting], []
        finally:
            turn.task = None
            now = self._clock.elapsed()
            turn.due = now + REST if turn.is_woken else _on_grid(now + (look or GRID))
            if look is None and not turn.is_woken and not turn.waiting:
                self._turns.pop(name, None)
            for future in waiting:
                if not future.done():
                    future.set_result(None)
            self._changed.set()

    async def _until_due(self) -> None:
        resting = [turn.due for turn in self._turns.values() if turn.task is None]
        if not resting:
            await self._changed.wait()
            return
        wait = min(resting) - self._clock.elapsed()
        if wait <= timedelta(0):
            return
        alarm = asyncio.ensure_future(self._clock.sleep(wait))
        change = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait({alarm, change}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            alarm.cancel()
            change.cancel()
            # Not each by itself: whoever cancels this just then would be taken for the end of one.
            await asyncio.gather(alarm, change, return_exceptions=True)


def _on_grid(moment: timedelta) -> timedelta:
    return math.ceil(moment / GRID) * GRID
