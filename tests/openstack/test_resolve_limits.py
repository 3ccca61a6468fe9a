"""Names of a spec that a real cloud has in some place, or has and cannot give: told beforehand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from iaas_service.domain import Attachment, CatalogKind
from iaas_service.drivers.openstack import OpenstackCloud
from iaas_service.drivers.openstack import inventory as inventory_module
from tests.openstack.driver import driver
from tests.openstack.faults import Changed, Empty
from tests.openstack.ground import OpenStack, Project
from tests.openstack.proxy import Proxy
from tests.openstack.test_resolve import fault, fields, resolved
from vmshepherd_kit.errors import NoCapacity, NotFound


@pytest.fixture
async def cloud(openstack: OpenStack, home: Project, proxy: Proxy) -> AsyncIterator[OpenstackCloud]:
    async with driver(home, auth_url=proxy.auth_url) as cloud:
        yield cloud


def an_image(project: Project, name: str, **said: Any) -> str:
    """The id of an image that VMs can be made of."""
    wanted = {"name": name, "disk_format": "raw", "container_format": "bare", **said}
    image = project.api.post("image", "/v2/images", {**wanted, "visibility": "private"})
    project.api.put("image", f"/v2/images/{image['id']}/file", b"an image of no use")
    return str(image["id"])


def close_the_zones(said: Any) -> None:
    """Every one of them is there, and has no host that could be used."""
    for zone in said["availabilityZoneInfo"]:
        zone["zoneState"]["available"] = False


async def test_a_zone_that_is_closed_now_is_waited_for_and_not_offered(
    cloud: OpenstackCloud, proxy: Proxy
) -> None:
    closed = Changed(change=close_the_zones)
    proxy.on("compute", "GET", "/os-availability-zone", closed)
    error = await fault(cloud, availability_zone="north")
    assert isinstance(error, NoCapacity)
    assert "zone 'north' is not available now" in error.message
    kinds = {entry.kind for entry in (await cloud.catalog()).entries}
    assert CatalogKind.ZONE not in kinds
    assert CatalogKind.FLAVOR in kinds


async def test_where_there_is_no_network_it_is_told_how_to_do_without(
    cloud: OpenstackCloud, proxy: Proxy
) -> None:
    proxy.on("network", "GET", "/networks", Empty(key="networks"))
    error = await fault(cloud)
    assert fields(error) == ["spec.networks"]
    assert "the project has no network: make one, or say `networks: none`" in error.message
    assert (await resolved(cloud, options={"networks": "none"})).interfaces == ()


async def test_an_image_that_is_too_large_for_the_flavor_is_refused(
    cloud: OpenstackCloud, home: Project
) -> None:
    an_image(home, "greedy", min_ram=100_000)
    error = await fault(cloud, image="greedy")
    assert fields(error) == ["spec.flavor"]
    assert "image 'greedy' needs 100000" in error.message


async def test_an_image_that_no_list_shows_is_found_by_its_id_alone(
    cloud: OpenstackCloud, home: Project, proxy: Proxy
) -> None:
    hidden = an_image(home, "hidden", os_hidden=True)
    assert (await resolved(cloud, image=hidden)).image.id == hidden
    with proxy.counting() as calls:
        assert isinstance(await fault(cloud, image="hidden"), NotFound)
    assert set(calls) <= {"image GET /images"}, "a name leads to no address of a cloud's"


async def test_a_subnet_of_another_network_is_not_found_in_the_one_that_is_named(
    openstack: OpenStack,
) -> None:
    project = openstack.project()
    network = project.api.post("network", "/v2.0/networks", {"network": {"name": "inner"}})
    inner = {"network_id": network["network"]["id"], "name": "inner-subnet", "ip_version": 4}
    project.api.post("network", "/v2.0/subnets", {"subnet": {**inner, "cidr": "10.1.0.0/24"}})
    try:
        async with driver(project) as cloud:
            both = Attachment(network="private", subnet="inner-subnet")
            error = await fault(cloud, networks=(both,))
            assert isinstance(error, NotFound)
            assert "has no subnet 'inner-subnet'" in error.message
    finally:
        project.api.delete("network", f"/v2.0/networks/{inner['network_id']}")


def without_neutron(said: Any) -> None:
    """A catalogue of services in which it does not stand."""
    services = said["token"]["catalog"]
    services[:] = [each for each in services if each["type"] != "network"]


async def test_a_cloud_without_neutron_offers_no_networks_and_all_else(
    cloud: OpenstackCloud, proxy: Proxy
) -> None:
    proxy.on("identity", "POST", "/auth/tokens", Changed(change=without_neutron))
    found = await cloud.catalog()
    kinds = {entry.kind for entry in found.entries}
    assert kinds == {CatalogKind.IMAGE, CatalogKind.FLAVOR, CatalogKind.ZONE}
    assert "ports" not in {quota.resource for quota in found.quotas}


async def test_a_server_group_is_found_on_whichever_page_it_stands(
    cloud: OpenstackCloud, home: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inventory_module, "_PAGES", {"limit": 1})
    for name in ("one", "two", "three"):
        wanted = {"name": name, "policy": "affinity"}
        home.api.post("compute", "/os-server-groups", {"server_group": wanted})
    for name in ("one", "two", "three"):
        group = (await resolved(cloud, options={"server_group": name})).server_group
        assert group is not None
        assert group.name == name
