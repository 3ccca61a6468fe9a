"""A shelf is read once for many, anew when it is old, and once more when something is missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest

from iaas_service.drivers.openstack.shelf import Shelf
from vmshepherd_kit.errors import NotFound, Unavailable
from vmshepherd_kit.testing import FakeClock


class Source:
    """What is there, and how often it was read."""

    def __init__(self) -> None:
        self.things = ["debian"]
        self.readings = 0
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self) -> Sequence[str]:
        self.readings += 1
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return list(self.things)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def shelf(source: Source, clock: FakeClock) -> AsyncIterator[Shelf[str]]:
    made = Shelf(source.read, clock=clock)
    yield made
    await made.close()


def named(name: str, things: Sequence[str]) -> str:
    if name not in things:
        raise NotFound(name)
    return name


async def test_a_batch_costs_one_reading(shelf: Shelf[str], source: Source) -> None:
    found = await asyncio.gather(
        *(shelf.find(lambda all_: named("debian", all_)) for _ in range(100))
    )
    assert found == ["debian"] * 100
    assert source.readings == 1


async def test_a_reading_is_kept_for_a_minute(
    shelf: Shelf[str], source: Source, clock: FakeClock
) -> None:
    await shelf.things()
    await clock.advance(timedelta(seconds=59))
    await shelf.things()
    assert source.readings == 1
    await clock.advance(timedelta(seconds=1))
    await shelf.things()
    assert source.readings == 2


async def test_what_was_made_a_moment_ago_is_found(
    shelf: Shelf[str], source: Source, clock: FakeClock
) -> None:
    await shelf.things()
    await clock.advance(timedelta(seconds=5))
    source.things.append("golden")
    assert await shelf.find(lambda all_: named("golden", all_)) == "golden"


async def test_a_name_that_nobody_has_costs_a_batch_one_reading_more(
    shelf: Shelf[str], source: Source, clock: FakeClock
) -> None:
    await shelf.things()
    await clock.advance(timedelta(seconds=5))
    answers = await asyncio.gather(
        *(shelf.find(lambda all_: named("x", all_)) for _ in range(100)), return_exceptions=True
    )
    assert all(isinstance(each, NotFound) for each in answers)
    assert source.readings == 2


async def test_who_asks_again_at_once_for_what_nobody_has_costs_no_reading(
    shelf: Shelf[str], source: Source, clock: FakeClock
) -> None:
    await shelf.things()
    await clock.advance(timedelta(seconds=5))
    for _ in range(10):
        with pytest.raises(NotFound):
            await shelf.find(lambda all_: named("x", all_))
    assert source.readings == 2


async def test_a_failed_reading_is_told_to_all_and_tried_again(
    shelf: Shelf[str], source: Source
) -> None:
    source.failure = Unavailable("away")
    answers = await asyncio.gather(*(shelf.things() for _ in range(3)), return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in answers)
    assert source.readings == 1
    source.failure = None
    assert await shelf.things() == ["debian"]


async def test_who_goes_away_does_not_take_the_reading_along(
    shelf: Shelf[str], source: Source
) -> None:
    source.gate.clear()
    first, second = (asyncio.create_task(shelf.things()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    source.gate.set()
    assert await second == ["debian"]
    assert source.readings == 1
