"""Who watches is woken by what changes, and costs a cloud in trouble less and less."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from iaas_service.domain import Changed, Gone, VmId
from iaas_service.feed import Subscription
from iaas_service.testing import a_running_vm, an_order, eventually
from tests.openstack.clocks import HastyClock, WrongClock
from tests.openstack.driver import driver
from tests.openstack.faults import Answer, Fault, Refusal
from tests.openstack.ground import PATIENCE_SECONDS, OpenStack, Project
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import NotFound

OFTEN: dict[str, Any] = {"watch_interval": "200ms"}
DETAIL = "compute GET /servers/detail"


async def told_of(changes: Subscription, vm_id: VmId) -> Changed | Gone:
    """What is told next of a VM."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            for change in await changes.next():
                if change.vm.vm_id == vm_id:
                    assert isinstance(change, Changed | Gone)
                    return change


async def gone(changes: Subscription, vm_id: VmId) -> Gone:
    """The word that it is gone, whatever is told before."""
    while not isinstance(change := await told_of(changes, vm_id), Gone):
        pass
    return change


async def test_one_who_stays_is_told_when_another_has_left_and_so_is_who_comes_later(
    project: Project,
) -> None:
    async with driver(project, **OFTEN) as cloud, driver(project) as other:
        with cloud.watch() as staying:
            tasks = len(asyncio.all_tasks())
            with cloud.watch():
                assert len(asyncio.all_tasks()) == tasks, "many watchers ask no more than one"
            vm = await other.create(an_order())
            await told_of(staying, vm.vm_id)
        with cloud.watch() as later:
            vm = await other.create(an_order())
            await told_of(later, vm.vm_id)


async def test_a_cloud_in_trouble_is_asked_less_and_less_and_as_before_when_it_is_well(
    project: Project, proxy: Proxy
) -> None:
    clock = HastyClock()
    async with driver(project, auth_url=proxy.auth_url, clock=clock, **OFTEN) as cloud:
        await cloud.list()
        away = proxy.on("compute", "GET", "/servers/detail", Refusal(status=500), times=9)
        with cloud.watch():

            async def is_well_again() -> bool:
                return len(away.met) == 9 and clock.naps[-2:] == [timedelta(seconds=0.2)] * 2

            await eventually(is_well_again)
    seconds = [nap.total_seconds() for nap in clock.naps]
    first = seconds.index(0.4)
    assert seconds[first : first + 10] == [0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15, 15, 15, 0.2]


@pytest.mark.parametrize("hours", [-1, 1])
async def test_changes_are_told_though_the_own_clock_is_wrong(
    project: Project, proxy: Proxy, hours: int
) -> None:
    clock = WrongClock(timedelta(hours=hours))
    async with driver(project) as other:
        old = await other.create(an_order())
        async with driver(project, auth_url=proxy.auth_url, clock=clock, **OFTEN) as cloud:
            with cloud.watch() as changes:
                vm = await cloud.create(an_order())
                assert (await told_of(changes, vm.vm_id)).vm.vm_id == vm.vm_id
                second = await other.create(an_order())
                await told_of(changes, second.vm_id)
    assert abs(vm.create_time - old.create_time) < timedelta(minutes=30)


class Dated(Fault):
    """As Apache and nginx answer, who stand before most clouds: with the date."""

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        date = format_datetime(datetime.now(UTC), usegmt=True)
        return replace(answer, headers=[*answer.headers, ("Date", date)])


async def test_the_first_question_reaches_back_a_little_in_the_time_of_the_cloud(
    project: Project, proxy: Proxy
) -> None:
    proxy.on("compute", "GET", "/", Dated())
    asked = proxy.on("compute", "GET", "/servers/detail", Dated())
    clock = WrongClock(timedelta(hours=1))
    async with driver(project, auth_url=proxy.auth_url, clock=clock, **OFTEN) as cloud:

        async def is_asked() -> bool:
            return bool(asked.met)

        begun = datetime.now(UTC)
        with cloud.watch():
            await eventually(is_asked)
    [moment] = parse_qs(urlsplit(asked.met[0]).query)["changes-since"]
    back = begun - datetime.fromisoformat(moment)
    assert timedelta(seconds=4) < back < timedelta(seconds=10)


async def test_a_vm_that_is_found_gone_when_asked_for_is_told_at_once(project: Project) -> None:
    async with driver(project, watch_interval="1h") as cloud:
        vm = await a_running_vm(cloud)
        with cloud.watch() as changes:
            await asyncio.to_thread(project.delete, vm.vm_id)

            async def is_gone() -> bool:
                [found] = await cloud.get([vm.vm_id])
                return isinstance(found, NotFound)

            await eventually(is_gone)
            await gone(changes, vm.vm_id)


async def test_a_vm_that_can_be_had_back_for_a_while_is_gone(
    openstack: OpenStack, project: Project
) -> None:
    async with driver(project, **OFTEN) as cloud:
        vm = await a_running_vm(cloud)
        with cloud.watch() as changes:
            await asyncio.to_thread(openstack.keep_for_a_while, vm.vm_id)
            await gone(changes, vm.vm_id)
        assert project.server(vm.vm_id)["status"] == "SOFT_DELETED"
    async with driver(project) as other:
        [found] = await other.get([vm.vm_id])
        assert isinstance(found, NotFound)
        listing = await other.list()
    assert (listing.complete, listing.vms) == (True, [])
