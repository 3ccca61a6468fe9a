"""The clock of tests."""

import asyncio
from datetime import UTC, datetime, timedelta

from vmshepherd_kit.testing import FakeClock

SECOND = timedelta(seconds=1)


async def test_time_stands_still_until_it_is_advanced() -> None:
    clock = FakeClock(datetime(2031, 5, 1, tzinfo=UTC))
    before = clock.elapsed()
    await clock.advance(90 * SECOND)
    assert clock.elapsed() - before == 90 * SECOND
    assert clock.wall() == datetime(2031, 5, 1, 0, 1, 30, tzinfo=UTC)


async def test_sleepers_wake_in_their_order_each_at_its_own_moment() -> None:
    clock = FakeClock()
    woken: list[tuple[str, timedelta]] = []

    async def sleeper(name: str, seconds: int) -> None:
        await clock.sleep(seconds * SECOND)
        woken.append((name, clock.elapsed()))

    async with asyncio.TaskGroup() as group:
        for name, seconds in [("late", 5), ("first", 1), ("also first", 1), ("mid", 3)]:
            group.create_task(sleeper(name, seconds))
        await clock.advance(4 * SECOND)
        names = ["first", "also first", "mid"]
        assert woken == [(n, s * SECOND) for n, s in zip(names, [1, 1, 3], strict=True)]
        assert clock.sleepers == 1
        await clock.advance(SECOND)
    assert woken[-1] == ("late", 5 * SECOND)


async def test_a_loop_that_sleeps_again_runs_as_often_as_time_allows() -> None:
    clock = FakeClock()
    turns: list[timedelta] = []

    async def loop() -> None:
        while True:
            await clock.sleep(SECOND)
            turns.append(clock.elapsed())

    task = asyncio.create_task(loop())
    await clock.advance(10 * SECOND)
    task.cancel()
    assert turns == [n * SECOND for n in range(1, 11)]


async def test_a_cancelled_sleeper_wakes_nobody() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(SECOND))
    await clock.advance(timedelta(0))
    assert clock.sleepers == 1
    task.cancel()
    await clock.advance(5 * SECOND)
    assert task.cancelled()
    assert clock.sleepers == 0


async def test_the_wall_clock_may_jump_and_no_time_passes() -> None:
    clock = FakeClock()
    wall, elapsed = clock.wall(), clock.elapsed()
    clock.jump(-timedelta(hours=1))
    assert clock.wall() == wall - timedelta(hours=1)
    assert clock.elapsed() == elapsed
