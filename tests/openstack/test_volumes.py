"""VMs that boot from volumes, on a real Cinder: what is made, what is left, and what is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from iaas_service.domain import Check, CheckStatus, Order, Spec, Vm, VmId, VmState
from iaas_service.drivers.openstack import OpenstackCloud
from iaas_service.testing import an_order, eventually, eventually_runs
from tests.openstack.cloud.seed import REGIONS
from tests.openstack.driver import driver
from tests.openstack.faults import Older, Refusal
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import BadRequest, Unsupported


@pytest.fixture
async def cloud(project: Project) -> AsyncIterator[OpenstackCloud]:
    async with driver(project) as cloud:
        yield cloud


def order(size: int = 20, *, image: str = "debian", **volume: Any) -> Order:
    options = {"boot_volume": {"size": size, **volume}}
    return an_order(spec=Spec(flavor="small", image=image, options=options))


async def a_vm(cloud: OpenstackCloud, size: int = 20, **volume: Any) -> Vm:
    """It runs."""
    made = await cloud.create(order(size, **volume))
    await eventually_runs(cloud, made.vm_id)
    return await read(cloud, made.vm_id)


async def read(cloud: OpenstackCloud, vm_id: VmId) -> Vm:
    [vm] = await cloud.get([vm_id])
    assert isinstance(vm, Vm)
    return vm


async def eventually_failed(cloud: OpenstackCloud, vm_id: VmId) -> Vm:
    async def has_failed() -> bool:
        return (await read(cloud, vm_id)).state is VmState.ERROR

    await eventually(has_failed)
    return await read(cloud, vm_id)


def volumes(project: Project) -> list[Mapping[str, Any]]:
    """As Cinder shows them to the project."""
    found: list[Mapping[str, Any]] = project.api.get("volumev3", "/volumes/detail")["volumes"]
    return found


async def leftovers(cloud: OpenstackCloud) -> Check:
    """What the doctor says of them."""
    [told] = [check for check in await cloud.check() if check.name == "leftovers"]
    return told


async def eventually_gone(openstack: OpenStack, project: Project) -> None:
    async def is_gone() -> bool:
        return await asyncio.to_thread(openstack.servers, project) == {}

    await eventually(is_gone)


async def eventually_are(openstack: OpenStack, project: Project, *statuses: str) -> None:
    """The volumes of the project."""

    async def are() -> bool:
        found = await asyncio.to_thread(openstack.volumes, project)
        return sorted(found.values()) == sorted(statuses)

    await eventually(are)


@pytest.mark.parametrize("region", REGIONS)
async def test_a_vm_boots_from_a_volume_by_whichever_name_the_catalogue_has_cinder(
    project: Project, region: str
) -> None:
    async with driver(project, region=region) as cloud:
        vm = await a_vm(cloud, 23, type="fast")
        [volume] = volumes(project)
        assert (volume["size"], volume["volume_type"]) == (23, "fast")
        assert volume["status"] == "in-use"
        assert volume["attachments"][0]["server_id"] == vm.vm_id
        assert volume["volume_image_metadata"]["image_name"] == "debian"


async def test_a_vm_that_boots_from_a_volume_is_shown_with_the_image_that_was_ordered(
    cloud: OpenstackCloud, project: Project
) -> None:
    vm = await a_vm(cloud)
    assert project.server(vm.vm_id)["image"] == ""
    assert vm.image == "debian"
    assert [each.image for each in (await cloud.list()).vms] == ["debian"]


async def test_a_volume_goes_with_its_vm(
    cloud: OpenstackCloud, openstack: OpenStack, project: Project
) -> None:
    vm = await a_vm(cloud)
    await cloud.terminate(vm)
    await eventually_gone(openstack, project)
    await eventually_are(openstack, project)


async def test_a_volume_that_stays_as_the_preset_wants_is_told_and_called_nobodys(
    cloud: OpenstackCloud, openstack: OpenStack, project: Project
) -> None:
    vm = await a_vm(cloud, delete_on_termination=False)
    assert (await leftovers(cloud)).status is CheckStatus.OK
    await cloud.terminate(vm)
    await eventually_gone(openstack, project)
    await eventually_are(openstack, project, "available")
    [volume] = volumes(project)
    # All that is left of it: Nova gave it no name, and wrote nothing upon it.
    assert (volume["name"], volume["metadata"], volume["attachments"]) == ("", {}, [])
    told = await leftovers(cloud)
    assert told.status is CheckStatus.UNCHECKED
    assert f"volume {volume['id']} (20 GiB, available, nameless, of image 'debian')" in told.message


async def test_a_volume_that_could_not_be_deleted_with_its_vm_is_told(
    cloud: OpenstackCloud, openstack: OpenStack, project: Project
) -> None:
    vm = await a_vm(cloud)
    with openstack.volumes_fail(project, "delete"):
        await cloud.terminate(vm)
        await eventually_gone(openstack, project)
        await eventually_are(openstack, project, "error_deleting")
    assert "20 GiB, error_deleting" in (await leftovers(cloud)).message


@pytest.mark.alone
async def test_a_volume_of_a_vm_that_died_while_cinder_was_away_is_told_as_ours(
    cloud: OpenstackCloud, openstack: OpenStack, project: Project
) -> None:
    vm, alive = await a_vm(cloud), await a_vm(cloud)
    with openstack.without("cinder-api"):
        project.delete(vm.vm_id)

        async def is_gone() -> bool:
            return set(await asyncio.to_thread(openstack.servers, project)) == {alive.vm_id}

        await eventually(is_gone)
    await eventually_are(openstack, project, "in-use", "in-use")
    told = await leftovers(cloud)
    assert told.status is CheckStatus.WRONG
    assert f"(20 GiB, in-use, of the VM {vm.vm_id} that is gone)" in told.message
    assert alive.vm_id not in told.message
    async with driver(project) as other:
        assert (await leftovers(other)).status is CheckStatus.UNCHECKED


async def test_a_cinder_that_fails_is_named_by_the_doctor(project: Project, proxy: Proxy) -> None:
    proxy.on("block-storage", "*", ".*", Refusal(status=503, forwarded=False))
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        told = await leftovers(cloud)
    assert told.status is CheckStatus.WRONG
    assert "Cinder of osk" in told.message
    assert "answered 503" in told.message


@pytest.mark.parametrize("image", ["debian", "debian-13"])
async def test_a_volume_is_made_anew_by_a_rebuild(
    cloud: OpenstackCloud, project: Project, image: str
) -> None:
    vm = await a_vm(cloud)
    await cloud.rebuild(vm, order(image=image).spec, spec_hash="77aa")

    async def is_rebuilt() -> bool:
        return (await read(cloud, vm.vm_id)).state is VmState.RUNNING

    await eventually(is_rebuilt)
    assert (await read(cloud, vm.vm_id)).image == image
    [volume] = volumes(project)
    assert volume["volume_image_metadata"]["image_name"] == image
    assert (volume["status"], volume["attachments"][0]["server_id"]) == ("in-use", vm.vm_id)


async def test_a_nova_that_would_leave_the_volume_as_it_is_rebuilds_nothing(
    project: Project, proxy: Proxy
) -> None:
    proxy.on("compute", "GET", "/", Older(microversion="2.92"))
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        vm = await a_vm(cloud)
        with proxy.counting() as calls, pytest.raises(Unsupported, match=r"a volume, needs 2\.93"):
            await cloud.rebuild(vm, order().spec, spec_hash="77aa")
        assert calls["compute POST /servers/{id}/action"] == 0


async def test_without_room_in_cinders_quota_the_vm_fails_with_the_reason(
    cloud: OpenstackCloud, openstack: OpenStack, project: Project
) -> None:
    openstack.set_volume_quota(project, gigabytes=10)
    vm = await cloud.create(order(11))
    failed = await eventually_failed(cloud, vm.vm_id)
    assert "quota" in failed.fault.lower()
    assert openstack.volumes(project) == {}


async def test_a_volume_that_cannot_be_made_fails_the_vm_with_the_reason_and_goes_with_it(
    cloud: OpenstackCloud, openstack: OpenStack, project: Project
) -> None:
    with openstack.volumes_fail(project, "create"):
        vm = await cloud.create(order())
        failed = await eventually_failed(cloud, vm.vm_id)
    assert "its status is error" in failed.fault
    await cloud.terminate(failed)
    await eventually_gone(openstack, project)
    await eventually_are(openstack, project)


async def test_an_unknown_type_of_volume_is_refused_in_novas_words(
    cloud: OpenstackCloud, openstack: OpenStack, project: Project
) -> None:
    with pytest.raises(BadRequest, match=r"fats.* could not be found"):
        await cloud.create(order(type="fats"))
    assert openstack.servers(project) == {}


async def test_a_volume_too_small_for_the_image_is_refused_before_anything_is_made(
    cloud: OpenstackCloud, openstack: OpenStack, project: Project
) -> None:
    wanted = {"name": "large", "disk_format": "raw", "container_format": "bare", "min_disk": 30}
    image = project.api.post("image", "/v2/images", wanted)["id"]
    project.api.put("image", f"/v2/images/{image}/file", b"large")
    with pytest.raises(BadRequest, match="the volume has 20 GiB of disk, and image 'large' needs"):
        await cloud.create(order(20, image="large"))
    assert openstack.servers(project) == {}
