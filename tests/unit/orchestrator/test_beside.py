"""Parts that run beside the API start again when a bug ends them."""

from __future__ import annotations

import asyncio

from orchestrator.beside import PAUSE, beside
from vmshepherd_kit.testing import FakeClock


async def test_a_part_that_crashes_starts_again_and_the_others_do_not_notice() -> None:
    clock, starts, calm = FakeClock(), list[str](), asyncio.Event()

    async def crashes() -> None:
        starts.append("crashing")
        raise ZeroDivisionError

    async def stays() -> None:
        starts.append("calm")
        await calm.wait()

    async with beside(crashes, stays, clock=clock):
        await clock.advance(PAUSE)
        await clock.advance(PAUSE)
        assert starts == ["crashing", "calm", "crashing", "crashing"]


async def test_parts_end_with_the_block() -> None:
    ended = asyncio.Event()

    async def part() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with beside(part, clock=FakeClock()):
        await asyncio.sleep(0)
    assert ended.is_set()
