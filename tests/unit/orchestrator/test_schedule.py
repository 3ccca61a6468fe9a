from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import timedelta

import pytest

from orchestrator.model import PresetName
from orchestrator.schedule import Schedule
from vmshepherd_kit.testing import FakeClock

A, B = PresetName("a"), PresetName("b")
MOMENT = timedelta(milliseconds=300)
SECOND = timedelta(seconds=1)


class Cycles:
    """Cycles that last as long as a test wants."""

    def __init__(self) -> None:
        self.begun: list[PresetName] = []
        self.ended: list[PresetName] = []
        self.running: set[PresetName] = set()
        self.held: dict[PresetName, asyncio.Event] = {}
        self.look: timedelta | None = timedelta(minutes=1)

    async def run(self, name: PresetName) -> timedelta | None:
        assert name not in self.running
        self.begun.append(name)
        self.running.add(name)
        try:
            if name in self.held:
                await self.held[name].wait()
        finally:
            self.running.discard(name)
        self.ended.append(name)
        return self.look

    def hold(self, name: PresetName) -> asyncio.Event:
        self.held[name] = asyncio.Event()
        return self.held[name]


@asynccontextmanager
async def running(clock: FakeClock, cycles: Cycles) -> AsyncIterator[Schedule]:
    schedule = Schedule(cycles.run, clock=clock)
    task = asyncio.create_task(schedule.serve())
    try:
        yield schedule
    finally:
        for event in cycles.held.values():
            event.set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_preset_has_one_cycle_at_a_time_and_another_when_it_was_woken_meanwhile() -> None:
    clock, cycles = FakeClock(), Cycles()
    async with running(clock, cycles) as schedule:
        ended = cycles.hold(A)
        schedule.wake([A])
        await clock.advance(MOMENT)
        for _ in range(5):
            schedule.wake([A])
            await clock.advance(MOMENT)
        assert cycles.begun == [A]
        ended.set()
        await clock.advance(MOMENT)
        assert cycles.begun == [A, A]
        await clock.advance(SECOND)
        assert cycles.begun == [A, A]


async def test_presets_run_side_by_side_and_one_that_hangs_stops_nobody() -> None:
    clock, cycles = FakeClock(), Cycles()
    cycles.look = SECOND
    async with running(clock, cycles) as schedule:
        cycles.hold(A)
        schedule.wake([A, B])
        await clock.advance(5 * SECOND)
        assert cycles.begun.count(A) == 1
        assert cycles.ended.count(B) >= 4


async def test_whoever_waits_is_told_after_a_cycle_that_began_later() -> None:
    clock, cycles = FakeClock(), Cycles()
    async with running(clock, cycles) as schedule:
        ended = cycles.hold(A)
        schedule.wake([A])
        await clock.advance(MOMENT)
        waiting = asyncio.create_task(schedule.next_cycle(A))
        await clock.advance(MOMENT)
        second = cycles.hold(A)
        ended.set()
        await clock.advance(MOMENT)
        assert cycles.ended == [A]
        assert not waiting.done()
        second.set()
        await clock.advance(MOMENT)
        assert waiting.done()
        assert cycles.ended == [A, A]


async def test_a_cycle_that_is_cancelled_before_it_has_begun_is_run_later() -> None:
    clock, cycles = FakeClock(), Cycles()
    async with running(clock, cycles) as schedule:
        waiting = asyncio.create_task(schedule.next_cycle(A))
        while not any(turn.task for turn in schedule._turns.values()):  # noqa: ASYNC110  the very moment
            await asyncio.sleep(0)
        assert not cycles.begun
        schedule.cancel_running()
        await clock.advance(MOMENT)
        assert waiting.done()
        assert cycles.ended == [A]


async def test_half_a_cycle_answers_nobody() -> None:
    clock, cycles = FakeClock(), Cycles()
    async with running(clock, cycles) as schedule:
        ended = cycles.hold(A)
        waiting = asyncio.create_task(schedule.next_cycle(A))
        await clock.advance(MOMENT)
        assert cycles.running == {A}
        schedule.cancel_running()
        await clock.advance(MOMENT)
        assert not waiting.done()
        ended.set()
        await clock.advance(MOMENT)
        assert waiting.done()
        assert cycles.ended == [A]


async def test_a_preset_that_is_gone_leaves_nothing_behind() -> None:
    clock, cycles = FakeClock(), Cycles()
    cycles.look = None
    async with running(clock, cycles) as schedule:
        await clock.advance(MOMENT)
        waiting = asyncio.create_task(schedule.next_cycle(A))
        await clock.advance(MOMENT)
        assert waiting.done()
        assert not schedule._turns


async def test_presets_that_look_again_do_so_together() -> None:
    clock, cycles = FakeClock(), Cycles()
    cycles.look = SECOND
    async with running(clock, cycles) as schedule:
        await clock.advance(timedelta(milliseconds=10))
        schedule.wake([A])
        await clock.advance(timedelta(milliseconds=80))
        schedule.wake([B])
        await clock.advance(timedelta(milliseconds=10))
        cycles.begun.clear()
        await clock.advance(timedelta(milliseconds=1100))
        assert cycles.begun == []
        await clock.advance(timedelta(milliseconds=100))
        assert sorted(cycles.begun) == [A, B]


async def test_a_cycle_runs_in_a_context_of_its_own() -> None:
    secret = ContextVar("secret", default="nobody's")
    seen = list[str]()

    async def run(_: PresetName) -> timedelta:
        seen.append(secret.get())
        return SECOND

    clock = FakeClock()
    schedule = Schedule(run, clock=clock)

    async def serve_for_a_caller() -> None:
        secret.set("the caller's")
        await schedule.serve()

    task = asyncio.create_task(serve_for_a_caller())
    schedule.wake([A])
    await clock.advance(MOMENT)
    assert seen == ["nobody's"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_stop_lets_the_running_cycle_end() -> None:
    clock, cycles = FakeClock(), Cycles()
    schedule = Schedule(cycles.run, clock=clock)
    task = asyncio.create_task(schedule.serve())
    ended = cycles.hold(A)
    schedule.wake([A])
    await clock.advance(MOMENT)
    task.cancel()
    await clock.advance(MOMENT)
    assert not task.done()
    ended.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cycles.ended == [A]


async def test_what_is_found_again_and_again_is_looked_at_at_its_time() -> None:
    clock, cycles = FakeClock(), Cycles()
    cycles.look = SECOND
    async with running(clock, cycles) as schedule:
        schedule.include([A])
        await clock.advance(MOMENT)
        for _ in range(2):
            schedule.include([A])
            await clock.advance(MOMENT)
        assert cycles.begun == [A]


async def steps_of_the_loop(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("steps", range(12))
async def test_it_ends_when_it_is_told_to_whatever_it_is_doing(steps: int) -> None:
    clock, cycles = FakeClock(), Cycles()
    schedule = Schedule(cycles.run, clock=clock)
    task = asyncio.create_task(schedule.serve())
    schedule.wake([A])
    await steps_of_the_loop(50)
    assert cycles.ended == [A], "it rests"
    schedule.wake([A])
    await steps_of_the_loop(steps)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    task.cancel()
    assert done, f"told {steps} steps after a change, it went on"
