"""What VMs left behind on a real cloud is found, told, and never touched."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from iaas_service.drivers.openstack import leaks
from iaas_service.testing import SUITE_ID, an_order, eventually_runs
from tests.openstack.driver import driver
from tests.openstack.faults import Answer, Fault, Forgetful, Page, Refusal
from tests.openstack.ground import OpenStack, Project, until
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import Unavailable


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


@pytest.mark.parametrize(
    "fault",
    [Page(status=404, forwarded=False), Refusal(status=404, forwarded=False)],
    ids=["page", "words"],
)
async def test_a_404_that_is_not_the_services_own_makes_no_leak_and_hides_none(
    project: Project, proxy: Proxy, fault: Fault
) -> None:
    gone = str(uuid.uuid4())
    port = port_of(project, gone)
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        api = cloud.sites[0].api
        for service, path in (("compute", f"/servers/{gone}"), ("network", f"/ports/{port}")):
            with (
                proxy.while_(service, "GET", path, fault),
                pytest.raises(Unavailable, match="nobody can say whether"),
            ):
                await leaks.find(api, suite_id=SUITE_ID, made=())
        assert [each.id for each in await leaks.find(api, suite_id=SUITE_ID, made=())] == [port]
    project.api.delete("network", f"/v2.0/ports/{port}")


@dataclass(frozen=True, kw_only=True)
class Outdated(Fault):
    """A list that shows a port which somebody deletes before it arrives."""

    project: Project
    port: str

    def after(self, answer: Answer, *, newest: Sequence[str]) -> Answer:
        self.project.api.delete("network", f"/v2.0/ports/{self.port}")
        return answer


async def test_a_port_that_goes_while_one_looks_is_no_leak(project: Project, proxy: Proxy) -> None:
    port = port_of(project, str(uuid.uuid4()))
    proxy.on("network", "GET", "/ports", Outdated(project=project, port=port), times=1)
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        assert await leaks.find(cloud.sites[0].api, suite_id=SUITE_ID, made=()) == []


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


def test_a_volume_without_a_name_that_nothing_uses_may_be_anybodys() -> None:
    nameless = volume(metadata={}, name="", volume_image_metadata={"image_name": "debian"})
    assert leaks.is_nameless(nameless)
    assert not leaks.volume_leak(nameless).is_ours
    assert leaks.volume_leak(nameless).about == "20 GiB, available, nameless, of image 'debian'"
    assert leaks.is_nameless({**nameless, "status": "error_deleting"})
    for told in (
        {"name": "data"},
        {"metadata": {"vmshepherd_suite": "another"}},
        {"status": "creating"},
        {"attachments": [{"server_id": "s"}]},
    ):
        assert not leaks.is_nameless({**nameless, **told})


def test_a_volume_that_is_attached_is_of_the_vm_that_cinder_names() -> None:
    attached = volume(status="in-use", attachments=[{"server_id": "s"}])
    leak = leaks.orphan_leak(attached, "s", {"s"})
    assert (leak.about, leak.is_ours) == ("20 GiB, in-use, of the VM s that is gone", True)
    assert not leaks.orphan_leak(attached, "s", set()).is_ours
