"""What VMs left behind on a real cloud is found, told, and never touched."""

from __future__ import annotations

from typing import Any

from iaas_service.drivers.openstack import leaks
from iaas_service.testing import SUITE_ID, an_order, eventually_runs
from tests.openstack.driver import driver
from tests.openstack.faults import Forgetful
from tests.openstack.ground import OpenStack, Project, until
from tests.openstack.proxy import Proxy


def port_of(project: Project, server_id: str) -> str:
    """A port as Nova would have made it for that server."""
    networks = project.api.get("network", "/v2.0/networks")["networks"]
    [network] = [each["id"] for each in networks if each["name"] == "private"]
    wanted = {"network_id": network, "device_id": server_id, "device_owner": "compute:north"}
    return str(project.api.post("network", "/v2.0/ports", {"port": wanted})["port"]["id"])


async def test_ports_of_vms_that_are_gone_are_told_and_those_of_ours_known(
    openstack: OpenStack, project: Project
) -> None:
    async with driver(project) as cloud:
        site = cloud.sites[0]
        vm, alive = await cloud.create(an_order()), await cloud.create(an_order())
        foreign = project.order("foreign")
        for each_vm in (vm, alive):
            await eventually_runs(cloud, each_vm.vm_id)
        openstack.wait_for(project, foreign, "ACTIVE")
        for each in (vm.vm_id, foreign):
            project.delete(each)
        until(lambda: set(openstack.servers(project)) == {alive.vm_id}, "both are gone")
        ours, others = port_of(project, vm.vm_id), port_of(project, foreign)

        found = await leaks.find(site.api, suite_id=SUITE_ID, made=site.creator.made)
        assert {(each.id, each.is_ours) for each in found} == {(ours, True), (others, False)}
        assert {ours, others} <= set(openstack.ports(project))

        [told] = [check for check in await cloud.check() if check.name == "leftovers"]
        assert ours in told.message
        assert others not in told.message
    for port in (ours, others):
        project.api.delete("network", f"/v2.0/ports/{port}")


async def test_the_port_of_a_vm_that_a_list_omits_is_no_leak(
    openstack: OpenStack, project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        site = cloud.sites[0]
        vm = await cloud.create(an_order())
        await eventually_runs(cloud, vm.vm_id)
        proxy.on("compute", "GET", "/servers", Forgetful(servers=2))
        assert await leaks.find(site.api, suite_id=SUITE_ID, made=site.creator.made) == []


def volume(**said: Any) -> dict[str, Any]:
    marked = {"vmshepherd_suite": SUITE_ID, "vmshepherd_preset": "web"}
    return {"id": "v-1", "size": 20, "status": "available", "metadata": marked, **said}


def test_volumes_of_the_suite_that_nothing_uses_are_leaks() -> None:
    assert leaks.is_left_volume(volume(), SUITE_ID)
    assert not leaks.is_left_volume(volume(status="in-use"), SUITE_ID)
    assert not leaks.is_left_volume(volume(attachments=[{"server_id": "s"}]), SUITE_ID)
    assert not leaks.is_left_volume(volume(), "another")
    assert not leaks.is_left_volume(volume(metadata={}), SUITE_ID)
    assert "of preset 'web'" in leaks.volume_leak(volume()).about
