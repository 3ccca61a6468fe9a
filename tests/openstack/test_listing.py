"""Listings of a real Nova: whole, or said not to be; and changes as they are told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from iaas_service.domain import Changed, Gone, Vm, VmId, VmState
from iaas_service.drivers.openstack import OpenstackCloud
from iaas_service.drivers.openstack import cloud as cloud_module
from iaas_service.testing import a_running_vm, an_order, eventually, eventually_runs
from tests.openstack.clocks import LeapingClock
from tests.openstack.driver import driver
from tests.openstack.faults import Forgetful, Refusal
from tests.openstack.ground import PATIENCE_SECONDS, OpenStack, Project
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import NotFound, Unavailable

DETAIL = "compute GET /servers/detail"


async def a_few(cloud: OpenstackCloud, number: int) -> set[VmId]:
    made = await asyncio.gather(*(cloud.create(an_order()) for _ in range(number)))
    return {vm.vm_id for vm in made}


async def listed(cloud: OpenstackCloud) -> set[VmId]:
    listing = await cloud.list()
    assert listing.complete, listing.incomplete_reason
    return {vm.vm_id for vm in listing.vms}


async def test_all_pages_are_read_and_strangers_are_left_out(project: Project) -> None:
    async with driver(project, page_size=2) as cloud:
        ours = await a_few(cloud, 5)
        # Of a name that the predecessor would have taken for its own, and of a copied marker.
        await asyncio.to_thread(project.order, "web-1")
        await asyncio.to_thread(
            project.order, "web-1", metadata={"vmshepherd_suite": "contract", "team": "x"}
        )
        assert await listed(cloud) == ours


async def test_one_listing_of_one_page_is_one_call(project: Project, proxy: Proxy) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        await listed(cloud)
        with proxy.counting() as calls:
            await listed(cloud)
        assert calls == Counter({DETAIL: 1})


async def test_servers_that_go_while_pages_are_read_do_not_make_it_wrong(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with driver(project, page_size=1) as cloud:
        ours = await a_few(cloud, 3)
        for vm_id in ours:
            await eventually_runs(cloud, vm_id)
        api = cloud.sites[0].api
        pages, lost = api.pages, list[str]()

        async def interrupted(*args: Any, **more: Any) -> AsyncIterator[list[dict[str, Any]]]:
            async for page in pages(*args, **more):
                if not lost:
                    lost.append(page[-1]["id"])
                    await asyncio.to_thread(project.delete, lost[0])
                    await eventually(lambda: is_gone(cloud, VmId(lost[0])))
                yield page

        monkeypatch.setattr(api, "pages", interrupted)
        # Whether it still stands on the page that was read before it went, is all the same.
        assert await listed(cloud) | {VmId(lost[0])} == ours


async def is_gone(cloud: OpenstackCloud, vm_id: VmId) -> bool:
    [found] = await cloud.get([vm_id])
    return isinstance(found, NotFound)


async def test_a_page_that_ended_with_a_server_that_is_gone_costs_one_more_reading(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await cloud.create(an_order())
        gone = Refusal(status=400, message="marker [0f1e] not found", forwarded=False)
        rule = proxy.on("compute", "GET", "/servers/detail", gone, times=1)
        assert await listed(cloud) == {vm.vm_id}
        assert len(rule.met) == 1


async def test_servers_that_go_all_the_time_make_the_listing_fail_not_lie(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        await listed(cloud)
        gone = Refusal(status=400, message="marker [0f1e] not found", forwarded=False)
        rule = proxy.on("compute", "GET", "/servers/detail", gone)
        with pytest.raises(Unavailable, match="went away between two pages") as told:
            await cloud.list()
        assert told.value.reason == "CLOUD_BUSY"
        assert len(rule.met) == 4


async def test_a_vm_that_the_list_forgets_is_asked_for_and_the_list_not_trusted(
    project: Project, proxy: Proxy
) -> None:
    clock = LeapingClock()
    async with driver(project, auth_url=proxy.auth_url, clock=clock) as cloud:
        vm = await cloud.create(an_order())
        clock.leap(cloud.horizon)
        with proxy.while_("compute", "GET", "/servers/detail", Forgetful(servers=1)):
            listing = await cloud.list()
        assert [each.vm_id for each in listing.vms] == [vm.vm_id]
        assert not listing.complete
        assert f"{vm.vm_id} exists and was not listed" in listing.incomplete_reason
        assert await listed(cloud) == {vm.vm_id}


async def test_a_new_vm_that_the_list_does_not_know_yet_is_listed_by_its_id_and_bars_nobody(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await cloud.create(an_order())
        proxy.on("compute", "GET", "/servers/detail", Forgetful(servers=1))
        listing = await cloud.list()
        assert [each.vm_id for each in listing.vms] == [vm.vm_id]
        assert listing.complete


async def test_a_vm_that_somebody_deleted_is_asked_for_once_more_and_then_forgotten(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await a_running_vm(cloud)
        await asyncio.to_thread(project.delete, vm.vm_id)
        other = driver(project)
        async with other:
            await eventually(lambda: is_gone(other, vm.vm_id))
        with proxy.counting() as calls:
            assert await listed(cloud) == set()
            assert await listed(cloud) == set()
        assert calls == Counter({DETAIL: 2, "compute GET /servers/{id}": 1})


async def test_many_vms_are_read_by_one_listing(
    project: Project, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_module, "_MANY", 3)
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        ours = sorted(await a_few(cloud, 3))
        with proxy.counting() as calls:
            found = await cloud.get([*ours, VmId("no-such-vm")])
        assert [each.vm_id for each in found if isinstance(each, Vm)] == ours
        assert isinstance(found[-1], NotFound)
        assert calls[DETAIL] == 1
        assert calls["compute GET /servers/{id}"] == 0


@pytest.mark.alone
@pytest.mark.parametrize("page_size", [None, 1])
async def test_a_cell_that_is_down_makes_the_listing_incomplete_and_no_vm_gone(
    openstack: OpenStack, project: Project, page_size: int | None
) -> None:
    async with driver(project, page_size=page_size) as cloud:
        away, near = await in_both_cells(openstack, cloud)
        with openstack.cell_down():
            listing = await cloud.list()
            states = {vm.vm_id: vm.state for vm in listing.vms}
            assert not listing.complete
            assert away in listing.incomplete_reason
            assert states[away] is VmState.UNKNOWN
            assert states[near] is VmState.RUNNING
            [found] = await cloud.get([away])
            assert isinstance(found, Unavailable)

        async def is_whole() -> bool:
            return (await cloud.list()).complete

        await eventually(is_whole)
        assert {away, near} <= await listed(cloud)


@pytest.mark.alone
async def test_a_cell_that_is_down_is_noticed_by_whoever_starts_meanwhile(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        away, _ = await in_both_cells(openstack, cloud)
        [vm] = await cloud.get([away])
    assert isinstance(vm, Vm)
    with openstack.cell_down():
        async with driver(project, auth_url=proxy.auth_url) as other:
            listing = await other.list()
            assert not listing.complete
            assert "in a cell that does not answer" in listing.incomplete_reason
            [found] = await other.get([away])
            assert isinstance(found, Unavailable)
            assert found.reason == "CELL_DOWN"
            with pytest.raises(Unavailable, match="nothing was done") as refusal:
                await other.reboot(vm)
            assert refusal.value.reason == "CELL_DOWN"
        async with driver(project, auth_url=proxy.auth_url) as forgetful:
            await forgetful.get([away])
            proxy.on("compute", "GET", "/servers/detail", Forgetful(servers=12))
            listing = await forgetful.list()
            assert away in listing.incomplete_reason, "what was told of is missed later"


async def in_both_cells(openstack: OpenStack, cloud: OpenstackCloud) -> tuple[VmId, VmId]:
    """A VM in the second cell, and one in the first."""
    with openstack.only_in("cell2"):
        away = await a_running_vm(cloud)
    with openstack.only_in("cell1"):
        near = await a_running_vm(cloud)
    return away.vm_id, near.vm_id


async def test_changes_are_asked_for_only_while_somebody_watches(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url, watch_interval="200ms") as cloud:
        await listed(cloud)

        async def was_asked() -> bool:
            return proxy.calls[DETAIL] >= 4

        [watcher] = [site.watcher for site in cloud.sites]
        with cloud.watch():
            await eventually(was_asked)
            asking = watcher._task
        assert asking
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert watcher._task is None


async def test_a_change_is_told_once(project: Project) -> None:
    async with driver(project, watch_interval="200ms") as cloud, driver(project) as other:
        with cloud.watch() as changes:
            vm = await other.create(an_order())
            told: list[Vm] = []
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not told or told[-1].cloud_state != "ACTIVE":
                    told += [each.vm for each in await changes.next()]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2):
                    told += [each.vm for each in await changes.next()]
    assert {each.vm_id for each in told} == {vm.vm_id}
    # Its host and its addresses come while its state stays: all of it is compared.
    assert all(earlier != later for earlier, later in pairwise(told))


async def test_a_change_shows_a_vm_as_a_listing_does(project: Project) -> None:
    async with driver(project, watch_interval="200ms") as cloud, driver(project) as other:
        with cloud.watch() as changes:
            vm = await other.create(an_order())
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (told := (await changes.next())[-1].vm).state is not VmState.RUNNING:
                    pass
        [shown] = (await other.list()).vms
    assert shown.vm_id == vm.vm_id
    assert told == shown


async def test_what_was_deleted_behind_our_back_is_told_as_it_was_last_seen(
    project: Project,
) -> None:
    async with driver(project, watch_interval="200ms") as cloud:
        vm = await a_running_vm(cloud)
        with cloud.watch() as changes:
            await asyncio.to_thread(project.delete, vm.vm_id)
            async with asyncio.timeout(PATIENCE_SECONDS):
                gone: Gone | None = None
                while gone is None:
                    found = await changes.next()
                    gone = next((each for each in found if isinstance(each, Gone)), None)
    assert gone.vm.vm_id == vm.vm_id
    assert gone.vm.metadata == vm.metadata


async def test_strangers_are_not_told_of(project: Project) -> None:
    async with driver(project, watch_interval="200ms") as cloud:
        with cloud.watch() as changes:
            await asyncio.to_thread(project.order, "stranger")
            vm = await cloud.create(an_order())
            found = await asyncio.wait_for(changes.next(), PATIENCE_SECONDS)
    assert {each.vm.vm_id for each in found if isinstance(each, Changed)} == {vm.vm_id}


async def test_a_watcher_outlives_a_cloud_that_is_away_for_a_moment(
    project: Project, proxy: Proxy
) -> None:
    async with (
        driver(project, auth_url=proxy.auth_url, watch_interval="200ms") as cloud,
        driver(project) as other,
    ):
        await listed(cloud)
        with cloud.watch() as changes:
            away = proxy.on("compute", "GET", "/servers/detail", Refusal(status=500))

            async def has_failed() -> bool:
                return len(away.met) >= 2

            await eventually(has_failed)
            vm = await other.create(an_order())
            proxy.calm()
            found = await asyncio.wait_for(changes.next(), PATIENCE_SECONDS)
    assert {each.vm.vm_id for each in found} == {vm.vm_id}


async def test_a_copied_vm_of_another_suite_is_a_stranger(project: Project) -> None:
    async with driver(project) as cloud:
        order = an_order()
        foreign = replace(order, marker=replace(order.marker, suite_id="another"))
        await cloud.create(foreign)
        assert await listed(cloud) == set()
