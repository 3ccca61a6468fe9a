"""What the driver does when the cloud is slow, strict, broken or away."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from iaas_service.domain import VmId
from iaas_service.testing import a_running_vm, an_order, eventually
from tests.openstack.driver import driver, eventually_lists
from tests.openstack.faults import Closed, Fault, Page, Refusal, Truncated, Unanswered
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy
from vmshepherd_kit.clock import SystemClock
from vmshepherd_kit.errors import (
    OutcomeUnknown,
    QuotaExceeded,
    Refused,
    ShepherdError,
    Throttled,
    Unavailable,
)

NOBODY = VmId("no-such-vm")

CREATE_FAULTS = [
    (Refusal(status=503), 1),
    (Refusal(status=500), 1),
    (Page(status=200), 1),
    (Closed(), 1),
    (Closed(forwarded=False), 0),
    (Truncated(), 1),
]


@pytest.mark.parametrize(("fault", "made"), CREATE_FAULTS)
async def test_a_create_that_was_not_answered_well_has_an_unknown_outcome_and_is_not_repeated(
    openstack: OpenStack, project: Project, proxy: Proxy, fault: Fault, made: int
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        rule = proxy.on("compute", "POST", "/servers", fault)
        with pytest.raises(OutcomeUnknown):
            await cloud.create(an_order())
        assert len(rule.met) == 1
        assert len(await asyncio.to_thread(openstack.servers, project)) == made


async def test_a_create_that_nobody_answers_ends_in_time(project: Project, proxy: Proxy) -> None:
    async with driver(project, auth_url=proxy.auth_url, http_timeout="15s") as cloud:
        await cloud.catalog()
        proxy.on("compute", "POST", "/servers", Unanswered(forwarded=False))
        with pytest.raises(OutcomeUnknown, match="did not answer within 15 s"):
            await cloud.create(an_order())


async def test_a_create_that_the_cloud_refuses_is_surely_not_done(
    openstack: OpenStack, project: Project
) -> None:
    async with driver(project) as cloud:
        await cloud.catalog()
        await asyncio.to_thread(openstack.set_quota, project, instances=0)
        with pytest.raises(QuotaExceeded, match="the quota of vms is used up: 0 of 0"):
            await cloud.create(an_order())
        assert await asyncio.to_thread(openstack.servers, project) == {}


@pytest.mark.parametrize("status", [413, 429])
async def test_a_cloud_that_wants_fewer_calls_is_obeyed(
    project: Project, proxy: Proxy, status: int
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        too_many = Refusal(status=status, headers={"Retry-After": "7"}, forwarded=False)
        proxy.on("compute", "GET", "/servers/detail", too_many, times=1)
        with pytest.raises(Throttled) as told:
            await cloud.list()
        assert told.value.retry_after == timedelta(seconds=7)


async def test_nobody_calls_while_the_cloud_rests(project: Project, proxy: Proxy) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        too_many = Refusal(status=429, headers={"Retry-After": "60"}, forwarded=False)
        proxy.on("compute", "GET", "/servers/detail", too_many, times=1)
        with pytest.raises(Throttled):
            await cloud.list()
        with proxy.counting() as calls:
            for _ in range(5):
                with pytest.raises(Throttled):
                    await cloud.list()
        assert sum(calls.values()) == 0


async def test_a_dead_cloud_costs_few_calls_and_is_found_alive_again(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        proxy.on("compute", "*", ".*", Closed(forwarded=False))
        with proxy.counting() as calls:
            for _ in range(30):
                with pytest.raises(Unavailable):
                    await cloud.list()
        # Three open the circuit; on a slow machine an interval or two may pass meanwhile.
        assert sum(calls.values()) <= 6
        with pytest.raises(Unavailable, match="tried again") as told:
            await cloud.list()
        assert told.value.reason == "CLOUD_UNREACHABLE"
        proxy.calm()
        await eventually_lists(cloud)


async def test_a_dead_cloud_is_no_cloud_to_create_in(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        await cloud.catalog()
        proxy.on("compute", "GET", "/servers/detail", Closed(forwarded=False))
        for _ in range(3):
            with pytest.raises(Unavailable):
                await cloud.list()
        with pytest.raises(Unavailable):
            await cloud.create(an_order())
        assert await asyncio.to_thread(openstack.servers, project) == {}


async def test_no_more_calls_than_allowed_are_made_at_a_time(
    project: Project, proxy: Proxy
) -> None:
    clock = SystemClock()
    async with driver(project, auth_url=proxy.auth_url, connections=3) as cloud:
        await cloud.list()
        proxy.on("compute", "GET", "/servers/.*", Fault(seconds=0.5))
        begun = clock.elapsed()
        await asyncio.gather(*(cloud.get([NOBODY]) for _ in range(12)))
        # Four rounds of three.
        assert clock.elapsed() - begun >= timedelta(seconds=2)


@pytest.mark.parametrize(
    "fault", [Truncated(), Truncated(claims_whole=True), Page(status=200), Refusal(status=500)]
)
async def test_a_listing_that_is_cut_off_is_none(
    project: Project, proxy: Proxy, fault: Fault
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        await cloud.list()
        proxy.on("compute", "GET", "/servers/detail", fault, times=1)
        with pytest.raises(Unavailable):
            await cloud.list()
        assert (await cloud.list()).complete


async def test_a_call_whose_caller_went_away_is_cut_off(project: Project, proxy: Proxy) -> None:
    async with driver(project, auth_url=proxy.auth_url, connections=1) as cloud:
        await cloud.catalog()
        silent = proxy.on("compute", "GET", "/servers/detail", Unanswered(forwarded=False))
        creates = proxy.on("compute", "POST", "/servers", Refusal(status=503, forwarded=False))
        listing = asyncio.ensure_future(cloud.list())
        await eventually(silent.is_met)
        waiting = asyncio.ensure_future(cloud.create(an_order()))
        # Its turn does not come as long as the listing has it.
        await asyncio.wait({waiting}, timeout=1)
        assert not waiting.done()
        waiting.cancel()
        listing.cancel()
        await asyncio.gather(waiting, listing, return_exceptions=True)
        [found] = await cloud.get([NOBODY])
        assert isinstance(found, ShepherdError)
        assert creates.met == [], "what was not sent when its caller left is never sent"


async def test_a_vm_that_somebody_locked_is_not_destroyed(project: Project) -> None:
    async with driver(project) as cloud:
        vm = await a_running_vm(cloud)
        await asyncio.to_thread(project.act, vm.vm_id, "lock")
        with pytest.raises(Refused, match="locked") as told:
            await cloud.terminate(vm)
        assert told.value.reason == "PROTECTED"
        [found] = await cloud.get([vm.vm_id])
        assert not isinstance(found, ShepherdError)
        assert found.locked


async def test_a_conflict_with_a_task_of_the_cloud_is_no_unknown_outcome(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await a_running_vm(cloud)
        proxy.on("compute", "POST", "/servers/.*/action", Refusal(status=409, forwarded=False))
        with pytest.raises(Unavailable) as told:
            await cloud.reboot(vm)
        assert told.value.reason == "CLOUD_BUSY"


async def test_a_vm_that_is_stuck_is_deleted_by_force_where_that_is_wished(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url, force_delete=True) as cloud:
        vm = await a_running_vm(cloud)
        await asyncio.to_thread(openstack.set_state, vm.vm_id, "error")
        [failed] = await cloud.get([vm.vm_id])
        assert not isinstance(failed, ShepherdError)
        with proxy.counting() as calls:
            assert await cloud.terminate(failed)
        assert not any(kind.startswith("compute DELETE") for kind in calls)

        async def is_gone() -> bool:
            return await asyncio.to_thread(openstack.servers, project) == {}

        await eventually(is_gone)
