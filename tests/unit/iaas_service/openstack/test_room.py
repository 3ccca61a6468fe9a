"""Room is taken before a VM is ordered; orders count each other, and a fresh reading refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from iaas_service.domain import Quota
from iaas_service.drivers.openstack.choose import Thing
from iaas_service.drivers.openstack.quotas import shortage
from iaas_service.drivers.openstack.room import Room
from iaas_service.drivers.openstack.shelf import Shelf
from vmshepherd_kit.errors import NoCapacity, OutcomeUnknown, QuotaExceeded
from vmshepherd_kit.testing import FakeClock

SMALL = Thing(id="1", name="small", facts={"vcpus": 2, "ram_mib": 2048})


class Hasty(FakeClock):
    """Whoever sleeps on it lets the time pass."""

    async def sleep(self, duration: timedelta) -> None:
        self._move_to(self._elapsed + duration)
        await asyncio.sleep(0)


class Limits:
    """A project's, as a service would tell them."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.quotas = [Quota(resource="vms", limit=3, used=0)]
        self.readings = 0
        # What Nova has not counted yet, and in which reading it will have.
        self.late: tuple[int, int] = (0, 0)
        self.answer_time = timedelta(0)

    def use(self, vms: int, of: int = 3) -> None:
        self.quotas = [Quota(resource="vms", limit=of, used=vms)]

    async def read(self) -> Sequence[Quota]:
        self.readings += 1
        vms, reading = self.late
        if self.readings >= reading and vms:
            self.use(vms)
        told = list(self.quotas)
        if self.answer_time:
            await self._clock.sleep(self.answer_time)
        return told


@pytest.fixture
def clock() -> FakeClock:
    return Hasty()


@pytest.fixture
def limits(clock: FakeClock) -> Limits:
    return Limits(clock)


@pytest.fixture
async def room(limits: Limits, clock: FakeClock) -> AsyncIterator[Room]:
    shelf = Shelf(limits.read, clock=clock)
    yield Room(cast("Any", SimpleNamespace(limits=shelf, where="osk")), clock)
    await shelf.close()


async def order(room: Room, fault: Exception | None = None) -> None:
    async with room.taken(SMALL):
        await asyncio.sleep(0)
        if fault is not None:
            raise fault


async def ordered(room: Room, number: int) -> int:
    """How many of them found room."""
    ends = await asyncio.gather(*(order(room) for _ in range(number)), return_exceptions=True)
    assert all(each is None or isinstance(each, QuotaExceeded) for each in ends)
    return ends.count(None)


async def test_orders_side_by_side_count_each_other(room: Room, limits: Limits) -> None:
    limits.late = (3, 2)
    assert await ordered(room, 5) == 3
    assert limits.readings == 2, "the batch shares the reading that refuses"


async def test_what_nova_has_not_counted_yet_is_waited_for(room: Room, limits: Limits) -> None:
    limits.late = (3, 4)
    assert await ordered(room, 5) == 3
    assert limits.readings == 4


async def test_what_nova_counted_already_is_not_held_against_others_for_long(
    room: Room, limits: Limits, clock: FakeClock
) -> None:
    assert await ordered(room, 3) == 3
    await clock.advance(timedelta(seconds=1))
    # One of them went already.
    limits.use(2)
    begun = clock.elapsed()
    assert await ordered(room, 1) == 1
    assert clock.elapsed() - begun <= timedelta(seconds=10)


async def test_who_waits_in_vain_for_novas_count_has_sent_nothing_and_is_refused(
    room: Room, limits: Limits, clock: FakeClock
) -> None:
    limits.use(2)
    async with room.taken(SMALL):
        begun = clock.elapsed()
        assert await ordered(room, 1) == 0
        assert clock.elapsed() - begun <= timedelta(seconds=11)


async def test_only_a_reading_that_tells_of_all_before_it_refuses(
    room: Room, limits: Limits, clock: FakeClock
) -> None:
    assert await ordered(room, 3) == 3
    limits.use(2)
    # The last one within the ten seconds ends after them.
    limits.answer_time = timedelta(milliseconds=900)
    await clock.advance(timedelta(milliseconds=1))
    assert await ordered(room, 1) == 1


async def test_who_waits_in_vain_is_not_told_of_more_than_there_can_be(
    room: Room, limits: Limits
) -> None:
    async with room.taken(SMALL), room.taken(SMALL), room.taken(SMALL):
        limits.use(2)
        with pytest.raises(QuotaExceeded, match="3 of 3 are used, and this VM needs 1"):
            await order(room)


async def test_a_reading_that_shows_room_is_enough(
    room: Room, limits: Limits, clock: FakeClock
) -> None:
    for _ in range(3):
        await order(room)
        await clock.advance(timedelta(seconds=1))
    assert limits.readings == 1


async def test_room_that_came_back_is_seen_at_the_next_order(
    room: Room, limits: Limits, clock: FakeClock
) -> None:
    limits.use(3)
    assert await ordered(room, 1) == 0
    limits.use(2)
    await clock.advance(timedelta(milliseconds=1))
    assert await ordered(room, 1) == 1


async def test_what_surely_was_not_made_gives_its_room_back_at_once(
    room: Room, limits: Limits, clock: FakeClock
) -> None:
    limits.use(2)
    with pytest.raises(NoCapacity):
        await order(room, NoCapacity("no host"))
    assert await ordered(room, 1) == 1
    assert clock.elapsed() == timedelta(0), "nothing is waited for"


async def test_what_may_have_been_made_keeps_its_room_until_a_reading_tells(
    room: Room, limits: Limits, clock: FakeClock
) -> None:
    limits.use(2)
    with pytest.raises(OutcomeUnknown):
        await order(room, OutcomeUnknown("no answer"))
    begun = clock.elapsed()
    assert await ordered(room, 1) == 1
    assert clock.elapsed() - begun == timedelta(seconds=10), "it was not made, as it turns out"


async def test_the_refusal_says_which_quota_and_how_much_is_used(
    room: Room, limits: Limits
) -> None:
    limits.quotas = [
        Quota(resource="vms", limit=None, used=7),
        Quota(resource="cores", limit=20, used=19),
    ]
    with pytest.raises(QuotaExceeded) as refusal:
        await order(room)
    assert refusal.value.message == (
        "osk: the quota of cores is used up: 19 of 20 are used, and this VM needs 2"
    )
    assert refusal.value.facts == {"resource": "cores", "limit": "20", "used": "19", "wanted": "2"}


async def test_limits_that_cannot_be_read_refuse_nobody(room: Room, limits: Limits) -> None:
    limits.quotas = []
    assert await ordered(room, 5) == 5


@pytest.mark.parametrize(
    ("quotas", "short"),
    [
        ([Quota(resource="vms", limit=1, used=0)], None),
        ([Quota(resource="vms", limit=1, used=1)], "vms"),
        ([Quota(resource="ram_mib", limit=4096, used=2049)], "ram_mib"),
        ([Quota(resource="server_groups", limit=0, used=0)], None),
        ([Quota(resource="vms", limit=None, used=10**6)], None),
    ],
)
def test_a_quota_is_short_only_of_what_a_vm_needs(quotas: list[Quota], short: str | None) -> None:
    found = shortage(quotas, [], {"vms": 1, "cores": 2, "ram_mib": 2048})
    assert (found and found.resource) == short
