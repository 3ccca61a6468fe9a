from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from health_service.pace import Pace
from vmshepherd_kit.testing import FakeClock


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_no_more_run_at_once_than_there_are_places() -> None:
    pace = Pace(FakeClock(), concurrency=2, starts_per_second=1_000_000)
    await pace.begin()
    await pace.begin()
    third = asyncio.create_task(pace.begin())
    await settle()
    assert not third.done()
    pace.end()
    await settle()
    assert third.done()


async def test_starts_are_spread_by_the_rate() -> None:
    clock = FakeClock()
    pace = Pace(clock, concurrency=1000, starts_per_second=100)
    started = 0

    async def start_all() -> None:
        nonlocal started
        for _ in range(500):
            await pace.begin()
            started += 1

    task = asyncio.create_task(start_all())
    await clock.advance(timedelta(seconds=1))
    assert 95 <= started <= 105
    await clock.advance(timedelta(seconds=1))
    assert 195 <= started <= 205
    task.cancel()


async def test_one_who_gives_up_waiting_for_the_rate_gives_back_the_place() -> None:
    clock = FakeClock()
    pace = Pace(clock, concurrency=1, starts_per_second=1)
    await pace.begin()
    pace.end()
    waiting = asyncio.create_task(pace.begin())
    await settle()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    again = asyncio.create_task(pace.begin())
    await clock.advance(timedelta(seconds=3))
    assert again.done()
