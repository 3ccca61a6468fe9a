"""Making VMs on a real cloud: what is made, what is not, and what is said when it fails."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from iaas_service import marker
from iaas_service.domain import Order, Spec
from iaas_service.drivers.openstack import OpenstackCloud
from iaas_service.testing import SUITE_ID, an_order, eventually_runs
from tests.openstack.cloud import seed
from tests.openstack.driver import driver
from tests.openstack.faults import Closed, Refusal
from tests.openstack.ground import OpenStack, Project, until
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import (
    BadRequest,
    NotFound,
    OutcomeUnknown,
    QuotaExceeded,
    ShepherdError,
    Throttled,
    Unavailable,
)


@pytest.fixture
async def cloud(project: Project) -> AsyncIterator[OpenstackCloud]:
    async with driver(project) as cloud:
        yield cloud


def order(**fields: Any) -> Order:
    return an_order(spec=Spec(**{"flavor": "small", "image": "debian", **fields}))


async def test_a_vm_is_made_with_all_that_is_ordered(
    cloud: OpenstackCloud, openstack: OpenStack, project: Project
) -> None:
    wanted = order(
        security_groups=("web",),
        key_name="ops",
        availability_zone="north",
        user_data="#!/bin/sh\necho ä\n",
        metadata={"team": "search"},
        options={"tags": ["blue"], "config_drive": True, "server_group": "anti-affinity"},
    )
    vm = await cloud.create(wanted)
    await eventually_runs(cloud, vm.vm_id)
    openstack.make_admin(project)
    shown = project.server(vm.vm_id)
    assert shown["tags"] == ["blue"]
    assert shown["config_drive"] == "True"
    assert shown["security_groups"] == [{"name": "web"}]
    assert base64.b64decode(shown["OS-EXT-SRV-ATTR:user_data"]).decode() == wanted.spec.user_data
    assert shown["metadata"]["team"] == "search"
    assert marker.read(shown["metadata"], SUITE_ID) == wanted.marker
    [group] = project.api.get("compute", "/os-server-groups")["server_groups"]
    assert group["members"] == [vm.vm_id]
    assert (group["policy"], group["name"]) == (
        "anti-affinity",
        f"vmshepherd {SUITE_ID} web anti-affinity",
    )


async def test_the_moment_of_its_order_is_written_upon_a_vm_for_whoever_comes_later(
    cloud: OpenstackCloud, project: Project
) -> None:
    vm = await cloud.create(order(options={"networks": "none"}))
    written = project.server(vm.vm_id)["metadata"]["vmshepherd_birth"]
    assert datetime.fromisoformat(written) == vm.create_time
    async with driver(project) as other:
        [listed] = (await other.list()).vms
    assert listed.create_time == vm.create_time


async def test_vms_of_a_preset_that_are_made_side_by_side_share_one_group(
    cloud: OpenstackCloud, project: Project
) -> None:
    orders = [order(options={"server_group": "soft-anti-affinity"}) for _ in range(2)]
    vms = await asyncio.gather(*(cloud.create(each) for each in orders))
    [group] = project.api.get("compute", "/os-server-groups")["server_groups"]
    assert set(group["members"]) == {vm.vm_id for vm in vms}


async def test_vms_of_a_group_stand_on_hosts_of_their_own(
    cloud: OpenstackCloud, project: Project
) -> None:
    hosts = set[str]()
    for _ in range(2):
        vm = await cloud.create(order(options={"server_group": "anti-affinity"}))
        # One by one: of two that Nova places at the same time, chance may leave one without a host.
        await eventually_runs(cloud, vm.vm_id)
        hosts.add(project.server(vm.vm_id)["hostId"])
    assert len(hosts) == 2


async def test_a_misspelt_flavor_makes_no_request_to_make_a_vm(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        with proxy.counting() as calls, pytest.raises(NotFound, match="did you mean 'small'"):
            await cloud.create(order(flavor="smal"))
        assert calls["compute POST /servers"] == 0
    assert openstack.servers(project) == {}


async def made(cloud: OpenstackCloud, number: int) -> list[QuotaExceeded]:
    """A batch; what those say for whom there was no room."""
    orders = (cloud.create(order(options={"networks": "none"})) for _ in range(number))
    ends = await asyncio.gather(*orders, return_exceptions=True)
    refusals = [each for each in ends if isinstance(each, QuotaExceeded)]
    assert len(refusals) == sum(isinstance(each, BaseException) for each in ends), ends
    return refusals


async def test_of_a_batch_no_more_is_ordered_than_the_quota_has_room_for(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    openstack.set_quota(project, instances=3)
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        with proxy.counting() as calls:
            refusals = await made(cloud, 5)
        assert len(refusals) == 2
        assert calls["compute POST /servers"] == 3
    assert "the quota of vms is used up: 3 of 3 are used, and this VM needs 1" in str(refusals[0])
    assert len(openstack.servers(project)) == 3


async def test_room_that_came_back_is_seen_at_the_next_create(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    openstack.set_quota(project, instances=1)
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        assert not await made(cloud, 1)
        assert await made(cloud, 1)
        openstack.set_quota(project, instances=2)
        assert not await made(cloud, 1)
        assert await made(cloud, 1)
        [first, _] = openstack.servers(project)
        await asyncio.to_thread(project.delete, first)
        until(lambda: first not in openstack.servers(project), "it is gone")
        assert not await made(cloud, 1)


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"cores": 0}, "the quota of cores is used up: 0 of 0 are used, and this VM needs"),
        ({"ram": 1}, "the quota of ram_mib is used up: 0 of 1 are used, and this VM needs"),
    ],
    ids=["cores", "ram"],
)
async def test_a_quota_that_is_used_up_is_told_and_nova_is_not_asked(
    openstack: OpenStack, project: Project, proxy: Proxy, limits: dict[str, int], sentence: str
) -> None:
    openstack.set_quota(project, **limits)
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        with pytest.raises(QuotaExceeded, match=sentence):
            await cloud.create(order())
    assert proxy.calls["compute POST /servers"] == 0


async def test_a_quota_that_cannot_be_read_is_judged_by_nova_and_told_in_its_words(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    openstack.set_quota(project, instances=1)
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        proxy.on("compute", "GET", "/limits", Refusal(status=500, forwarded=False))
        assert not await made(cloud, 1)
        await asyncio.to_thread(openstack.wait_until_counted, project)
        with pytest.raises(QuotaExceeded, match="Quota exceeded for instances: Requested 1"):
            await cloud.create(order())
    assert len(openstack.servers(project)) == 1


async def test_creates_where_there_is_room_cost_one_reading_of_the_limits(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    openstack.set_quota(project, instances=20)
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        with proxy.counting() as calls:
            assert not await made(cloud, 4)
        assert calls["compute POST /servers"] == 4
        assert calls["compute GET /limits"] == 1


async def test_what_nova_refuses_is_told_in_its_words_and_makes_nothing(
    cloud: OpenstackCloud, openstack: OpenStack, project: Project
) -> None:
    openstack.set_quota(project, metadata_items=7)
    metadata = {str(n): "x" for n in range(9)}
    with pytest.raises(ShepherdError, match="metadata") as refusal:
        await cloud.create(order(metadata=metadata))
    assert not isinstance(refusal.value, OutcomeUnknown)
    assert openstack.servers(project) == {}


async def test_an_image_that_was_made_anew_is_found_after_one_refusal(
    cloud: OpenstackCloud, openstack: OpenStack, project: Project
) -> None:
    first = seed.add_image(project.api, "own", visibility="private")
    await cloud.check_spec("web", order(image="own").spec)
    project.api.delete("image", f"/v2/images/{first}")
    second = seed.add_image(project.api, "own", visibility="private")
    with pytest.raises(BadRequest):
        await cloud.create(order(image="own"))
    vm = await cloud.create(order(image="own"))
    assert project.server(vm.vm_id)["image"]["id"] == second
    project.api.delete("image", f"/v2/images/{second}")


async def test_a_vm_that_no_host_can_hold_shows_as_a_fault_in_novas_words(
    cloud: OpenstackCloud, openstack: OpenStack, project: Project
) -> None:
    vm = await cloud.create(order(flavor="huge"))
    openstack.wait_for_fault(project, vm.vm_id)
    [found] = await cloud.get([vm.vm_id])
    assert not isinstance(found, ShepherdError)
    assert "No valid host" in found.fault


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Refusal(status=503), OutcomeUnknown),
        (Refusal(status=500), OutcomeUnknown),
        (Closed(), OutcomeUnknown),
        (Refusal(status=429, headers={"Retry-After": "3"}, forwarded=False), Throttled),
    ],
    ids=["503", "500", "closed", "429"],
)
async def test_a_create_is_sent_once_whatever_becomes_of_its_answer(
    openstack: OpenStack,
    project: Project,
    proxy: Proxy,
    fault: Any,
    kind: type[ShepherdError],
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        rule = proxy.on("compute", "POST", "/servers", fault, times=1)
        with pytest.raises(kind) as refusal:
            await cloud.create(order())
        assert len(rule.met) == 1
        assert len(openstack.servers(project)) == (kind is OutcomeUnknown)
        if kind is Throttled:
            assert refusal.value.retry_after is not None
            assert refusal.value.retry_after.total_seconds() == 3


async def test_a_vm_that_was_made_and_cannot_be_shown_is_an_unknown_outcome(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        await cloud.check_spec("web", order().spec)
        proxy.on("compute", "GET", "/servers/.*", Refusal(status=500, forwarded=False), times=1)
        with pytest.raises(OutcomeUnknown) as refusal:
            await cloud.create(order())
    assert list(openstack.servers(project)) == [refusal.value.facts["vm_id"]]


async def test_a_server_group_that_fails_makes_no_vm_and_says_so(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        proxy.on("compute", "POST", "/os-server-groups", Refusal(status=503), times=1)
        wanted = order(options={"server_group": "affinity"})
        with pytest.raises(Unavailable, match="no VM was made"):
            await cloud.create(wanted)
        assert openstack.servers(project) == {}
        await cloud.create(wanted)
    [_] = project.api.get("compute", "/os-server-groups")["server_groups"]
