"""Readings: shared by those who came before they began, and never older than a request."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from typing import Any

import pytest

from iaas_service import marker
from iaas_service.domain import Listing, Marker, Vm, VmId, VmState
from iaas_service.providers import Listings, Provider, Reading, Snapshots
from vmshepherd_kit.clock import SeededChance
from vmshepherd_kit.errors import ResumeTokenTooOld, Unavailable
from vmshepherd_kit.testing import FakeClock


class Slow:
    """A cloud of which each listing waits until it is answered."""

    def __init__(self) -> None:
        self.begun: list[asyncio.Future[Listing]] = []

    async def list(self) -> Listing:
        answer: asyncio.Future[Listing] = asyncio.get_running_loop().create_future()
        self.begun.append(answer)
        return await answer


def named(name: str) -> Listing:
    return Listing(vms=[], complete=False, incomplete_reason=name)


async def ask(listings: Listings) -> asyncio.Task[Reading]:
    task = asyncio.create_task(listings.read())
    await turns()
    return task


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
def cloud() -> Slow:
    return Slow()


@pytest.fixture
def listings(cloud: Slow) -> Listings:
    return Provider.of("p", "slow", cloud, suite_id="s").listings  # type: ignore[arg-type]


async def test_those_who_ask_together_share_one_reading(cloud: Slow, listings: Listings) -> None:
    asked = [asyncio.create_task(listings.read()) for _ in range(5)]
    await turns()
    [only] = cloud.begun
    only.set_result(named("only"))
    assert {(await task).incomplete_reason for task in asked} == {"only"}


async def test_whoever_asks_during_a_reading_gets_the_next_one(
    cloud: Slow, listings: Listings
) -> None:
    first = await ask(listings)
    later = [await ask(listings) for _ in range(3)]
    assert len(cloud.begun) == 1, "one reading at a time"
    cloud.begun[0].set_result(named("first"))
    await turns()
    assert (await first).incomplete_reason == "first"
    assert not any(task.done() for task in later), "it began before they asked"
    assert len(cloud.begun) == 2
    cloud.begun[1].set_result(named("second"))
    assert {(await task).incomplete_reason for task in later} == {"second"}


async def test_a_failed_reading_fails_those_who_shared_it_and_no_other(
    cloud: Slow, listings: Listings
) -> None:
    first, second = await ask(listings), await ask(listings)
    cloud.begun[0].set_exception(Unavailable("the cloud is away"))
    with pytest.raises(Unavailable):
        await first
    await turns()
    cloud.begun[1].set_result(named("second"))
    assert (await second).incomplete_reason == "second"


async def test_whoever_goes_away_takes_nobodys_reading_along(
    cloud: Slow, listings: Listings
) -> None:
    first, second = (asyncio.create_task(listings.read()) for _ in range(2))
    await turns()
    first.cancel()
    await turns()
    cloud.begun[0].set_result(named("shared"))
    assert (await second).incomplete_reason == "shared"


async def test_a_failure_that_nobody_waits_for_any_more_is_no_alarm(
    cloud: Slow, listings: Listings
) -> None:
    alarms: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: alarms.append(told))
    waiting = await ask(listings)
    waiting.cancel()
    await turns()
    cloud.begun[0].set_exception(Unavailable("away"))
    await turns()
    gc.collect()
    assert not alarms


@pytest.mark.parametrize("states", [("RUNNING", "UNKNOWN"), ("UNKNOWN", "RUNNING")])
def test_a_vm_that_two_places_list_is_one_vm_as_it_is_told_best(states: tuple[str, str]) -> None:
    mark = Marker(
        suite_id="s",
        preset="web",
        request_id="00000000-0000-4000-8000-000000000001",
        fencing_token=1,
        spec_hash="h",
    )
    twice = [
        Vm(
            vm_id=VmId("a"),
            name="web-a",
            state=VmState[state],
            create_time=FakeClock().wall(),
            metadata=marker.write(mark),
        )
        for state in states
    ]
    reading = Reading.of(Listing(vms=twice, complete=True), "s")
    assert [vm.state for vm, _ in reading.vms] == [VmState.RUNNING]


async def test_closing_leaves_nothing_behind(cloud: Slow, listings: Listings) -> None:
    first, second = await ask(listings), await ask(listings)
    await listings.close()
    assert cloud.begun[0].cancelled()
    for task in (first, second):
        with pytest.raises(asyncio.CancelledError):
            await task


def a_reading(name: str = "") -> Reading:
    return Reading(vms=[], complete=True, incomplete_reason=name, token_floors={})


async def test_a_kept_reading_is_found_until_its_time_is_over() -> None:
    clock = FakeClock()
    snapshots = Snapshots(clock, SeededChance(1))
    kept = snapshots.keep(a_reading("kept"))
    await clock.advance(timedelta(seconds=59))
    assert snapshots.find(kept).incomplete_reason == "kept"
    await clock.advance(timedelta(seconds=1))
    with pytest.raises(ResumeTokenTooOld):
        snapshots.find(kept)


async def test_so_many_readings_are_kept_and_no_more() -> None:
    snapshots = Snapshots(FakeClock(), SeededChance(1))
    ids = [snapshots.keep(a_reading()) for _ in range(65)]
    with pytest.raises(ResumeTokenTooOld):
        snapshots.find(ids[0])
    assert snapshots.find(ids[1]) == snapshots.find(ids[64])


async def test_a_reading_that_never_existed_is_too_old() -> None:
    with pytest.raises(ResumeTokenTooOld):
        Snapshots(FakeClock(), SeededChance(1)).find("no-such-snapshot")
