"""What a real cloud offers, and how much of it is left."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from iaas_service.domain import CatalogKind
from iaas_service.drivers.openstack import OpenstackCloud
from iaas_service.testing import an_order, eventually_runs
from tests.openstack.driver import driver
from tests.openstack.faults import Refusal
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy
from vmshepherd_kit.errors import Unavailable


@pytest.fixture
async def cloud(project: Project) -> AsyncIterator[OpenstackCloud]:
    async with driver(project) as cloud:
        yield cloud


async def test_images_flavors_zones_and_networks_are_offered_by_name(cloud: OpenstackCloud) -> None:
    entries = (await cloud.catalog()).entries
    names: dict[CatalogKind, set[str]] = {kind: set() for kind in CatalogKind}
    for entry in entries:
        names[entry.kind].add(entry.name)
    assert {"debian", "debian-13", "ubuntu-xenial"} <= names[CatalogKind.IMAGE]
    assert {"small", "medium", "large"} <= names[CatalogKind.FLAVOR]
    assert names[CatalogKind.ZONE] == {"north"}
    assert "private" in names[CatalogKind.NETWORK]
    [small] = [each for each in entries if each.name == "small"]
    assert set(small.details) == {"vcpus", "ram_mib", "disk_gib"}


async def test_quotas_are_those_of_now(
    cloud: OpenstackCloud, openstack: OpenStack, project: Project
) -> None:
    before = {quota.resource: quota for quota in (await cloud.catalog()).quotas}
    assert (before["vms"].limit, before["vms"].used) == (None, 0)
    openstack.set_quota(project, instances=3, cores=20, ram=4096)
    vm = await cloud.create(an_order())
    await eventually_runs(cloud, vm.vm_id)
    [small] = [each for each in (await cloud.catalog()).entries if each.name == "small"]
    quotas = {quota.resource: quota for quota in (await cloud.catalog()).quotas}
    assert {name: quotas[name].limit for name in ("vms", "cores", "ram_mib")} == {
        "vms": 3,
        "cores": 20,
        "ram_mib": 4096,
    }
    assert {name: quotas[name].used for name in ("vms", "cores", "ram_mib", "ports")} == {
        "vms": 1,
        "cores": int(small.details["vcpus"]),
        "ram_mib": int(small.details["ram_mib"]),
        "ports": 1,
    }


async def test_a_neutron_that_tells_no_quota_keeps_nobody_from_knowing_novas(
    project: Project, proxy: Proxy
) -> None:
    async with driver(project, auth_url=proxy.auth_url) as cloud:
        proxy.on("network", "GET", "/quotas/.*", Refusal(status=404, forwarded=False))
        resources = {quota.resource for quota in (await cloud.catalog()).quotas}
        nova, cinder = {"vms", "cores", "ram_mib", "server_groups"}, {"volumes", "volume_gib"}
        assert resources == nova | cinder
        proxy.on("compute", "GET", "/limits", Refusal(status=503, forwarded=False))
        with pytest.raises(Unavailable):
            await cloud.catalog()
