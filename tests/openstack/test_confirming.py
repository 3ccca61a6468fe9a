"""What a listing does not show is asked for, and what that tells; each question is asked once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from iaas_service.domain import Vm, VmState
from iaas_service.drivers.openstack import cloud as cloud_module
from iaas_service.drivers.openstack import listing as listing_module
from iaas_service.testing import a_running_vm, an_order
from tests.openstack.clocks import LeapingClock
from tests.openstack.driver import driver
from tests.openstack.faults import Forgetful, Refusal
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import BadRequest

DETAIL = "compute GET /servers/detail"
ONE = "compute GET /servers/{id}"
ONE_SERVER = "/servers/[0-9a-f-]{36}"


async def test_a_vm_that_is_neither_listed_nor_told_of_is_unknown(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await cloud.create(an_order())
        with (
            proxy.while_("compute", "GET", "/servers/detail", Forgetful()),
            proxy.while_("compute", "GET", ONE_SERVER, Refusal(status=500)),
        ):
            listing = await cloud.list()
        assert not listing.complete
        assert f"VM {vm.vm_id} is not listed, and asked for it" in listing.incomplete_reason
        assert [(each.vm_id, each.state) for each in listing.vms] == [(vm.vm_id, VmState.UNKNOWN)]
        assert (await cloud.list()).complete


async def test_once_it_is_clear_that_a_list_is_short_no_more_is_asked(
    project: Project, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "_AT_ONCE", 1)
    clock = LeapingClock()
    async with driver(project, auth_url=proxy.auth_url, clock=clock) as cloud:
        made = [await cloud.create(an_order()) for _ in range(2)]
        clock.leap(cloud.horizon)
        proxy.on("compute", "GET", "/servers/detail", Forgetful(servers=2))
        with proxy.counting() as calls:
            listing = await cloud.list()
        assert not listing.complete
        assert {vm.vm_id for vm in listing.vms} == {vm.vm_id for vm in made}
        assert calls[ONE] == 1


async def test_a_vm_whose_marker_somebody_took_away_is_a_stranger_from_then_on(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await a_running_vm(cloud)
        path = f"/servers/{vm.vm_id}/metadata/vmshepherd_suite"
        await asyncio.to_thread(project.api.delete, "compute", path)
        with proxy.counting() as calls:
            for _ in range(2):
                listing = await cloud.list()
                assert (listing.complete, listing.vms) == (True, [])
        assert calls[ONE] == 1


async def test_a_vm_that_is_made_while_pages_are_read_is_no_doubt_about_them(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with driver(project) as cloud:
        await cloud.list()
        api = cloud.sites[0].api
        pages = api.pages

        async def interrupted(*args: Any, **more: Any) -> AsyncIterator[list[dict[str, Any]]]:
            async for page in pages(*args, **more):
                if args[1] == "/servers/detail":
                    await cloud.create(an_order())
                yield page

        monkeypatch.setattr(api, "pages", interrupted)
        assert (await cloud.list()).complete


async def test_a_list_that_nova_refuses_for_another_reason_is_not_asked_for_again(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        odd = Refusal(status=400, message="no such thing", forwarded=False)
        rule = proxy.on("compute", "GET", "/servers/detail", odd)
        with pytest.raises(BadRequest, match="no such thing"):
            await cloud.list()
        assert len(rule.met) == 1


async def test_the_fault_of_a_vm_that_failed_without_a_word_is_asked_for_a_minute_long(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    clock = LeapingClock()
    async with driver(project, auth_url=proxy.auth_url, clock=clock) as cloud:
        vm = await a_running_vm(cloud)
        await asyncio.to_thread(openstack.set_state, vm.vm_id, "error")
        with proxy.counting() as calls:
            with proxy.while_("compute", "GET", ONE_SERVER, Refusal(status=500)):
                assert (await cloud.list()).complete, "a fault that is not told is none of the list"
            await cloud.list()
        assert calls == {DETAIL: 2, ONE: 2}
        clock.leap(timedelta(minutes=2))
        with proxy.counting() as calls:
            await cloud.list()
        assert calls == {DETAIL: 1}


async def test_many_are_asked_for_one_by_one_when_they_cannot_be_listed(
    project: Project, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_module, "_MANY", 1)
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await cloud.create(an_order())
        proxy.on("compute", "GET", "/servers/detail", Refusal(status=500))
        [found] = await cloud.get([vm.vm_id])
        assert isinstance(found, Vm)


async def test_a_vm_of_which_a_listing_knows_nothing_is_asked_for_by_itself(
    project: Project, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_module, "_MANY", 1)
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await cloud.create(an_order())
        proxy.on("compute", "GET", "/servers/detail", Forgetful())
        proxy.on("compute", "GET", ONE_SERVER, Refusal(status=500), times=1)
        [found] = await cloud.get([vm.vm_id])
        assert isinstance(found, Vm)
        assert found.state is not VmState.UNKNOWN


async def test_of_many_that_failed_without_a_word_a_few_are_asked_for_at_a_time(
    openstack: OpenStack, project: Project, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "_AT_ONCE", 1)
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        for _ in range(2):
            vm = await a_running_vm(cloud)
            await asyncio.to_thread(openstack.set_state, vm.vm_id, "error")
        with proxy.counting() as calls:
            assert (await cloud.list()).complete
        assert calls == {DETAIL: 1, ONE: 1}


async def test_a_region_that_fails_leaves_the_others_and_says_that_they_are_not_all(
    project: Project, proxy: Proxy
) -> None:
    regions = ["RegionOne", "RegionTwo"]
    async with driver(project, auth_url=proxy.auth_url, regions=regions) as cloud:
        await cloud.list()
        vm = await cloud.create(an_order())
        proxy.on("compute", "GET", "/servers/detail", Refusal(status=500), times=1)
        listing = await cloud.list()
        assert not listing.complete
        assert "region Region" in listing.incomplete_reason
        assert vm.vm_id in {each.vm_id for each in listing.vms}
