from __future__ import annotations

import asyncio
from datetime import timedelta

from health_service.lag import Lag
from vmshepherd_kit.testing import FakeClock


async def test_a_stall_is_known_before_the_ticker_runs_again() -> None:
    clock = FakeClock()
    lag = Lag(clock)
    with lag.watched():
        began = clock.elapsed()
        assert not lag.stalled_since(began)
        await clock.advance(timedelta(seconds=1))
        assert lag.stalled_since(began)


async def test_a_stall_is_remembered_and_forgotten_by_what_began_later() -> None:
    clock = FakeClock()
    lag = Lag(clock)
    with lag.watched():
        began = clock.elapsed()
        await clock.advance(timedelta(seconds=1))
        lag._tick()
        assert lag.stalled_since(began)
        await clock.advance(timedelta(milliseconds=1))
        assert not lag.stalled_since(clock.elapsed())


async def test_small_delays_are_no_stall() -> None:
    clock = FakeClock()
    lag = Lag(clock)
    with lag.watched():
        began = clock.elapsed()
        await clock.advance(timedelta(milliseconds=200))
        assert not lag.stalled_since(began)


async def test_the_ticker_runs_by_itself_while_somebody_watches() -> None:
    clock = FakeClock()
    lag = Lag(clock)
    with lag.watched(), lag.watched():
        began = clock.elapsed()
        await clock.advance(timedelta(seconds=1))
        ticked = asyncio.Event()
        asyncio.get_running_loop().call_later(0.2, ticked.set)
        await ticked.wait()
        assert lag._stalled_until is not None
        assert lag.stalled_since(began)
    assert lag._timer is None


async def test_time_in_which_nobody_watched_is_no_stall() -> None:
    clock = FakeClock()
    lag = Lag(clock)
    await clock.advance(timedelta(hours=1))
    with lag.watched():
        assert not lag.stalled_since(clock.elapsed())
