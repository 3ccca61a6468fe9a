"""The simulated cloud: time, failures and blindness, all of them chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from iaas_service.domain import CatalogKind, Changed, Order, Spec, VmState
from iaas_service.drivers.simulated import SimulatedCloud, SimulatedOptions
from iaas_service.port import Trait
from iaas_service.testing import an_order, state_of
from vmshepherd_kit import settings
from vmshepherd_kit.clock import SeededChance
from vmshepherd_kit.config_file import Suite
from vmshepherd_kit.errors import (
    NoCapacity,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    ShepherdError,
    Throttled,
    Unavailable,
)
from vmshepherd_kit.testing import FakeClock

Make = Callable[..., SimulatedCloud]
SECOND = timedelta(seconds=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make(clock: FakeClock) -> Make:
    def make(seed: int = 1, **options: Any) -> SimulatedCloud:
        nowhere = Path("/nowhere")
        return SimulatedCloud(
            settings.parse(options, SimulatedOptions),
            provider="sim",
            suite=Suite(suite_id="contract", state_dir=nowhere, base_dir=nowhere, embedded=False),
            clock=clock,
            chance=SeededChance(seed),
        )

    return make


async def test_each_call_takes_its_time(make: Make, clock: FakeClock) -> None:
    cloud = make(latency="100ms")
    asked = asyncio.create_task(cloud.create(an_order()))
    await clock.advance(timedelta(milliseconds=99))
    assert not asked.done()
    await clock.advance(timedelta(milliseconds=1))
    assert (await asked).state is VmState.RUNNING


async def test_a_listing_takes_its_time_once_a_page(make: Make, clock: FakeClock) -> None:
    cloud = make(page_size=10)
    for _ in range(25):
        await cloud.create(an_order())
    await cloud.list()
    assert cloud.calls == {"create": 25, "list": 3}


async def test_a_vm_boots_in_time_and_whoever_watches_hears_of_it(
    make: Make, clock: FakeClock
) -> None:
    cloud = make(boot_time="30s")
    with cloud.watch() as changes:
        vm = await cloud.create(an_order())
        assert vm.state is VmState.PENDING
        await changes.next()
        await clock.advance(29 * SECOND)
        assert await state_of(cloud, vm.vm_id) is VmState.PENDING
        await clock.advance(SECOND)
        assert [change.vm.state for change in await changes.next()] == [VmState.RUNNING]


async def test_a_terminated_vm_goes_in_time(make: Make, clock: FakeClock) -> None:
    cloud = make(terminate_time="10s")
    vm = await cloud.create(an_order())
    await cloud.terminate(vm)
    assert await state_of(cloud, vm.vm_id) is VmState.DELETING
    await clock.advance(10 * SECOND)
    assert await state_of(cloud, vm.vm_id) is None


async def test_a_listing_misses_the_youngest_and_a_reading_by_id_does_not(
    make: Make, clock: FakeClock
) -> None:
    cloud = make(visibility_delay="5s")
    vm = await cloud.create(an_order())
    listing = await cloud.list()
    assert (listing.vms, listing.complete) == ([], True)
    assert await state_of(cloud, vm.vm_id) is VmState.RUNNING
    await clock.advance(5 * SECOND)
    assert len((await cloud.list()).vms) == 1


async def test_the_quota_ends(make: Make) -> None:
    cloud = make(quota=1)
    vm = await cloud.create(an_order())
    with pytest.raises(QuotaExceeded):
        await cloud.create(an_order())
    await cloud.terminate(vm)
    await cloud.create(an_order())


async def test_without_idempotency_a_repeat_makes_another(make: Make) -> None:
    cloud, order = make(idempotent=False, horizon="2m"), an_order()
    first, second = await cloud.create(order), await cloud.create(order)
    assert first.vm_id != second.vm_id
    assert cloud.horizon == timedelta(minutes=2)


async def test_a_cell_that_is_down_is_told_or_silently_missed(make: Make) -> None:
    cloud = make()
    vms = [await cloud.create(an_order()) for _ in range(4)]
    cloud.world.cell_down()
    listing = await cloud.list()
    assert (len(listing.vms), listing.complete) == (2, False)
    cloud.world.cell_down(silently=True)
    listing = await cloud.list()
    assert (len(listing.vms), listing.complete) == (2, True)
    found = await cloud.get([vm.vm_id for vm in vms])
    assert [isinstance(vm, Unavailable) for vm in found] == [False, True, False, True]


@pytest.mark.parametrize(
    ("reason", "error"),
    [
        ("UNAVAILABLE", Unavailable),
        ("OUTCOME_UNKNOWN", OutcomeUnknown),
        ("QUOTA_EXCEEDED", QuotaExceeded),
        ("NO_CAPACITY", NoCapacity),
        ("THROTTLED", Throttled),
    ],
)
async def test_creates_fail_as_chosen(make: Make, reason: str, error: type[ShepherdError]) -> None:
    cloud = make(failures={"create_error": {"probability": 1, "reason": reason}})
    with pytest.raises(error):
        await cloud.create(an_order())
    assert cloud.world.vms == []


async def test_a_create_may_fail_and_make_its_vm_all_the_same(make: Make) -> None:
    failing = {"probability": 1, "reason": "OUTCOME_UNKNOWN", "after_creating": True}
    cloud = make(failures={"create_error": failing})
    with pytest.raises(OutcomeUnknown):
        await cloud.create(an_order())
    assert len(cloud.world.vms) == 1


def of(flavor: str, zone: str = "", image: str = "debian") -> Order:
    return an_order(spec=Spec(flavor=flavor, availability_zone=zone, image=image))


async def test_a_zone_without_room_for_a_flavor_has_room_for_others(make: Make) -> None:
    cloud = make()
    cloud.world.no_capacity("large", "az1")
    with pytest.raises(NoCapacity, match="zone 'az1' has room for flavor 'large'"):
        await cloud.create(of("large", "az1"))
    made = [await cloud.create(of(*where)) for where in (("small", "az1"), ("large", "az2"))]
    assert [(vm.flavor, vm.zone) for vm in made] == [("small", "az1"), ("large", "az2")]
    cloud.world.restock()
    await cloud.create(of("large", "az1"))


async def test_a_quota_of_a_flavor_is_one_for_all_zones(make: Make) -> None:
    cloud = make()
    cloud.world.quota_exceeded("large")
    for zone in ("az1", "az2", ""):
        with pytest.raises(QuotaExceeded, match="'large'"):
            await cloud.create(of("large", zone))
    await cloud.create(of("small", "az1"))


async def test_a_missing_image_makes_and_rebuilds_nothing_and_its_vms_run_on(make: Make) -> None:
    cloud = make()
    vm = await cloud.create(of("small", image="debian"))
    cloud.world.image_missing("debian")
    for call in (cloud.create(of("small")), cloud.rebuild(vm, Spec(), spec_hash="")):
        with pytest.raises(NotFound) as refusal:
            await call
        assert refusal.value.reason == "IMAGE_NOT_FOUND"
        assert [violation.field for violation in refusal.value.violations] == ["spec.image"]
    assert await state_of(cloud, vm.vm_id) is VmState.RUNNING
    rebuilt = await cloud.rebuild(vm, Spec(image="alpine"), spec_hash="")
    assert rebuilt.image == "alpine"


async def test_a_repeated_create_is_answered_although_there_is_a_shortage_now(make: Make) -> None:
    cloud, order = make(), of("large", "az1")
    vm = await cloud.create(order)
    cloud.world.no_capacity("large", "az1")
    assert (await cloud.create(order)).vm_id == vm.vm_id


async def test_a_vm_that_was_told_no_zone_lands_in_the_one_of_the_catalog(make: Make) -> None:
    cloud = make()
    vm = await cloud.create(of("small"))
    zones = [e.name for e in (await cloud.catalog()).entries if e.kind is CatalogKind.ZONE]
    assert [vm.zone] == zones
    cloud.world.no_capacity("small", vm.zone)
    with pytest.raises(NoCapacity):
        await cloud.create(of("small"))


async def test_a_rebuilt_vm_boots_in_time_and_has_no_fault_any_more(
    make: Make, clock: FakeClock
) -> None:
    cloud = make(boot_time="30s")
    vm = await cloud.create(of("small"))
    cloud.world.error(vm.vm_id)
    rebuilt = await cloud.rebuild(vm, Spec(image="alpine"), spec_hash="77aa")
    assert (rebuilt.state, rebuilt.fault) == (VmState.PENDING, "")
    await clock.advance(30 * SECOND)
    assert await state_of(cloud, vm.vm_id) is VmState.RUNNING


@pytest.mark.parametrize(
    ("lack", "trait"),
    [
        ("events", Trait.EVENTS),
        ("reboot", Trait.REBOOT),
        ("rebuild", Trait.REBUILD),
        ("console", Trait.CONSOLE),
    ],
)
async def test_a_cloud_can_do_all_but_what_it_lacks(make: Make, lack: str, trait: Trait) -> None:
    assert make().traits == frozenset(Trait)
    assert make(lacks=[lack]).traits == frozenset(Trait) - {trait}


async def test_listings_may_be_incomplete_or_fail(make: Make) -> None:
    cloud = make(failures={"list_incomplete": 1})
    for _ in range(2):
        await cloud.create(an_order())
    listing = await cloud.list()
    assert (len(listing.vms), listing.complete) == (1, False)
    cloud = make(failures={"list_error": {"probability": 1}})
    with pytest.raises(Unavailable):
        await cloud.list()


async def test_terminations_may_fail(make: Make) -> None:
    cloud = make(failures={"terminate_error": {"probability": 1}})
    vm = await cloud.create(an_order())
    with pytest.raises(Unavailable):
        await cloud.terminate(vm)
    assert len(cloud.world.vms) == 1


async def test_people_and_bad_luck_are_told(make: Make) -> None:
    cloud = make()
    vm = await cloud.create(an_order())
    with cloud.watch() as changes:
        for act, state in (
            (cloud.world.stop, VmState.STOPPED),
            (cloud.world.start, VmState.RUNNING),
            (cloud.world.error, VmState.ERROR),
            (cloud.world.kill, VmState.TERMINATED),
        ):
            act(vm.vm_id)
            [change] = await changes.next()
            assert isinstance(change, Changed)
            assert change.vm.state is state


async def test_the_same_seed_tells_the_same_story(make: Make) -> None:
    async def story(seed: int) -> list[str]:
        cloud = make(seed, failures={"create_error": {"probability": 0.5}})
        told: list[str] = []
        for _ in range(20):
            try:
                told.append((await cloud.create(an_order())).vm_id)
            except Unavailable:
                told.append("failed")
        return [*told, *(vm.addresses[0].ip for vm in cloud.world.vms)]

    assert await story(1) == await story(1)
    assert await story(1) != await story(2)


async def test_closing_leaves_no_task_behind(make: Make, clock: FakeClock) -> None:
    async with make(boot_time="1h") as cloud:
        await cloud.create(an_order())
    await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1
