"""A shelf is read once for many, anew when it is old, and once more when something is missed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta

import pytest

from iaas_service.drivers.openstack.shelf import Shelf
from vmshepherd_kit.errors import NotFound, Unavailable
from vmshepherd_kit.testing import FakeClock


class Source:
    """What is there, and how often it was read."""

    def __init__(self) -> None:
        self.things = ["debian"]
        # Of certain readings, by their number.
        self.answer_of: dict[int, list[str]] = {}
        self.readings = 0
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self) -> Sequence[str]:
        self.readings += 1
        number = self.readings
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return self.answer_of.get(number, list(self.things))


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


async def until(is_so: Callable[[], bool]) -> None:
    """What is read in the background takes a few turns of the loop, and no time."""
    for _ in range(100):
        if is_so():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never became so")


async def test_what_is_asked_for_all_the_time_is_never_waited_for_again(
    shelf: Shelf[str], source: Source, clock: FakeClock
) -> None:
    await shelf.things()
    source.gate.clear()
    source.things = ["debian-13"]
    await clock.advance(timedelta(seconds=40))
    answers = await asyncio.gather(*(shelf.things() for _ in range(10)))
    assert answers == [["debian"]] * 10, "the old reading is given at once"
    await until(lambda: source.readings == 2)
    source.gate.set()
    await until(lambda: shelf.read_at == clock.elapsed())
    assert await shelf.things() == ["debian-13"]
    assert source.readings == 2


async def test_a_reading_in_the_background_that_fails_keeps_the_old_one_until_its_age_ends(
    shelf: Shelf[str], source: Source, clock: FakeClock
) -> None:
    await shelf.things()
    source.failure = Unavailable("away")
    for seconds in (40, 1, 5):
        await clock.advance(timedelta(seconds=seconds))
        assert await shelf.things() == ["debian"]
        await settle()
    assert source.readings == 3, "tried again after five seconds, not sooner"
    await clock.advance(timedelta(seconds=14))
    with pytest.raises(Unavailable):
        await shelf.things()


async def test_a_reading_in_the_background_that_fails_is_no_fault_that_nobody_heard_of(
    shelf: Shelf[str], source: Source, clock: FakeClock
) -> None:
    unheard: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, fault: unheard.append(fault))
    await shelf.things()
    source.failure = Unavailable("away")
    await clock.advance(timedelta(seconds=40))
    await shelf.things()
    await settle()
    assert source.readings == 2
    gc.collect()
    assert unheard == []


async def test_what_was_looked_up_once_is_kept_ready_for_a_create_after_a_quiet_hour(
    shelf: Shelf[str], source: Source, clock: FakeClock
) -> None:
    await shelf.find(lambda all_: named("debian", all_))
    for _ in range(360):
        await clock.advance(timedelta(seconds=10))
        shelf.freshen()
        await settle()
    assert source.readings == 1 + 3600 // 40
    source.gate.clear()
    assert await shelf.find(lambda all_: named("debian", all_)) == "debian"


async def test_what_was_never_looked_up_is_not_kept_ready(
    shelf: Shelf[str], source: Source, clock: FakeClock
) -> None:
    shelf.freshen()
    await shelf.things()
    await clock.advance(timedelta(minutes=10))
    shelf.freshen()
    await settle()
    assert source.readings == 1


async def test_an_hour_without_the_cloud_is_harmless_to_what_is_kept_ready(
    shelf: Shelf[str], source: Source, clock: FakeClock
) -> None:
    await shelf.find(lambda all_: named("debian", all_))
    source.failure = Unavailable("away")
    for _ in range(600):
        await clock.advance(timedelta(seconds=6))
        shelf.freshen()
        await settle()
    source.failure = None
    await clock.advance(timedelta(seconds=6))
    shelf.freshen()
    await settle()
    readings = source.readings
    assert await shelf.things() == ["debian"]
    assert source.readings == readings


async def test_a_reading_that_began_before_the_question_does_not_prove_that_there_is_nothing(
    shelf: Shelf[str], source: Source, clock: FakeClock
) -> None:
    await shelf.find(lambda all_: named("debian", all_))
    await clock.advance(timedelta(seconds=45))
    source.gate.clear()
    shelf.freshen()
    await until(lambda: source.readings == 2)
    await clock.advance(timedelta(seconds=5))
    asked = asyncio.create_task(shelf.find(lambda all_: named("golden", all_)))
    await settle()
    source.answer_of = {2: ["debian"], 3: ["debian", "golden"]}
    source.gate.set()
    assert await asked == "golden"


async def test_what_is_to_be_forgotten_does_not_come_back_by_a_reading_from_before(
    shelf: Shelf[str], source: Source, clock: FakeClock
) -> None:
    await shelf.things()
    await clock.advance(timedelta(seconds=45))
    source.gate.clear()
    await shelf.things()
    await until(lambda: source.readings == 2)
    await clock.advance(timedelta(seconds=1))
    shelf.forget()
    source.answer_of = {2: ["debian"], 3: ["debian-13"]}
    source.gate.set()
    assert await shelf.things() == ["debian-13"]


async def test_what_must_be_of_now_is_read_once_for_all_who_ask_side_by_side(
    shelf: Shelf[str], source: Source, clock: FakeClock
) -> None:
    await shelf.things()
    await clock.advance(timedelta(seconds=1))
    await asyncio.gather(*(shelf.things(kept=timedelta(0)) for _ in range(100)))
    assert source.readings == 2


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)
